"""Programs that use what biounet writes, run as on a machine that does not have biounet."""

import ast
import subprocess
import sys

import numpy as np
import pytest

from support import ROOT

EXAMPLE = ROOT / "examples" / "onnx_count.py"


@pytest.fixture(scope="module")
def int8_model(tmp_path_factory):
    from biounet.api import load

    return load("nuclei").export("onnx-int8", tmp_path_factory.mktemp("exported") / "nuclei.onnx").path


def count(model, folder, images):
    """Return what the example prints for each image, in a process of its own."""
    names = [f"{n}.npy" for n in range(len(images))]
    for name, image in zip(names, images, strict=True):
        np.save(folder / name, image)
    command = [sys.executable, str(EXAMPLE), str(model), *names]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return [line.split() for line in done.stdout.splitlines()]


def test_the_counts_of_the_example_are_those_of_biounet(int8_model, tmp_path):
    from biounet.api import load
    from biounet.synthetic import draw_field_settings, make_field

    images = [make_field(seed, draw_field_settings(seed, (201, 260)))[0] for seed in (2, 6, 11)]
    own = [load("nuclei").segment(image, diameter="native").count for image in images]
    printed = count(int8_model, tmp_path, images)
    assert [name for name, _ in printed] == ["0.npy", "1.npy", "2.npy"]
    assert sum(own) > 100
    for (_, found), expected in zip(printed, own, strict=True):
        assert abs(int(found) - expected) <= 0.02 * expected


def test_an_image_without_objects_has_none(int8_model, tmp_path):
    one = np.zeros((40, 50), np.uint8)
    one[10:24, 12:28] = 200
    assert [found for _, found in count(int8_model, tmp_path, [np.zeros((33, 20), np.uint8), one])] == ["0", "1"]


def test_the_example_is_short_and_needs_nothing_else():
    source = EXAMPLE.read_text(encoding="utf-8")
    tree = ast.parse(source)
    imports = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert sorted(imports) == ["json", "numpy", "onnxruntime", "sys"]
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    texts = [node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.FunctionDef)]
    documented = {n for node in texts for n in range(node.body[0].lineno, node.body[0].end_lineno + 1)}
    lines = [text for n, text in enumerate(source.splitlines(), 1) if text.strip() and n not in documented]
    assert len(lines) <= 30
