"""Names and colours of labels for clinical viewers, read by the rules that these read them by; and BIDS derivatives."""

import json
import re
from dataclasses import replace
from itertools import pairwise

import nibabel as nib
import numpy as np
import pytest
from skimage.color import rgb2lab

from biounet.core import InputError
from biounet.files import ExportedImage, export_formats, read_volume, write_export
from biounet.files.axes import ReadOptions
from biounet.files.exports.bids import bids_path, write_dataset_description
from biounet.files.exports.colours import object_colours, palette
from support.labelled_images import labelled_image, squares
from support.nifti import nifti

ITK_SNAP, SLICER, FSLEYES, BIDS = export_formats(["itk-snap", "slicer", "fsleyes", "bids"])
NAMES = {1: "necrotic core", 2: 'rim "bright"', 3: "oedema"}
OBJECTS = labelled_image(squares((20, 30)))
CLASSES = labelled_image(squares((20, 30)).clip(max=2), kind="classes", class_names=NAMES)
ONE_CLASS = labelled_image(squares((20, 30)).clip(max=1), kind="classes", class_names={1: "tumour"})
EMPTY = labelled_image(np.zeros((20, 30), np.int32))
MANY = labelled_image(np.arange(1, 70_001, dtype=np.int32).reshape(280, 250))
SCENES = {"objects": OBJECTS, "classes": CLASSES, "one class": ONE_CLASS, "empty": EMPTY}


def read_itk_snap(path):
    """As ITK-SNAP does: seven numbers, then the label between the first and the last quote."""
    found = {}
    for line in path.read_text().splitlines():
        if line.startswith("#") or not line.strip():
            continue
        index, *rgb, alpha, visible, mesh = line.split(None, 7)[:7]
        assert (0 <= float(alpha) <= 1, visible in "01", mesh in "01") == (True, True, True)
        assert line.count('"') == 2
        found[int(index)] = (line.partition('"')[2].rpartition('"')[0], tuple(map(int, rgb)))
    assert found.pop(0) == ("Clear Label", (0, 0, 0))
    return found


def read_slicer(path):
    """As 3D Slicer does: words between blanks, of which the second is the name with underscores for blanks."""
    header, *lines = path.read_text().splitlines()
    assert header.startswith("# Color table file")
    rows = [line.split() for line in lines if not line.startswith("#")]
    assert {len(row) for row in rows} == {6}
    found = {int(row[0]): (row[1].replace("_", " "), tuple(map(int, row[2:5]))) for row in rows}
    assert [int(row[5]) for row in rows] == [0] + [255] * (len(rows) - 1)
    assert found.pop(0) == ("Background", (0, 0, 0))
    return found


def read_fsleyes(path):
    """As `fsleyes.colourmaps.loadLookupTableFile` does, which needs two rows and no comment."""
    with path.open() as file:
        table = np.genfromtxt(file, usecols=(0, 1, 2, 3))
    assert table.shape[0] >= 2
    lines = path.read_text().splitlines()
    assert len(lines) == len(table)
    assert ((table[:, 1:] >= 0) & (table[:, 1:] <= 1)).all()
    names = [line.split(None, 4)[4].strip() for line in lines]
    colours = [tuple(np.rint(row[1:] * 255).astype(int).tolist()) for row in table]
    rows = zip(table[:, 0], names, colours, strict=True)
    return {int(label): (name, colour) for label, name, colour in rows if name != "unused"}


READERS = [(ITK_SNAP, read_itk_snap), (SLICER, read_slicer), (FSLEYES, read_fsleyes)]


@pytest.mark.parametrize(("export", "read"), READERS, ids=lambda one: getattr(one, "name", ""))
@pytest.mark.parametrize("scene", SCENES)
def test_every_label_has_its_name_and_colour(tmp_path, export, read, scene):
    image = SCENES[scene]
    found = read(write_export(image, export, tmp_path))
    labels = list(image.class_names) or image.values.tolist()
    quote = "'" if export is ITK_SNAP else '"'
    expected = {
        label: (image.label_name(label).replace('"', quote), tuple(object_colours(np.array([label]))[0].tolist()))
        for label in labels
    }
    assert found == expected


@pytest.mark.parametrize("export", [ITK_SNAP, FSLEYES], ids=lambda one: one.name)
def test_more_labels_than_a_viewer_knows_are_an_error_that_names_one_that_does(tmp_path, export):
    with pytest.raises(InputError, match=r"knows labels up to 65535, and these go to 70000.*export slicer"):
        write_export(MANY, export, tmp_path)
    assert len(read_slicer(write_export(MANY, SLICER, tmp_path))) == 70_000


