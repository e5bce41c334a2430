"""What several test files use: small fields of cells with truth, and the folder of real data."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from hypothesis import settings

from support import ROOT
from support.commands import without_notes
from support.faults import faults_of
from support.images import discs

if TYPE_CHECKING:
    from biounet.api import Segmenter
    from biounet.network import Model

# torch and MONAI take seconds to import: fixtures do it, and tests of light rooms start at once.
SHARED = ROOT.parent / "shared" / "data"

# A property that fails once in a thousand draws is found by people at work, and does not stop what they have done.
settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    settings.load_profile("ci")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Use all cores unless ``-n`` says otherwise, and one thread in each worker and what it starts."""
    if hasattr(config, "workerinput"):
        return
    if getattr(config.option, "numprocesses", 0) is None:
        config.option.numprocesses = "auto"
    if getattr(config.option, "numprocesses", 0):
        for library in ("OMP", "MKL", "OPENBLAS", "NUMBA"):
            os.environ.setdefault(f"{library}_NUM_THREADS", "1")


@pytest.fixture
def biounet(capsys, monkeypatch, tmp_path):
    """Run a command in an empty folder; return exit code, stdout, and stderr without notes on the progress."""
    from biounet.cli import commands
    from biounet.core import stopping

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stopping.signal, "signal", lambda *_: None)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["biounet", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            commands.main()
        shown = capsys.readouterr()
        return int(stop.value.code or 0), shown.out, without_notes(shown.err)

    return run


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Every test draws the same from torch's global generator, whichever ran before it."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let ``-k F028`` find the tests that state fault 28."""
    for item in items:
        item.extra_keyword_matches.update(faults_of(item.name))


@pytest.fixture(scope="session")
def cell_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with images/ and labels/ of six fields of 96x96 with about 12 discs each, pixel size 0.5 µm."""
    folder = tmp_path_factory.mktemp("cells")
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for number in range(6):
        image, labels = discs((96, 96), 12, number)
        calibration = {"imagej": True, "resolution": (2.0, 2.0), "metadata": {"unit": "um", "axes": "YX"}}
        tifffile.imwrite(folder / "images" / f"field{number}.tif", image, **calibration)
        tifffile.imwrite(folder / "labels" / f"field{number}.tif", labels.astype(np.uint16), **calibration)
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real images; tests that need it are skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"real images are not at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def segmenter(cell_folder: Path) -> "Segmenter":
    """A small model that has learned to find discs."""
    from biounet.api import Segmenter
    from biounet.core.recipe import parse_recipe
    from biounet.files import find_pairs
    from biounet.training import load_cases, train

    recipe = parse_recipe(
        {
            "network": {"widths": [8, 12, 16]},
            # Seed and rate: with so few channels, others leave half of them at 0 for ever.
            "train": {
                "patch": 64,
                "batch": 4,
                "epochs": 6,
                "steps_per_epoch": 60,
                "learning_rate": 5e-3,
                "ema_decay": 0.9,
                "seed": 2,
            },
        }
    )
    cases = list(load_cases(find_pairs(cell_folder / "images", cell_folder / "labels"), recipe))
    return Segmenter(train(cases[:5], cases[5:], recipe))


@pytest.fixture(scope="session")
def untrained() -> "Model":
    """A model of random weights: what it finds is nonsense, but always the same, and there at once."""
    from biounet.core.recipe import parse_recipe
    from biounet.network import Card, Model, build_network, initialise_weights, output_channels

    recipe = parse_recipe({"network": {"widths": [4, 4]}, "label": {"min_size": 1}})
    network = build_network(recipe)
    initialise_weights(network, 0)
    return Model(network.eval(), Card(recipe=recipe, inputs=("intensity",), outputs=output_channels(recipe)))


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """Folder ``in`` of three small fields, the last one deeper."""
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    for number, name in enumerate(("a.tif", "b.tif", "deep/c.tif")):
        calibration = {"imagej": True, "resolution": (2.0, 2.0), "metadata": {"unit": "um", "axes": "YX"}}
        tifffile.imwrite(folder / name, discs((40, 48), 4, number)[0], **calibration)
    return folder
