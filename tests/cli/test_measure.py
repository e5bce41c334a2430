"""``biounet measure``: labels of any program, from the shell."""

import csv
import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from support.commands import read_rows
from support.images import discs
from support.label_images import picture


@pytest.fixture
def folders(tmp_path):
    """Folders of three label images as Cellpose names them, of their images, and of the larger objects."""
    for name in ("masks", "images", "cells"):
        (tmp_path / name / "deep").mkdir(parents=True)
    for number, name in enumerate(("a", "b", "deep/c")):
        image, labels = discs((40, 48), 4, number)
        calibration = {"imagej": True, "resolution": (2.0, 2.0), "metadata": {"unit": "um", "axes": "YX"}}
        tifffile.imwrite(tmp_path / "images" / f"{name}.tif", image, **calibration)
        tifffile.imwrite(tmp_path / "masks" / f"{name}_cp_masks.tif", (labels * 10).astype(np.uint16))
        halves = np.ones_like(labels)
        halves[:, 24:] = 2
        tifffile.imwrite(tmp_path / "cells" / f"{name}_labels.tif", halves.astype(np.uint8))
    return tmp_path


def read(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_folder_of_labels_is_measured_on_its_images(biounet, folders):
    code, out, err = biounet("measure", "masks", "--image", "images", "--channels", "DAPI", "-o", "out")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "12 objects measured in 3 of 3 label images; see out/"
    rows = read(folders / "out" / "counts.csv")
    assert [(row["image"], row["count"]) for row in rows] == [
        ("a_cp_masks.tif", "4"),
        ("b_cp_masks.tif", "4"),
        ("deep/c_cp_masks.tif", "4"),
    ]
    objects = read(folders / "out" / "deep" / "c_objects.csv")
    assert [row["label"] for row in objects] == ["10", "20", "30", "40"]
    image = tifffile.imread(folders / "images" / "deep" / "c.tif")
    labels = tifffile.imread(folders / "masks" / "deep" / "c_cp_masks.tif")
    for row in objects:
        values = image[labels == int(row["label"])]
        assert float(row["intensity_mean_DAPI"]) == pytest.approx(values.mean(), rel=1e-9)
        assert float(row["area_um2"]) == values.size / 4
        assert float(row["background_DAPI"]) == np.median(image[labels == 0])
    means = np.mean([float(row["intensity_mean_DAPI"]) for row in objects])
    assert float(rows[2]["mean_intensity_DAPI"]) == pytest.approx(means, rel=1e-5)


def test_objects_are_counted_in_larger_ones(biounet, folders):
    code, out, _ = biounet("measure", "masks", "--inside", "cells", "--json")
    assert code == 0
    assert json.loads(out.splitlines()[0])["outputs"] == ["a_objects.csv", "a_parents.csv"]
    parents = read(folders / "biounet-measured" / "a_parents.csv")
    assert [row["label"] for row in parents] == ["1", "2"]
    assert sum(int(row["count_inside"]) for row in parents) == 4
    row = read(folders / "biounet-measured" / "counts.csv")[0]
    assert (row["parents"], row["objects_without_parent"]) == ("2", "0")


def test_objects_that_cross_are_said_in_one_line(biounet, tmp_path):
    tifffile.imwrite(tmp_path / "nuclei.tif", picture("11.22 11.22").astype(np.uint8))
    tifffile.imwrite(tmp_path / "cells.tif", picture("34455 34455").astype(np.uint8))
    code, out, err = biounet("measure", "nuclei.tif", "--inside", "cells.tif", "-o", "out")
    assert (code, err) == (0, "")
    assert out.splitlines()[0].startswith("nuclei.tif: 2 flagged, ")
    assert "1 of 2 objects lies in more than one of the larger objects (column crosses)" in out.splitlines()[0]
    assert [row["crosses"] for row in read(tmp_path / "out" / "nuclei_objects.csv")] == ["1", "0"]


def test_channels_may_lie_in_folders_of_their_own(biounet, folders):
    biounet("measure", "masks", "--image", "DAPI=images", "--image", "GFP=images", "--ring", "0,1um", "-o", "out", "-q")
    row = read(folders / "out" / "a_objects.csv")[0]
    assert row["intensity_mean_DAPI"] == row["intensity_mean_GFP"]
    assert row["ring_mean_DAPI"] == row["ring_mean_GFP"] != ""


def test_an_empty_label_image_counts_0(biounet, tmp_path):
    tifffile.imwrite(tmp_path / "none.tif", np.zeros((5, 5), np.uint8))
    code, out, _ = biounet("measure", "none.tif", "-o", "out", "--json")
    assert code == 0
    row = json.loads(out)
    assert (row["status"], row["count"]) == ("empty", 0)


def test_a_mask_that_does_not_tell_objects_apart_is_flagged(biounet, tmp_path):
    tifffile.imwrite(tmp_path / "mask.tif", picture("11.11 11.11").astype(np.uint8) * 255)
    _, out, _ = biounet("measure", "mask.tif", "-o", "out")
    assert out.startswith("mask.tif: 1 flagged, ")
    assert "one object in 2 pieces, of the value 255: a mask, which does not tell objects apart?" in out
    assert read(tmp_path / "out" / "counts.csv")[0]["flags"] == "mask=2"


def test_labels_stored_as_jpeg_are_refused(biounet, tmp_path):
    Image.fromarray(np.kron(picture("12 34").astype(np.uint8), np.ones((16, 16), np.uint8))).save(tmp_path / "a.jpg")
    code, _, err = biounet("measure", "a.jpg", "-o", "out")
    assert code == 4
    assert err.startswith("ERROR a.jpg: a JPEG, which changes values along every edge: no label image")


def test_a_folder_of_outlines_says_what_they_are_for(biounet, tmp_path):
    (tmp_path / "rois").mkdir()
    (tmp_path / "rois" / "a.roi").write_bytes(b"Iout")
    code, _, err = biounet("measure", "rois", "-o", "out")
    assert code == 4
    assert err.startswith("ERROR rois: no label image found (hint: outlines are for 'biounet check', 'train' and")


@pytest.mark.parametrize(
    ("labels", "image", "message"),
    [
        ((4, 9, 9), (9, 9), "an image, not a volume (axes YX, shape 9 x 9) (hint: the labels are a volume)"),
        ((9, 9), (4, 9, 9), "4 planes (axes ZYX, shape 4 x 9 x 9) (hint: the labels are an image: choose a --plane)"),
    ],
)
def test_labels_and_image_of_other_dimensions(biounet, tmp_path, labels, image, message):
    for name, shape in (("labels", labels), ("image", image)):
        axes = {"axes": "ZYX"[-len(shape) :]}
        tifffile.imwrite(tmp_path / f"{name}.tif", np.ones(shape, np.uint8), imagej=True, metadata=axes)
    code, _, err = biounet("measure", "labels.tif", "--image", "image.tif", "-o", "out")
    assert code == 4
    assert err == f"ERROR labels.tif: image.tif: {message}\n"


def test_one_image_that_fails_does_not_stop_the_others(biounet, folders):
    tifffile.imwrite(folders / "images" / "a.tif", np.zeros((9, 9), np.uint8))
    (folders / "images" / "b.tif").write_bytes(b"II*\x00")
    code, out, err = biounet("measure", "masks", "--image", "images", "-o", "out", "-q")
    assert (code, out) == (3, "")
    first, second = err.splitlines()
    assert first.startswith("ERROR a_cp_masks.tif: is 40 x 48, its image 9 x 9 (hint: ")
    assert second.startswith("ERROR b_cp_masks.tif: images/b.tif: ")
    rows = read(folders / "out" / "counts.csv")
    assert [(row["status"], row["count"]) for row in rows] == [("failed", ""), ("failed", ""), ("ok", "4")]


def test_files_without_a_partner_are_named(biounet, folders):
    (folders / "images" / "b.tif").rename(folders / "images" / "other.tif")
    code, _, err = biounet("measure", "masks", "--image", "images", "-o", "out")
    assert code == 3
    failed, left_out = err.splitlines()
    assert failed.startswith("ERROR b_cp_masks.tif: no image of this name in images (hint: it is called like the label")
    assert left_out == "1 file left out: 1 (no label image is called like it): other.tif"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nothing.tif"], 4, "nothing.tif: no such file or folder"),
        (["masks", "--image", "nothing"], 4, "nothing: no such file or folder"),
        (["masks", "--image", "images/a.tif"], 4, "one file for 3 label images"),
        (["masks", "--image", "cells", "--inside", "masks"], 4, "holds no files beside the label images"),
        (["masks", "-o", "masks"], 2, "the results would lie among the label images"),
        (["masks", "--ring", "5"], 2, "ring '5': gap and width, in px or um (hint: such as 1,5px or 0.5,2um)"),
        (["masks", "--spacing", "0"], 2, "--spacing 0"),
        (["masks", "--image", "images", "--image", "images"], 2, "--image images: a second one"),
        (["masks", "--image", "images", "--channels", "a,a"], 2, "channels: 'a' stands there more than once"),
    ],
)
def test_what_cannot_be_done_is_one_line(biounet, folders, arguments, code, message):
    found, out, err = biounet("measure", *arguments)
    assert (found, out) == (code, "")
    assert err.startswith("ERROR ")
    assert message in err
    assert len(err.splitlines()) == 1


