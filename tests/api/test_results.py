"""Results show themselves in a line, in a notebook and without a display, and give tables."""

import re
import sys
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import ImageShow

from biounet.api import FailedImage, Result, Results, Segmenter
from biounet.core import Grid, InputError, SettingsError, Volume
from support.images import discs

IMAGE, _ = discs((64, 72), 6, 1)


@pytest.fixture(scope="module")
def model(untrained) -> Segmenter:
    return Segmenter(untrained)


@pytest.fixture(scope="module")
def result(model) -> Result:
    return model.segment(Volume(IMAGE[None], Grid(IMAGE.shape, (0.5, 0.5), "um"), Path("deep/cells.tif")))


@pytest.fixture
def headless(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")


def test_a_result_is_described_in_a_line(result, model):
    assert re.fullmatch(r"<Result cells\.tif: \d+ objects?, 64 x 72 px, 0\.5 µm(; flagged: .+)?>", repr(result))
    long = Result(**{**vars(result), "name": "n" * 500, "notes": ("blurred",) * 90})
    assert len(repr(long)) <= 300
    assert len(repr(FailedImage("x.tif", InputError("c" * 500, path="x.tif")))) <= 300
    assert len(repr(Results([long] * 100))) <= 300
    assert len(repr(model)) <= 300
    assert "pixel size unknown" in repr(model.segment(IMAGE))


def test_results_are_a_list_with_tables(model):
    one, two = model.segment(IMAGE), model.segment(IMAGE[::-1, :40].copy())
    failed = FailedImage("c.tif", InputError("empty file", path="c.tif"))
    results = Results([Result(**{**vars(one), "name": "a.tif"}), Result(**{**vars(two), "name": "b.tif"})], [failed])
    assert len(results) == 2
    assert results["a.tif"] is results[0]
    assert results[-1] is results[1]
    assert isinstance(results[:1], Results)
    with pytest.raises(KeyError, match=r"no image is called 'd\.tif'; there are a\.tif, b\.tif"):
        results["d.tif"]
    assert results.count == one.count + two.count
    assert Results([], [failed]).count is None
    for name in ("labels", "overlay", "warnings"):
        with pytest.raises(AttributeError, match=rf"each image has its own: results\[0\]\.{name}"):
            getattr(results, name)
    with pytest.raises(AttributeError, match=r"have no 'colour'$"):
        _ = results.colour
    assert results.counts.index.tolist() == ["a.tif", "b.tif", "c.tif"]
    assert results.counts.sum() == one.count + two.count
    assert results.counts.isna().tolist() == [False, False, True]
    table = results.table
    assert list(table.columns) == ["image", *one.table.columns]
    assert table["image"].tolist() == ["a.tif"] * one.count + ["b.tif"] * two.count
    pd.testing.assert_frame_equal(table.drop(columns="image")[: one.count], one.table)


def test_results_are_saved_in_folders_like_those_of_the_images(model, few):
    results = model(few)
    paths = results.save(few / "out")
    assert [path.relative_to(few / "out").as_posix() for path in paths if path.suffix == ".tif"] == [
        "a_labels.tif",
        "b_labels.tif",
        "deep/c_labels.tif",
    ]
    assert all(path.is_file() for path in paths)


def test_results_of_one_name_do_not_replace_each_other(result, tmp_path):
    other = Result(**{**vars(result), "name": "cells.png"})
    with pytest.raises(SettingsError, match=r"more than one result would be saved as that of cells\.tif"):
        Results([result, other]).save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_without_a_display_the_picture_is_saved_and_a_line_says_where(result, headless, caplog):
    path = result.show()
    assert path.name == "cells_overlay.png"
    assert np.array_equal(np.asarray(_open(path)), result.overlay())
    assert caplog.messages == [f"there is no display: the picture is in {path}"]


def test_with_a_display_a_viewer_opens_it(result, monkeypatch, caplog):
    opened = []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(ImageShow, "show", lambda image, title: opened.append((image.size, title)) or True)
    assert result.show() is None
    assert opened == [((72, 64), "cells.tif")]
    monkeypatch.setattr(ImageShow, "show", lambda image, title: False)  # there is no viewer
    assert result.show().is_file()


def test_a_notebook_shows_results_by_itself(result, monkeypatch, headless):
    shown = []
    shell = types.SimpleNamespace(kernel=object())
    display = types.SimpleNamespace(display=shown.append, Image=lambda data: data)
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell, display=display))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    assert result.show() is None
    assert shown == [result._repr_png_()]
    html = result._repr_html_()
    assert f"{result.count} object" in html
    assert "data:image/webp;base64," in html
    gallery = Results([result] * 70, [FailedImage("<b>.tif", InputError("empty file", path="<b>.tif"))])._repr_html_()
    assert gallery.count("<img ") == 60
    assert "and 10 more" in gallery
    assert "failed: &lt;b&gt;.tif: empty file" in gallery


def test_pictures_in_notebooks_are_small(model):
    large = model.segment(np.tile(IMAGE, (20, 20)))
    import io

    from PIL import Image

    assert max(Image.open(io.BytesIO(large._repr_png_())).size) == 640
    assert len(large._repr_html_()) < 1_500_000


def _open(path):
    from PIL import Image

    return Image.open(path)
