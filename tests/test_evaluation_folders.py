"""Results on disk against annotations on disk: which file belongs to which, and what cannot be compared."""

import numpy as np
import pytest
import tifffile

from biounet.errors import InputError
from biounet.evaluation import evaluate_folders
from biounet.recipe import DataSettings


def picture(*rows):
    """Labels from text: digits are ids, ``.`` background."""
    return np.array([[int(letter.replace(".", "0")) for letter in row] for row in rows], np.int32)


def write(path, labels):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, labels.astype(np.uint16))


@pytest.fixture
def folders(tmp_path):
    truth, out = tmp_path / "truth", tmp_path / "out"
    write(truth / "a.tif", picture("11.22"))
    write(truth / "deep" / "b.png.tif", picture("11..."))
    write(out / "a_labels.tif", picture("33..."))
    write(out / "deep" / "b.png_labels.tif", picture("11..."))
    write(out / "extra_labels.tif", picture("1"))
    (out / "a_overlay.png").write_bytes(b"no image")
    return out, truth


def test_same_names(folders):
    result = evaluate_folders(*folders, DataSettings())
    assert result.truth_counts == (2, 1)
    assert result.ap == (2 / 3,) * 9


def test_masks_beside_their_images(folders):
    out, truth = folders
    (truth / "a.tif").rename(truth / "a_masks.tif")
    (truth / "deep" / "b.png.tif").rename(truth / "deep" / "b.png_masks.tif")
    for name in ("a.tif", "unannotated.tif"):
        write(truth / name, picture("99999"))
    assert evaluate_folders(out, truth, DataSettings()).ap == (2 / 3,) * 9


def test_results_below_the_truth_are_no_truth(folders):
    out, truth = folders
    out = out.rename(truth / "biounet-out")
    assert evaluate_folders(out, truth, DataSettings()).truth_counts == (2, 1)


def test_other_folders_where_names_are_unique(folders):
    out, truth = folders
    (out / "deep" / "b.png_labels.tif").rename(out / "b.png_labels.tif")
    assert evaluate_folders(out, truth, DataSettings()).truth_counts == (2, 1)
    write(truth / "else" / "b.png.tif", picture("....."))
    with pytest.raises(InputError, match=r"2 of 3 annotations: deep/b.png, else/b.png"):
        evaluate_folders(out, truth, DataSettings())


def test_missing_results_are_named(folders):
    out, truth = folders
    for name in ("c.tif", "d.tif"):
        write(truth / name, picture("1.."))
    with pytest.raises(InputError, match=r"out: no result for 2 of 4 annotations: c, d "):
        evaluate_folders(out, truth, DataSettings())


def test_shapes_differ(folders):
    out, truth = folders
    write(out / "a_labels.tif", picture("11..", "...."))
    with pytest.raises(InputError, match=r"a\.tif: is \(1, 5\), but the result .*a_labels\.tif is \(2, 4\)"):
        evaluate_folders(out, truth, DataSettings())


def test_two_annotations_of_one_image(folders):
    out, truth = folders
    for name in ("a_mask.tif", "a_label.tif"):
        write(truth / name, picture("1"))
    with pytest.raises(InputError, match="annotation of the same image"):
        evaluate_folders(out, truth, DataSettings())


def test_folders_without_images(folders, tmp_path):
    out, _ = folders
    with pytest.raises(InputError, match="no such folder"):
        evaluate_folders(out, tmp_path / "nowhere", DataSettings())
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no annotation found"):
        evaluate_folders(out, tmp_path / "empty", DataSettings())


def test_classes_and_scribbles(folders):
    out, truth = folders
    found = evaluate_folders(out, truth, DataSettings(kind="classes", classes=("x", "y", "z")))
    assert found.classes == ("x", "y", "z")
    assert found.dice == (2 * 2 / (4 + 2), 0, 0)
    strokes = DataSettings(kind="scribbles", classes=("background", "cell", "other", "more"))
    assert evaluate_folders(out, truth, strokes).classes == ("cell", "other", "more")
