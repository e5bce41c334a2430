"""Several commands on one large image at the same time: no two write the same, and the bytes are those of one."""

import os
import subprocess
import sys

import numpy as np
import pytest
import zarr

from biounet.network import save_model
from support import ROOT
from support.batches import all_files
from support.images import discs

TOGETHER = """
import os, sys
from pathlib import Path
import torch
from biounet.batch import BatchOptions, large_image, segment_batch
from biounet.files import find_images
from biounet.large_images import budget, stages
from biounet.network import load_model
torch.set_num_threads(1)
budget._EDGES = {2: ((64, 64),)}
budget.available_cores = large_image.available_cores = lambda: 1
write_shard, log = stages.write_shard, Path(sys.argv[3], "shards")

def write_noted(store, region, labels):
    with log.open("a") as file:
        file.write(f"{store.path.parent.parent.parent.name} {region}\\n")
    write_shard(store, region, labels)

stages.write_shard = write_noted
model, images, out = load_model(sys.argv[1]), find_images([sys.argv[2]]), Path(sys.argv[3])

def segment(name, shard):
    child = os.fork()
    if not child:
        segment_batch(images, model, out / name, BatchOptions(jobs=1, label_format="zarr", shard=shard))
        os._exit(0)
    return child

# This process imports and compiles for all children.
segment_batch(images, model, out / "whole", BatchOptions(jobs=1, label_format="zarr"))
for name, shards in {"together": [None, None], "array": [(1, 2), (2, 2)]}.items():
    for child in [segment(name, shard) for shard in shards]:
        assert os.waitpid(child, 0)[1] == 0, name
"""
TIMED = {"run.json", "manifest.jsonl", "counts.csv", "report.html", ".claims"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs to fork")
def test_commands_at_the_same_time_give_the_bytes_of_one(untrained, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    zarr.create_array(tmp_path / "in" / "a.zarr", data=np.tile(discs((60, 48), 8, 0)[0], (2, 2)), chunks=(32, 32))
    save_model(untrained, tmp_path / "m.safetensors")
    given = [tmp_path / "m.safetensors", tmp_path / "in", tmp_path / "out"]
    helpers = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    program = [sys.executable, "-c", TOGETHER, *map(str, given)]
    subprocess.run(program, check=True, env={**os.environ, "PYTHONPATH": helpers})
    whole, *others = (all_files(tmp_path / "out" / name) for name in ("whole", "together", "array"))
    results = {name: data for name, data in whole.items() if name not in TIMED}
    assert len(results) > 10
    for other in others:
        assert {name: data for name, data in other.items() if name not in TIMED} == results
        assert other["manifest.jsonl"].count(b'"status"') == whole["manifest.jsonl"].count(b'"status"')
    written = (tmp_path / "out" / "shards").read_text(encoding="utf-8").splitlines()
    assert len(written) == len({*written})
    assert len(written) % 3 == 0
