"""Training and batches give the same however Python starts processes: macOS and Windows do not fork."""

import multiprocessing
import os
import subprocess
import sys

import pytest

from biounet.files import find_pairs
from biounet.network import save_model
from biounet.training import load_cases, train
from support import ROOT
from support.batches import ONE_JOB, result_files, segment_folder
from support.trainings import tiny_recipe, weights_hash

PROGRAM = """
import multiprocessing, sys  # each process that is started imports what stands here
from pathlib import Path

def segment(images, model, out):
    from biounet.network import load_model
    from support.batches import segment_folder
    segment_folder(Path(images), load_model(model), Path(out))

if __name__ == "__main__":
    from biounet.files import find_pairs
    from biounet.training import TrainOptions, load_cases, train
    from support.trainings import tiny_recipe, weights_hash

    method, cells, *paths = sys.argv[1:]
    multiprocessing.set_start_method(method)
    recipe = tiny_recipe(train={"epochs": 1})
    cases = list(load_cases(find_pairs(Path(cells, "images"), Path(cells, "labels")), recipe))
    print(weights_hash(train(cases[:2], [], recipe, TrainOptions(workers=1))))
    child = multiprocessing.Process(target=segment, args=paths)
    child.start()
    child.join()
    sys.exit(child.exitcode)
"""


METHODS = [method for method in multiprocessing.get_all_start_methods() if method != "fork"]


@pytest.mark.parametrize("method", METHODS)
def test_processes_that_are_not_forked_give_the_same(method, few, untrained, cell_folder, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    save_model(untrained, tmp_path / "m.safetensors")
    arguments = [method, cell_folder, few, tmp_path / "m.safetensors", tmp_path / "out"]
    path = os.pathsep.join([str(ROOT / "tests"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(tmp_path / "program.py"), *map(str, arguments)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    recipe = tiny_recipe(train={"epochs": 1})
    cases = list(load_cases(find_pairs(cell_folder / "images", cell_folder / "labels"), recipe))
    assert done.stdout.split() == [weights_hash(train(cases[:2], [], recipe))]
    segment_folder(few, untrained, tmp_path / "here", ONE_JOB)
    assert result_files(tmp_path / "out") == result_files(tmp_path / "here") != {}