def test_colours_are_told_apart_and_the_same_for_a_label_everywhere():
    colours = palette()
    assert len(np.unique(colours, axis=0)) == 255
    lab = rgb2lab(colours[None] / 255)[0]
    distances = np.linalg.norm(lab[:, None] - lab, axis=-1) + 1000 * np.eye(255)
    assert distances[:20, :20].min() > 30  # of the first, which most images need
    assert distances.min() > 8
    assert lab[:, 0].min() >= 30
    nearest = [distances[i, :i].min() for i in range(1, 255)]
    assert all(later <= earlier + 0.1 for earlier, later in pairwise(nearest))
    np.testing.assert_array_equal(object_colours(np.array([1, 256, 511])), colours[[0, 0, 0]])


@pytest.fixture
def volume(tmp_path):
    """Labels of two classes on the grid of a NIfTI."""
    labels = squares((3, 20, 30)).clip(max=2)
    affine = np.array([[-0.5, 0, 0, 10], [0, 0.5, 0, 20], [0, 0, 2, 30], [0, 0, 0, 1]])
    path = nifti(tmp_path / "source.nii.gz", labels.astype(np.float32), affine)
    grid = read_volume(path, ReadOptions(dims=3)).grid
    names = {1: "core", 2: "rim"}
    image = labelled_image(labels, grid=grid, kind="classes", class_names=names, name="sub-01_ses-b_run-2_T1w")
    return replace(image, file_name="sub-01_ses-b_run-2_T1w.nii.gz", model="m (abc)")


def test_a_segmentation_lies_and_is_called_as_bids_has_it(tmp_path, volume):
    path = write_export(volume, BIDS, tmp_path)
    folder = tmp_path / "bids" / "sub-01" / "ses-b" / "anat"
    stem = "sub-01_ses-b_run-2_space-T1w_desc-biounet_dseg"
    assert path == folder / f"{stem}.nii.gz"
    assert sorted(one.name for one in folder.iterdir()) == [f"{stem}.{end}" for end in ("json", "nii.gz", "tsv")]
    stored, source = nib.load(path), nib.load(tmp_path / "source.nii.gz")
    np.testing.assert_array_equal(stored.affine, source.affine)
    np.testing.assert_array_equal(np.asarray(stored.dataobj).T, volume.labels)
    sidecar = json.loads((folder / f"{stem}.json").read_text())
    assert sidecar["Manual"] is False
    assert sidecar["SpatialReference"] == "bids:raw:sub-01/ses-b/anat/sub-01_ses-b_run-2_T1w.nii.gz"
    lines = [line.split("\t") for line in (folder / f"{stem}.tsv").read_text().splitlines()]
    assert lines[0] == ["index", "name", "color"]
    assert [line[:2] for line in lines[1:]] == [["1", "core"], ["2", "rim"]]
    assert all(re.fullmatch("#[0-9A-F]{6}", line[2]) for line in lines[1:])


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("sub-01_T1w", "sub-01/anat/sub-01_space-T1w_desc-biounet"),
        ("sub-01_T2w", "sub-01/anat/sub-01_space-T2w_desc-biounet"),
        (
            "sub-01_space-MNI152_res-2_desc-preproc_T1w",
            "sub-01/anat/sub-01_space-MNI152_res-2_desc-biounet",
        ),
        ("sub-a_ses-1_task-rest_bold", "sub-a/ses-1/func/sub-a_ses-1_task-rest_space-bold_desc-biounet"),
        ("sub-a_dwi", "sub-a/dwi/sub-a_space-dwi_desc-biounet"),
        ("sub-01_ses-2", "sub-01/ses-2/anat/sub-01_ses-2_desc-biounet"),  # a case of several contrasts
        ("patient7", "patient7_desc-biounet"),
    ],
)
def test_entities_are_those_of_the_image_in_the_order_of_bids(name, stem):
    assert bids_path(name) == f"bids/{stem}"


def test_what_is_no_volume_of_bids_is_an_error(tmp_path, volume):
    with pytest.raises(InputError, match=r"'patient7' is no name of BIDS.*sub-01_ses-1_T1w"):
        write_export(replace(volume, name="patient7"), BIDS, tmp_path)
    with pytest.raises(InputError, match="are of NIfTI images, and this is none"):
        write_export(replace(OBJECTS, name="sub-01_T1w"), BIDS, tmp_path)
    assert not list(tmp_path.rglob("*dseg*"))


def test_the_dataset_says_where_that_of_the_images_is(tmp_path):
    (tmp_path / "out").mkdir()
    source = tmp_path / "raw" / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    for sources, links in (([source], {"raw": "../../raw"}), ([tmp_path / "a.nii.gz"], None)):
        images = [ExportedImage("x", {}, {}, source=path) for path in sources]
        write_dataset_description(images, tmp_path / "out")
        described = json.loads((tmp_path / "out" / "bids" / "dataset_description.json").read_text())
        assert described["DatasetType"] == "derivative"
        assert described["GeneratedBy"][0]["Name"] == "biounet"
        assert {"Name", "BIDSVersion"} <= described.keys()
        assert described.get("DatasetLinks") == links
