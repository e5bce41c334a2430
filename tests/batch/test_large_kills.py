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

EVERY = int(os.environ.get("EVERY_WRITE", "17"))  # all of them take two minutes
FIRST = {"zarr": 1, "tif": 9}  # writes that are not killed of one format are of the other

KILLED = """
import itertools, os, sys
from pathlib import Path
import torch
from biounet.batch import BatchOptions, large_image, records, segment_batch
from biounet.files import find_images
from biounet.large_images import budget
from biounet.network import load_model
from support.write_faults import fail_at_write
torch.set_num_threads(1)
budget._EDGES = {2: ((64, 64),)}
budget.available_cores = large_image.available_cores = lambda: 1
model, images, every = load_model(sys.argv[1]), find_images([sys.argv[2]]), int(sys.argv[4])

def segment_killed(number, out, options):
    # Returns whether there was no such write.
    for is_killed in (True, False):
        child = os.fork()
        if not child:
            if is_killed:
                fail_at_write(number, kill=True)
            segment_batch(images, model, out / f"killed{number:03}", options)
            os._exit(0)
        code = os.waitpid(child, 0)[1]
        if not is_killed:
            assert code == 0
        elif code == 0:
            return True
    return False

for label_format, first in (("zarr", int(sys.argv[5])), ("tif", int(sys.argv[6]))):
    out, options = Path(sys.argv[3], label_format), BatchOptions(jobs=1, label_format=label_format)
    out.mkdir(parents=True)
    if label_format == "tif":
        records.usable_memory = lambda: 0
        large_image._choose_size = lambda *_: large_image.choose_size(_[0], model, large_image.Means(1, 2**34))
    segment_batch(images, model, out / "whole", options)  # imports and compiles for all children
    for number in itertools.count(first, every):
        if segment_killed(number, out, options):
            break
"""


@pytest.fixture(scope="module")
def outs(untrained, tmp_path_factory):
    """A folder for each format, with the results of a run and of others that were killed and made good."""
    folder = tmp_path_factory.mktemp("kills")
    image = np.tile(discs((60, 48), 8, 0)[0], (1, 2))
    (folder / "in").mkdir()
    zarr.create_array(folder / "in" / "a.zarr", data=image, chunks=(32, 32))
    save_model(untrained, folder / "m.safetensors")
    given = [folder / "m.safetensors", folder / "in", folder / "out", EVERY, FIRST["zarr"], FIRST["tif"]]
    helpers = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    program = [sys.executable, "-c", KILLED, *map(str, given)]
    subprocess.run(program, check=True, env={**os.environ, "PYTHONPATH": helpers})
    return folder / "out"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs to fork")
@pytest.mark.parametrize("label_format", ["zarr", "tif"])
def test_a_kill_at_any_write_is_made_good_by_the_same_call(label_format, outs):
    whole = results(outs / label_format / "whole")
    killed = sorted((outs / label_format).glob("killed*"))
    assert len(killed) > 40 // EVERY
    assert '"super_blocks": 64' in (killed[0] / "manifest.jsonl").read_text(encoding="utf-8")
    for out in killed:
        assert results(out) == whole, out.name


def results(out: Path) -> dict[str, bytes]:
    """Return all files but those that state times."""
    states_times = {"run.json", "manifest.jsonl", "counts.csv", "report.html", ".claims"}
    return {name: data for name, data in all_files(out).items() if name not in states_times}