def test_files_of_others_are_not_replaced(biounet, folders):
    (folders / "out").mkdir()
    (folders / "out" / "a_objects.csv").write_text("mine\n")
    code, _, err = biounet("measure", "masks", "-o", "out")
    assert code == 2
    assert "a_objects.csv: there already, and not written by 'biounet measure'" in err
    assert (folders / "out" / "a_objects.csv").read_text() == "mine\n"
    assert [path.name for path in (folders / "out").iterdir()] == ["a_objects.csv"]


def test_a_rerun_replaces_its_own_files(biounet, folders):
    assert biounet("measure", "masks", "-o", "out", "-q")[0] == 0
    before = (folders / "out" / "a_objects.csv").read_bytes()
    assert biounet("measure", "masks", "--image", "images", "-o", "out", "-q")[0] == 0
    assert (folders / "out" / "a_objects.csv").read_bytes() != before


def test_results_of_one_name_are_refused(biounet, folders):
    tifffile.imwrite(folders / "masks" / "a_masks.tif", np.ones((3, 3), np.uint8))
    code, _, err = biounet("measure", "masks", "-o", "out", "-q")
    assert code == 3
    assert [line.split(":")[0] for line in err.splitlines()] == ["ERROR a_cp_masks.tif", "ERROR a_masks.tif"]
    assert "its results would have the names of those of masks/a_masks.tif" in err


