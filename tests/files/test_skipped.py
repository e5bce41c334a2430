"""Every file of a folder that could be an image is a row, or is listed by name with the reason."""

import json
import os

import nibabel
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from biounet.core.recipe import parse_recipe
from biounet.files import SkippedFile, describe_skipped, find_images, search_images
from biounet.files.dataset_index.names import SUFFIXES
from biounet.files.dataset_index.scan import FileKind, NameRules, scan
from biounet.training import check_data

GREY = np.arange(48 * 40, dtype=np.uint16).reshape(48, 40)
FOREIGN = {"f.oir": b"OLYMPUSRAWFORMAT" + bytes(1000)}
FOREIGN |= {"a.oif": b"[x]", "b.npz": b"PK", "c.avi": b"RIFF", "d.spe": bytes(99), "e.jxl": bytes(99)}
TIFF_INSIDE = ("c.lsm", "d.stk", "e.scn", "no_ending")
NAMED = ("siRNA_GFP_label.tif", "face_mask.tif", "seg.tif", "a_overlay.png", ".hidden.tif")
NO_IMAGE = ("notes.txt", "t.csv", "dwi.bval", ".DS_Store", "run.json")


@pytest.fixture
def folder(tmp_path):
    """Two images, and what microscopes and people leave among them."""
    root = tmp_path / "in"
    (root / "store.n5").mkdir(parents=True)
    (root / "store.n5" / "attributes.json").write_text("{}")
    (root / "store.n5" / "0").write_bytes(bytes(9))
    for name in ("a.tif", "B.TIF", *TIFF_INSIDE):
        tifffile.imwrite(root / name, GREY)
    for name in NAMED:
        tifffile.imwrite(root / name, GREY)
    for name, content in FOREIGN.items():
        (root / name).write_bytes(content)
    for name in NO_IMAGE:
        (root / name).write_text("text")
    os.mkfifo(root / "pipe")
    return root


def test_skipped_files_are_listed_with_the_reason(folder):
    found = search_images([folder])
    assert [image.path.name for image in found.images] == ["a.tif", "B.TIF"]
    reasons = {file.path.name: file.reason for file in found.skipped}
    assert reasons.keys() == {*NAMED, *FOREIGN, *TIFF_INSIDE, "store.n5"}
    assert "OIR" in reasons["f.oir"]
    assert "N5" in reasons["store.n5"]
    assert all("name the file" in reasons[name] for name in (*TIFF_INSIDE, "face_mask.tif"))
    assert reasons[".hidden.tif"] == "hidden"
    by_pattern = search_images([f"{folder}/*"])
    assert {file.path.name for file in by_pattern.skipped} == reasons.keys() - {".hidden.tif"} - {"store.n5"}
    assert search_images([folder, folder / "face_mask.tif"]).skipped == [
        file for file in found.skipped if file.path.name != "face_mask.tif"
    ]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("x.tif", FileKind.IMAGE),
        ("x_MASKS.tif", FileKind.ANNOTATION),
        ("x_drawn.tif", FileKind.ANNOTATION),
        ("p_mask.nii.gz", FileKind.IMAGE),  # a channel
        ("Masks/x.tif", FileKind.IN_ANNOTATION_FOLDER),
        ("x_overlay.png", FileKind.OUTPUT),
        ("._x.tif", FileKind.HIDDEN),
        ("x.xyz", FileKind.OTHER),
        ("x.csv", None),
        (".x.xyz", None),
    ],
)
def test_each_file_is_of_one_kind_by_its_name(tmp_path, name, kind):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    found = [file.kind for file in scan(tmp_path, NameRules(("t1", "mask"), ("drawn",)))]
    assert found == ([] if kind is None else [kind])


names = st.from_regex(r"[ab_]{0,3}(seg|mask|_labels|_overlay|x)", fullmatch=True)
endings = st.sampled_from([*SUFFIXES, ".TIF", ".lsm", ".czi", ".dcm", ".txt", ""])


@given(st.lists(st.tuples(st.sampled_from(["", "p/", "p/q/"]), names, endings), max_size=12), st.booleans())
def test_no_image_vanishes(tmp_path_factory, files, several):
    root = tmp_path_factory.mktemp("any")
    for folder, name, end in [("", "z", ".tif"), *files]:
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / f"{name}{end}").write_bytes(b"II*\0" if end != ".txt" else b"text")
    found = search_images([root], ("x", "a") if several else ())
    rows = [file for image in found.images for file in (image.path, *image.others)]
    left_out = [file.path for file in found.skipped]
    assert sorted([*rows, *left_out]) == sorted(
        path for path in root.rglob("*") if path.is_file() and path.suffix != ".txt"
    )


def test_files_of_cases_that_are_no_channel_are_listed(tmp_path):
    for case in ("p 01", "p 02"):
        (tmp_path / case).mkdir()
        for name in ("flair", "t1", "lesions", "t1_Eq_1", "brainmask"):
            (tmp_path / case / f"{name}.nii.gz").touch()
        (tmp_path / case / "._flair.nii.gz").touch()
        (tmp_path / case / "flair.json").touch()
    found = search_images([tmp_path], ("flair", "t1"))
    assert [image.relative.name for image in found.images] == ["p 01", "p 02"]
    assert {file.path.name for file in found.skipped} == {
        "lesions.nii.gz", "t1_Eq_1.nii.gz", "brainmask.nii.gz", "._flair.nii.gz",
    }  # fmt: skip
    assert find_images([tmp_path], ("flair", "t1")) == found.images


