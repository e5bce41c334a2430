#!/usr/bin/env bash
# Install the peers that biounet is compared with, each into an environment of its own.
#
#   benchmarks/peers/install.sh DIR        makes DIR/stardist, DIR/cellpose and DIR/nnunet; safe to repeat
#
# PYTHON names the interpreter (3.11 by default). The versions that decide a figure are pinned.
set -euo pipefail

dir=${1:?usage: install.sh DIR}
python=${PYTHON:-python3.11}
mkdir -p "$dir"
# A half-made environment is an error then, where pip would otherwise install for the whole machine.
export PIP_REQUIRE_VIRTUALENV=1

environment() {
    [ -x "$dir/$1/bin/python" ] || "$python" -m venv "$dir/$1"
}

install() {
    "$dir/$1/bin/python" -m pip install --quiet "${@:2}"
}

environment stardist
install stardist stardist==0.9.2 csbdeep==0.8.2 tensorflow-cpu==2.21.0 keras==3.15.1 scikit-image==0.26.0 imagecodecs
"$dir/stardist/bin/python" -c '
import os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import stardist, stardist.models, tensorflow
print("stardist", stardist.__version__, "with tensorflow", tensorflow.__version__)'

environment cellpose
# torch first and pinned, so that a CPU build is kept where the index offers one.
install cellpose torch==2.13.0
install cellpose torch==2.13.0 cellpose==3.1.1.3 scikit-image==0.26.0
"$dir/cellpose/bin/python" -c '
from importlib.metadata import version
import torch
from cellpose import models, train
print("cellpose", version("cellpose"), "with torch", torch.__version__)'

environment nnunet
# torch first and pinned, so that a CPU build is kept where the index offers one.
install nnunet torch==2.13.0
install nnunet torch==2.13.0 nnunetv2==2.8.1
"$dir/nnunet/bin/python" -c '
from importlib.metadata import version
import torch
import nnunetv2
print("nnunetv2", version("nnunetv2"), "with torch", torch.__version__)'