def test_nuclei_in_cells_are_two_tables_of_cellprofiler(tmp_path, biounet):
    nuclei, cells = np.zeros((20, 30), np.uint16), np.zeros((20, 30), np.uint16)
    cells[2:12, 15:25], cells[2:12, 2:12] = 4, 9
    nuclei[4:8, 4:8], nuclei[15:18, 4:8] = 3, 7
    for folder, array in (("nuclei", nuclei), ("cells", cells), ("images", nuclei * 100)):
        (tmp_path / folder).mkdir()
        tifffile.imwrite(tmp_path / folder / "a.tif", array)
    command = ("measure", "nuclei", "--image", "images", "--inside", "cells", "-o", "out", "--columns", "cellprofiler")
    assert biounet(*command)[0] == 0
    assert biounet(*command)[0] == 0  # it replaces what it wrote
    nucleus, cell, image = (read_rows(tmp_path / "out/cellprofiler" / f"{n}.csv") for n in ("Nuclei", "Cells", "Image"))
    assert [(row["ObjectNumber"], row["Parent_Cells"]) for row in nucleus] == [("1", "2"), ("2", "0")]
    assert [(row["ObjectNumber"], row["Children_Nuclei_Count"]) for row in cell] == [("1", "0"), ("2", "1")]
    assert float(nucleus[0]["Intensity_MeanIntensity_channel_0"]) == 300 / 65535
    assert (image[0]["Count_Nuclei"], image[0]["Count_Cells"]) == ("2", "2")
    assert (tmp_path / "out" / "a_parents_cellprofiler.csv").exists()