@pytest.mark.parametrize("names", [("flair", "t1", "lesions"), ("p1_flair", "p1_t1", "p1_seg")])
def test_the_annotation_of_a_case_is_recorded_and_not_reported(biounet, tmp_path, names):
    """It belongs there; a mask of the brain, or a further series, is reported at the end as well."""
    from biounet.core import Grid
    from biounet.network import Card, Model, build_network, output_channels, save_model
    from biounet.training.planning import plan

    channels = ("flair", "t1")
    data = {"dims": 3, "kind": "classes", "classes": ["lesion"], "channels": channels}
    recipe = parse_recipe({"data": data, "network": {"widths": [2, 2], "half_resolution": False}})
    recipe = plan(recipe, [Grid((8, 8, 8), (1.0, 1.0, 1.0), "mm")])
    card = Card(recipe=recipe, inputs=channels, outputs=output_channels(recipe))
    save_model(Model(build_network(recipe).eval(), card), tmp_path / "m.safetensors")
    (tmp_path / "in").mkdir()
    for name in names:
        image = nibabel.Nifti1Image(np.eye(8, dtype=np.float32)[None].repeat(8, 0), np.eye(4))
        nibabel.save(image, tmp_path / "in" / f"{name}.nii.gz")
    code, _, err = biounet("segment", "in", "-m", "m.safetensors", "-o", "out")
    assert (code, err) == (0, "")
    record = json.loads((tmp_path / "out/run.json").read_text())
    assert [file["reason"] for file in record["left_out"]] == ["annotation of a case"]
    (tmp_path / "in" / "brainmask.nii.gz").write_bytes(b"")
    _, _, err = biounet("segment", "in", "-m", "m.safetensors", "-o", "out")
    assert err.startswith("1 file left out: ")
    assert "brainmask" in err


@pytest.mark.parametrize(
    "folders", [("images", "labels"), ("imagesTr", "labelsTr"), (".", "Masks"), ("a/img", "a/label")]
)
def test_label_maps_of_a_folder_of_annotations_are_no_images(tmp_path, folders):
    """They have the names of the images, and only that of their folder says what they are."""
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(tmp_path / folder / "x.tif", GREY)
    found = search_images([tmp_path])
    assert [image.path for image in found.images] == [tmp_path / folders[0] / "x.tif"]
    assert [file.path for file in found.skipped] == [tmp_path / folders[1] / "x.tif"]
    assert found.skipped[0].reason == "in a folder of annotations: name the folder to segment what it holds"
    assert len(find_images([tmp_path / folders[1]])) == 1


def test_one_line_says_how_many_and_why(tmp_path):
    files = [SkippedFile(tmp_path / f"{n}.czi", "CZI is not read") for n in range(5)]
    line = describe_skipped([*files, SkippedFile(tmp_path / ".a.tif", "hidden")])
    assert line == "6 files left out: 5 (CZI is not read): 0.czi, 1.czi, 2.czi, …; 1 (hidden): .a.tif"


def test_skipped_files_of_one_name_are_listed_with_their_folders(tmp_path):
    files = [SkippedFile(tmp_path / f"case_{n}" / "tumour.nii.gz", "an annotation") for n in (1, 2)]
    line = "2 files left out: 2 (an annotation): case_1/tumour.nii.gz, case_2/tumour.nii.gz"
    assert describe_skipped(files) == line


def test_commands_list_skipped_files(biounet, folder, untrained, tmp_path):
    from biounet.network import save_model

    save_model(untrained, tmp_path / "m.safetensors")
    code, out, _ = biounet("segment", folder, "-m", "m.safetensors", "--dry-run")
    assert code == 0
    left = [line for line in out.splitlines() if line.startswith("left out: ")]
    assert len(left) == 16
    _, out, _ = biounet("segment", folder, "-m", "m.safetensors", "--dry-run", "--json")
    assert sum("left_out" in json.loads(line) for line in out.splitlines()) == 16
    code, out, err = biounet("segment", folder, "-m", "m.safetensors", "-o", "out")
    assert code == 0
    (line,) = [line for line in err.splitlines() if "left out" in line]
    assert line.startswith("16 files left out: ")
    assert len((tmp_path / "out/counts.csv").read_text().splitlines()) == 3
    record = json.loads((tmp_path / "out/run.json").read_text())
    assert {"path": "../in/f.oir", "reason": "OIR (Olympus) is not read"} in record["left_out"]
    assert len(record["left_out"]) == 16


def test_check_lists_skipped_files_and_shows_each_annotation(tmp_path):
    for name in ("flair", "t1", "lesions", "t1_Eq_1"):
        (tmp_path / "p").mkdir(exist_ok=True)
        mask = np.zeros((16, 16, 8), np.int16)
        mask[4:8, 4:8, 2:5] = 1
        array = mask if name == "lesions" else mask * 50 + np.arange(16, dtype=np.int16)[:, None, None]
        nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / "p" / f"{name}.nii.gz")
    recipe = parse_recipe({"data": {"kind": "classes", "classes": ["lesion"], "dims": 3, "channels": ["flair", "t1"]}})
    report = check_data(tmp_path, None, recipe)
    assert report.problems == ()
    assert [(file.path.name, file.reason) for file in report.skipped] == [
        ("t1_Eq_1.nii.gz", "neither a channel nor the annotation")
    ]
    assert report.as_table()[1][0].endswith("flair.nii.gz -> " + str(tmp_path / "p/lesions.nii.gz"))
    channels = [str(tmp_path / "p" / f"{name}.nii.gz") for name in ("flair", "t1")]
    assert list(report.as_dict()["images"][0]["files"]) == channels
