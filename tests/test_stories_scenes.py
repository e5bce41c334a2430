"""Plates and projects of microscopes from the command line: each of their images is one of the batch."""

import json
import os

import imageio.v3 as imageio
import numpy as np
import pytest
import tifffile
import zarr
from skimage.measure import regionprops_table

from biounet.files import ReaderPool, ReadOptions, find_images, resolve_images
from support.commands import read_rows
from support.images import discs
from support.microscopes import Picture, write_lif, write_nd2

UM = {"X": 0.5, "Y": 0.5}
NAMES = ["plate_s0_A1", "plate_s1_A2-R-1", "plate_s2"]


def field(seed, channels=1):
    """A field of discs, and fainter ones in further channels."""
    grey, labels = discs((96, 96), 12, seed)
    planes = [grey, *(grey // (n + 2) + np.uint16(50 * n) for n in range(channels - 1))]
    return (np.stack(planes) if channels > 1 else grey), labels


@pytest.fixture
def model(untrained, tmp_path):
    from biounet.network import save_model

    save_model(untrained, tmp_path / "m.safetensors")
    return "m.safetensors"


@pytest.fixture
def plate(tmp_path):
    """Folder ``in`` of an ND2 of three positions, two of which have names, and a TIFF."""
    folder = tmp_path / "in"
    folder.mkdir()
    positions = Picture(np.stack([field(seed)[0] for seed in range(3)]), "PYX", UM, dyes=("DAPI",))
    write_nd2(folder / "plate.nd2", positions, ("A1", "A2 R/1", ""))
    tifffile.imwrite(folder / "b.tif", field(9)[0])
    return folder


def test_each_position_has_its_row_its_files_and_its_own_record(biounet, plate, model, tmp_path):
    code, _, err = biounet("segment", "in", "-m", model, "-o", "out")
    assert (code, err) == (0, "")
    rows = read_rows(tmp_path / "out/counts.csv")
    assert [row["image"] for row in rows] == ["b.tif", *NAMES]
    for number, name in enumerate(NAMES):
        assert (tmp_path / f"out/{name}_objects.csv").is_file()
        alone = tmp_path / f"{number}.tif"
        resolution = {"resolution": (2.0, 2.0), "metadata": {"unit": "um", "axes": "YX"}}
        tifffile.imwrite(alone, field(number)[0], imagej=True, **resolution)
        assert biounet("segment", alone, "-m", model, "-o", f"alone{number}")[0] == 0
        labels = [tmp_path / f"out/{name}_labels.tif", tmp_path / f"alone{number}/{number}_labels.tif"]
        np.testing.assert_array_equal(*map(tifffile.imread, labels))
    code, out, _ = biounet("verify", "out", "-m", model)
    assert (code, sorted(out.splitlines())) == (0, sorted(f"{row['image']}: same" for row in rows))


def test_only_what_is_lacking_is_done_again(biounet, plate, model, tmp_path):
    biounet("segment", "in", "-m", model, "-o", "out", "--scene", "A1,2")
    assert [row["image"] for row in read_rows(tmp_path / "out/counts.csv")][-2:] == [NAMES[0], NAMES[2]]
    before = (tmp_path / "out/plate_s0_A1_labels.tif").stat().st_mtime_ns
    code, _, _ = biounet("segment", "in/plate.nd2", "-m", model, "-o", "out")  # other scenes, no other settings
    assert code == 0
    assert (tmp_path / "out/plate_s0_A1_labels.tif").stat().st_mtime_ns == before
    assert {row["image"] for row in read_rows(tmp_path / "out/counts.csv")} >= {*NAMES}
    (tmp_path / "out/plate_s1_A2-R-1_labels.tif").unlink()
    biounet("segment", "in", "-m", model, "-o", "out")
    assert (tmp_path / "out/plate_s0_A1_labels.tif").stat().st_mtime_ns == before
    assert (tmp_path / "out/plate_s1_A2-R-1_labels.tif").is_file()
    assert biounet("verify", "out", "-m", model)[0] == 0
    (tmp_path / "in").rename(tmp_path / "moved")
    assert biounet("verify", "out", "-m", model, "--images", "moved")[0] == 0


def test_a_scene_that_is_not_there_fails_by_itself(biounet, plate, model, tmp_path):
    code, _, err = biounet("segment", "in/plate.nd2", "-m", model, "-o", "out", "--scene", "A7")
    (line,) = err.splitlines()
    assert code == 4
    assert "no scene A7: it holds 3 images: 0 (A1), 1 (A2 R/1), 2" in line
    code, _, err = biounet("segment", "in", "-m", model, "-o", "out", "--scene", "0,1")
    assert code == 3
    assert "b.tif: no scene 1: it holds one image" in err


def test_files_of_several_images_are_no_channels_of_one(plate):
    """Whatever their names: these could be two conditions."""
    for number in (1, 2):
        write_nd2(plate / f"x_c{number}.nd2", Picture(np.stack([field(seed)[0] for seed in range(2)]), "PYX"))
        tifffile.imwrite(plate / f"y_c{number}.tif", field(0)[0])
    with ReaderPool() as readers:
        found = resolve_images(find_images([plate]), ReadOptions(inputs=1, channel=0), readers)
    names = {image.relative.name: len(image.others) for image in found}
    assert names == {"y": 1, "b.tif": 0} | {f"x_c{n}_s{scene}": 0 for n in (1, 2) for scene in (0, 1)} | dict.fromkeys(
        NAMES, 0
    )


def test_positions_are_counted_by_hand_on_pictures(biounet, plate, model, tmp_path):
    biounet("segment", "in/plate.nd2", "-m", model, "-o", "out")
    code, _, err = biounet("sample", "out", "--n", "2")
    assert code == 4
    assert "cannot be copied without the others (hint: draw with --pictures" in err
    assert biounet("sample", "out", "--n", "3", "--pictures")[0] == 0
    pictures = [imageio.imread(path) for path in sorted(tmp_path.glob("sample*/*.png"))]
    assert len(pictures) == 3
    assert not np.array_equal(pictures[0], pictures[1])


def test_results_of_positions_are_exported_with_their_images(biounet, plate, model, tmp_path):
    """As formats need the image: of the right position."""
    biounet("segment", "in/plate.nd2", "-m", model, "-o", "out")
    code, _, err = biounet("export", "out", "--format", "ome-zarr")
    assert code == 0, err
    for number, name in enumerate(NAMES):
        store = zarr.open_group(tmp_path / f"out/{name}.ome.zarr", mode="r")
        np.testing.assert_array_equal(np.squeeze(store["0"][:]), field(number)[0])


def test_a_preview_lists_positions_with_their_channels_and_files(biounet, plate, model):
    code, out, _ = biounet("segment", "in", "-m", model, "--dry-run", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [row["image"] for row in rows] == ["b.tif", *NAMES]
    assert rows[1]["axes"] == "YX (ND2)"
    assert rows[1]["channels"] == ["DAPI"]
    assert rows[1]["spacing"] == [0.5, 0.5]
    assert "plate_s2_labels.tif" in rows[3]["outputs"]


def test_python_takes_scenes_as_well(plate, untrained, tmp_path):
    from biounet.api import Segmenter, segment_folder
    from biounet.core import InputError, SettingsError

    segmenter = Segmenter(untrained)
    plain = segmenter(plate / "plate.nd2")
    assert [one.name for one in plain] == NAMES
    assert [one.name for one in segmenter(plate / "plate.nd2", scene=[2, "A1"])] == [NAMES[2], NAMES[0]]
    one = segmenter.segment(plate / "plate.nd2", scene=1)
    np.testing.assert_array_equal(one.labels, plain[1].labels)
    rows = segment_folder(plate, tmp_path / "out", segmenter, scene="0", progress=False)
    assert list(rows["image"]) == ["b.tif", NAMES[0]]
    with pytest.raises(InputError, match="holds 3 images"):
        segmenter.segment(plate / "plate.nd2")
    with pytest.raises(SettingsError, match="leave scene out"):
        segmenter.segment(np.zeros((32, 32), np.uint8), scene=0)


def test_without_the_extra_the_others_are_done(biounet, plate, model, tmp_path, monkeypatch):
    """In the processes that read, too: a module of that name that cannot be imported stands for one that is absent."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    hook = "import importlib.util as u; f = u.find_spec; u.find_spec = lambda n, *a: None if n == 'nd2' else f(n, *a)\n"
    (hidden / "sitecustomize.py").write_text(hook)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(hidden), os.environ.get("PYTHONPATH", "")]))
    (tmp_path / "in/x.czi").write_bytes(b"ZISRAWFILE" + bytes(1000))
    code, _, err = biounet("segment", "in", "-m", model, "-o", "out")
    assert code == 3
    rows = {row["image"]: row for row in read_rows(tmp_path / "out/counts.csv")}
    assert rows["b.tif"]["status"] != "failed"
    assert "pip install 'biounet[vendor]'" in rows["plate.nd2"]["message"]
    assert "Python 3.12" in rows["x.czi"]["message"] or "biounet[vendor]" in rows["x.czi"]["message"]
    assert "no image found" not in err
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    code, _, err = biounet("segment", "in", "-m", model, "-o", "out")  # when it is installed
    assert (code, len(err.splitlines())) == (3, 1)
    assert [row["image"] for row in read_rows(tmp_path / "out/counts.csv")] == ["b.tif", *NAMES, "x.czi"]
    code, out, _ = biounet("verify", "out", "-m", model)
    assert (code, sorted(out.splitlines())) == (0, sorted(f"{name}: same" for name in ("b.tif", "x.czi", *NAMES)))


def test_annotations_are_paired_with_scenes_by_their_names(biounet, tmp_path):
    for folder in ("img", "ann"):
        (tmp_path / folder).mkdir()
    fields = [field(seed) for seed in range(4)]
    pictures = {name: Picture(fields[n][0], "YX", UM) for n, name in enumerate(["A1", "A2", "B1", "B2"])}
    write_lif(tmp_path / "img/plate.lif", pictures)
    for number, name in enumerate(["plate_s0_masks", "plate_s1_A2", "plate_s2_B1"]):
        tifffile.imwrite(tmp_path / f"ann/{name}.tif", fields[number][1].astype(np.uint16))
    code, out, _ = biounet("check", "img", "ann", "--json")
    report = json.loads(out)
    assert (code, report["problems"]) == (0, [])
    assert [row["image"] for row in report["images"]] == [f"img/plate.lif, scene {n}" for n in range(3)]
    assert [row["objects"] for row in report["images"]] == [int(labels.max()) for _, labels in fields[:3]]
    (left,) = report["left_out"]
    assert left["reason"] == "scenes without an annotation: plate_s3_B2"
    (tmp_path / "pairs.csv").write_text("image;scene;label\nimg/plate.lif;1;ann/plate_s1_A2.tif\n")
    report = json.loads(biounet("check", "pairs.csv", "--json")[1])
    assert [row["image"] for row in report["images"]] == ["img/plate.lif, scene 1"]
    assert report["images"][0]["objects"] == fields[1][1].max()


def test_outlines_of_all_scenes_in_one_file_are_told_apart_by_their_names(biounet, tmp_path):
    from biounet.files import LabelledImage, read_volume
    from biounet.files.outlines.coco import write_coco

    fields = [field(seed) for seed in range(2)]
    (tmp_path / "img").mkdir()
    write_nd2(tmp_path / "img/plate.nd2", Picture(np.stack([image for image, _ in fields]), "PYX", UM), ("A1", ""))
    parts = []
    for number, (name, (_, labels)) in enumerate(zip(["plate_s0_A1", "plate_s1"], fields, strict=True)):
        tifffile.imwrite(tmp_path / f"{name}.tif", labels.astype(np.int32))
        grid = read_volume(tmp_path / f"{name}.tif").grid
        columns = {"label": np.arange(1, labels.max() + 1)}
        write_coco(LabelledImage(name, labels, grid, "objects", columns), tmp_path / f"{number}.json")
        parts.append(json.loads((tmp_path / f"{number}.json").read_text()))
    for number, part in enumerate(parts):
        part["images"][0] |= {"id": number + 1, "file_name": ["plate_s0_A1.tif", "plate_s1.tif"][number]}
        for annotation in part["annotations"]:
            annotation |= {"id": annotation["id"] + 1000 * number, "image_id": number + 1}
    whole = {name: parts[0][name] + parts[1][name] for name in ("images", "annotations")}
    (tmp_path / "ann").mkdir()
    (tmp_path / "ann/all.json").write_text(json.dumps(parts[0] | whole))
    report = json.loads(biounet("check", "img", "ann", "--json")[1])
    assert report["problems"] == []
    assert [row["objects"] for row in report["images"]] == [int(labels.max()) for _, labels in fields]


def test_no_scene_that_is_annotated_is_a_problem(biounet, tmp_path):
    for folder in ("img", "ann"):
        (tmp_path / folder).mkdir()
    write_lif(tmp_path / "img/plate.lif", {"A1": Picture(field(0)[0], "YX"), "A2": Picture(field(1)[0], "YX")})
    tifffile.imwrite(tmp_path / "ann/plate.tif", field(0)[1].astype(np.uint16))
    code, out, _ = biounet("check", "img", "ann", "--json")
    problems = json.loads(out)["problems"]
    assert code != 0
    assert any("plate.lif, scene 0 (plate_s0_A1) has no annotation" in problem for problem in problems)
    assert any("such as plate_s0_A1" in problem for problem in problems)


def test_corrected_labels_of_scenes_are_measured_in_their_images(biounet, tmp_path):
    (tmp_path / "drawn").mkdir()
    names = [NAMES[0], "plate_s1", "plate_s2"]
    fields = [field(seed, channels=2) for seed in range(3)]
    stack = Picture(np.stack([image for image, _ in fields]), "PCYX", UM, dyes=("DAPI", "GFP"))
    write_nd2(tmp_path / "plate.nd2", stack, ("A1", "A2", ""))
    for name, (_, labels) in zip(names, fields, strict=True):
        tifffile.imwrite(tmp_path / f"drawn/{name}_labels.tif", labels.astype(np.uint16))
    for image in ("plate.nd2", "."):
        code, _, err = biounet("measure", "drawn", "--image", image, "-o", f"out{len(image)}")
        assert (code, err) == (0, "")
    for name, (image, labels) in zip(names, fields, strict=True):
        expected = regionprops_table(labels, image[1], properties=["intensity_mean"])["intensity_mean"]
        for out in ("out9", "out1"):
            rows = read_rows(tmp_path / f"{out}/{name}_objects.csv")
            np.testing.assert_allclose([float(row["intensity_mean_GFP"]) for row in rows], expected, rtol=1e-6)
    other = tmp_path / "mine.tif"
    tifffile.imwrite(other, fields[1][1].astype(np.uint16))
    assert "holds 3 images: 0 (A1), 1 (A2), 2" in biounet("measure", other, "--image", "plate.nd2", "-o", "x")[2]
    assert biounet("measure", other, "--image", "plate.nd2", "--scene", "A2", "-o", "x")[0] == 0
    assert read_rows(tmp_path / "x/mine_objects.csv") == read_rows(tmp_path / "out1/plate_s1_objects.csv")


def test_a_model_learns_from_scenes(biounet, tmp_path):
    (tmp_path / "data").mkdir()
    fields = [field(seed) for seed in range(3)]
    stack = Picture(np.stack([image for image, _ in fields]), "PYX", UM)
    write_nd2(tmp_path / "data/plate.nd2", stack)
    for number, (_, labels) in enumerate(fields):
        tifffile.imwrite(tmp_path / f"data/plate_s{number}_masks.tif", labels.astype(np.uint16))
    recipe = "[network]\nwidths = [4, 8]\n[train]\npatch = 64\nbatch = 2\nepochs = 1\nsteps_per_epoch = 2\n"
    (tmp_path / "small.toml").write_text(recipe)
    code, _, err = biounet("train", "small.toml", "--images", "data", "-o", "m.safetensors", "--quiet")
    assert code == 0, err
    assert (tmp_path / "m.safetensors").is_file()


def test_gfp_per_nucleus_of_a_lif_is_that_of_scikit_image(biounet, tmp_path):
    channels, _ = field(4, channels=3)
    picture = Picture(channels, "CYX", UM, dyes=("DAPI", "GFP", "RFP"))
    write_lif(tmp_path / "x.lif", {"A1": picture, "overview": Picture(field(5)[0], "YX")})
    arguments = ["--channel", "DAPI", "--measure", "all", "--scene", "A1"]
    assert biounet("segment", "x.lif", "-o", "out", *arguments)[0] == 0
    rows = read_rows(tmp_path / "out/x_s0_A1_objects.csv")
    labels = tifffile.imread(tmp_path / "out/x_s0_A1_labels.tif")
    assert len(rows) == labels.max() > 3
    for number, name in enumerate(["DAPI", "GFP", "RFP"]):
        expected = regionprops_table(labels, channels[number], properties=["intensity_mean"])["intensity_mean"]
        np.testing.assert_allclose([float(row[f"intensity_mean_{name}"]) for row in rows], expected, rtol=1e-6)
