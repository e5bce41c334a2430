"""A large image whose process is killed at any write: no half file, and the same call gives the same bytes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from biounet.network import save_model
from support import ROOT
from support.batches import all_files
from support.images import discs

EVERY = int(os.environ.get("EVERY_WRITE", "11"))  # all of them take two minutes

KILLED = """
import itertools, os, sys
from pathlib import Path
import torch
from biounet.batch import BatchOptions, large_image, segment_batch
from biounet.files import find_images
from biounet.large_images import budget
from biounet.network import load_model
from support.write_faults import fail_at_write
torch.set_num_threads(1)
budget._EDGES = {2: ((64, 64),)}
budget.available_cores = large_image.available_cores = lambda: 1
model, images, out = load_model(sys.argv[1]), find_images([sys.argv[2]]), Path(sys.argv[3])
options = BatchOptions(jobs=1, label_format=sys.argv[4])
if sys.argv[4] == "tif":
    large_image.usable_memory = lambda: 0
    large_image._choose_size = lambda *_: large_image.choose_size(_[0], model, large_image.Means(1, 2**34))
segment_batch(images, model, out / "whole", options)  # imports and compiles for all children
for number in itertools.count(1, int(sys.argv[5])):
    child = os.fork()
    if not child:
        fail_at_write(number, kill=True)
        segment_batch(images, model, out / f"killed{number:03}", options)
        os._exit(0)
    is_last = os.waitpid(child, 0)[1] == 0
    child = os.fork()
    if not child:
        segment_batch(images, model, out / f"killed{number:03}", options)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    if is_last:
        break
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs to fork")
@pytest.mark.parametrize("label_format", ["zarr", "tif"])
def test_a_kill_at_any_write_is_made_good_by_the_same_call(label_format, untrained, tmp_path):
    image = np.tile(discs((60, 48), 8, 0)[0], (1, 2))
    (tmp_path / "in").mkdir()
    zarr.create_array(tmp_path / "in" / "a.zarr", data=image, chunks=(32, 32))
    save_model(untrained, tmp_path / "m.safetensors")
    (tmp_path / "out").mkdir()
    program = [sys.executable, "-c", KILLED]
    given = [tmp_path / "m.safetensors", tmp_path / "in", tmp_path / "out", label_format, EVERY]
    helpers = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    subprocess.run([*program, *map(str, given)], check=True, env={**os.environ, "PYTHONPATH": helpers})
    whole = results(tmp_path / "out" / "whole")
    outs = sorted((tmp_path / "out").glob("killed*"))
    assert len(outs) > 40 // EVERY
    assert '"super_blocks": 64' in (outs[-1] / "manifest.jsonl").read_text(encoding="utf-8")
    for out in outs:
        assert results(out) == whole, out.name


def results(out: Path) -> dict[str, bytes]:
    """Return all files but those that state times."""
    states_times = {"run.json", "manifest.jsonl", "counts.csv", "report.html", ".claims"}
    return {name: data for name, data in all_files(out).items() if name not in states_times}
