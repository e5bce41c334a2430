"""The documentation: it builds without a warning, and what its reference says is what the code does."""

import subprocess
import sys

import numpy as np
import pytest

from support import ROOT

sys.path.insert(0, str(ROOT / "docs" / "_ext"))

from biounet_docs import columns, commands, messages, recipe_settings

from biounet.core import Grid, Recipe
from biounet.measurement import Ring, join_tables, link_objects, measure_classes, measure_lesions, measure_objects
from biounet.measurement.labels import measure_labels


def test_the_documentation_builds_without_a_warning(tmp_path):
    for module in ("sphinx", "myst_parser", "pydata_sphinx_theme"):
        pytest.importorskip(module, reason="the extra docs is not installed")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-d", tmp_path / "doctrees"]
    done = subprocess.run([*command, ROOT / "docs", tmp_path / "html"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "html" / "index.html").exists()
    outside = [path for path in (tmp_path / "html").rglob("*.html") if 'src="http' in path.read_text(encoding="utf-8")]
    assert outside == [], "the pages load something from the network"


def test_every_command_and_option_is_described():
    page = commands.page()
    for expected in (
        "## biounet segment",
        "`--shard I/N`",
        "`--no-overlay`",
        "`--model TEXT`, `-m TEXT`",
        "| `auto` |",
    ):
        assert expected in page
    assert "|  |  |" not in page, "an option without a word of help"


def test_every_setting_is_described():
    page = recipe_settings.page()
    for section, field in Recipe.model_fields.items():
        if hasattr(field.annotation, "model_fields"):
            assert f"## [{section}]" in page
            assert all(f"| `{name}` |" in page for name in field.annotation.model_fields)
    assert "| `min_peak` | number ≥ 0, ≤ 1 | `0.2` |" in page


def test_advice_is_about_messages_that_there_are():
    assert messages.stale_advice() == []


def test_messages_are_found_with_their_hints():
    found = {message.cause: message for message in messages.find_messages()}
    message = found["no model is called '…'"]
    assert (message.kind, message.room, message.hint) == ("ModelError", "api", "built in: …; or give a path")
    assert len(found) > 200


def tables():
    """Tables of each kind, on grids with and without calibration."""
    for dims, unit in ((2, None), (2, "um"), (3, None), (3, "um"), (3, "mm")):
        shape = (6,) * dims
        labels = np.zeros(shape, np.int32)
        labels[(slice(1, 4),) * dims] = 1
        grid = Grid(shape, None if unit is None else (1.0,) * dims, unit)
        if unit == "mm":
            grid = Grid(shape, (1.0,) * 3, unit, np.eye(4)[:3], frame="scanner")
        yield "objects", measure_objects(labels, labels[None], grid, np.array([0.5]), ("DAPI",), Ring())
        measured = measure_labels(labels, {"DAPI": labels}, grid, inside=labels)
        yield "objects", measured.objects
        yield "objects", measured.parents
        still = link_objects(labels, labels)
        yield "objects", join_tables([0, 1], [measured.objects] * 2, [still])[0]
        yield "classes", measure_classes(labels, ("lake",), grid, {"DAPI": labels})
        yield "lesions", measure_lesions(labels, {"core": (1,)}, grid, channels={"DAPI": labels})


def test_every_column_is_described_and_every_description_is_of_a_column():
    used = set()
    for kind, table in tables():
        for column in table.columns:
            entry = columns.find_entry(kind, column)
            assert entry, f"{column} of {kind}: say in docs/_ext/biounet_docs/columns.toml what it holds"
            used.add((kind, entry))
    described = {(kind, entry) for kind in ("objects", "classes", "lesions") for entry in columns.read_columns()[kind]}
    assert described - used == set()
