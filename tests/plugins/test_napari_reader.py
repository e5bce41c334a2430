"""napari opens folders of results and label images: layers that lie on each other, with the table of their objects."""

import importlib.util
import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile

from biounet.core import InputError, sample_folder
from biounet.plugins import get_reader
from biounet.plugins import napari_reader as reader
from biounet.plugins.features import table_features
from biounet.synthetic import FieldSettings, MovieSettings, make_movie
from support import ROOT
from support.commands import read_rows

AFFINE = np.array([[0.9, 0, 0, -7.0], [0, 1.1, 0, 20], [0, 0, 2.0, 3], [0, 0, 0, 1]])
NUCLEI = Path("images/nuclei.tif")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder of results of the samples, whose images are beside it."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "images").mkdir()
    for name in ("nuclei.tif", "dim.tif"):
        shutil.copy(sample_folder() / "images" / name, folder / "images" / name)
    command = [
        sys.executable,
        "-c",
        "from biounet.cli import main; main()",
        "segment",
        "images",
        "-o",
        "out",
        "--quiet",
    ]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "out"


def open_in_napari(*paths):
    program = [sys.executable, "-m", "support.napari_layers", *map(str, paths)]
    done = subprocess.run(program, cwd=ROOT / "tests", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def layers_of(path):
    read = get_reader(str(path))
    assert read is not None
    return read(str(path))


def test_the_manifest_is_valid_and_the_package_names_it():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    ((name, place),) = project["entry-points"]["napari.manifest"].items()
    module, _, file = place.partition(":")
    path = Path(importlib.util.find_spec(module).origin).with_name(file)
    assert f"name: {name}\n" in path.read_text(encoding="utf-8")
    assert name == project["name"]
    command = [sys.executable, "-m", "npe2", "validate", str(path), "--imports"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_napari_shows_labels_on_their_image(run):
    layers = open_in_napari(run, run / "nuclei_labels.tif")
    assert [layer["kind"] for layer in layers] == ["Image", "Labels"] * 3
    assert [layer["name"] for layer in layers[:4]] == ["dim", "dim labels", "nuclei", "nuclei labels"]
    assert [layer["visible"] for layer in layers] == [True, True, False, False, True, True]
    for image, labels in zip(layers[::2], layers[1::2], strict=True):
        assert image["extent"] == labels["extent"] == [[0, 0], [127.5, 127.5]]
        assert image["shape"] == labels["shape"]
        assert image["units"] == labels["units"] == ["micrometer"] * 2
    labels = layers[-1]
    row = read_rows(run / "nuclei_objects.csv")[labels["label"] - 1]
    assert labels["features"] == ["index", *[name for name in row if name != "label"]]
    assert f"area_px: {row['area_px']}" in labels["status"]


def test_a_folder_of_results_is_read_as_layers(run):
    layers = layers_of(run)
    data, options, kind = layers[3]
    np.testing.assert_array_equal(data, tifffile.imread(run / "nuclei_labels.tif"))
    assert (kind, options["name"]) == ("labels", "nuclei labels")
    assert list(options["features"]["index"]) == list(range(1, data.max() + 1))
    image, options, kind = layers[2]
    np.testing.assert_array_equal(image, tifffile.imread(run.parent / "images" / "nuclei.tif"))
    low, high = options["contrast_limits"]
    assert image.min() <= low < high <= image.max()


def test_of_many_images_the_first_are_opened(run, monkeypatch):
    monkeypatch.setattr(reader, "_MOST_IMAGES", 1)
    with pytest.warns(UserWarning, match="the first 1 of 2 images; open a label image to see another"):
        assert [options["name"] for _, options, _ in layers_of(run)] == ["dim", "dim labels"]


def test_other_files_and_folders_are_left_to_others(run, tmp_path):
    (tmp_path / "x_labels.txt").touch()
    for path in (
        run.parent / "images",
        run.parent / "images" / "dim.tif",
        run / "counts.csv",
        tmp_path / "no_labels.tif",
    ):
        assert get_reader(str(path)) is None
    assert get_reader([str(run / "dim_labels.tif"), str(tmp_path)]) is None
    assert len(get_reader([str(run)])([str(run)])) == 4


def test_labels_are_shown_without_their_image(run, tmp_path):
    """It was moved or is another one, and a warning says so; or the label image is of no run."""
    shutil.copytree(run.parent, tmp_path / "moved")
    image = tmp_path / "moved" / "images" / "dim.tif"
    out = tmp_path / "moved" / "out"
    tifffile.imwrite(image, np.zeros((4, 4), np.uint8))
    with pytest.warns(UserWarning, match=r"dim: labels without their image: .*no longer the one"):
        ((_, _, kind),) = layers_of(out / "dim_labels.tif")
    assert kind == "labels"
    image.unlink()
    with pytest.warns(UserWarning, match=r"dim: labels without their image: .*no longer there"):
        layers_of(out / "dim_labels.tif")
    (out / "run.json").unlink()
    with pytest.warns(UserWarning, match=r"no run\.json"):
        layers_of(out / "nuclei_labels.tif")
    shutil.copy(run / "dim_labels.tif", tmp_path)
    ((_, options, _),) = layers_of(tmp_path / "dim_labels.tif")
    assert (options["scale"], options["units"], options["features"]) == ([0.5, 0.5], ["um", "um"], {})
    (out / "nuclei_labels.tif").unlink()
    (out / "dim_labels.tif").unlink()
    with pytest.raises(InputError, match="no image of this folder of results has labels"):
        layers_of(out)


def test_a_time_series_has_an_axis_of_time(biounet, tmp_path):
    field = FieldSettings(shape=(96, 96), coverage=0.12, elongation=1.2, diameter_spread=0.1)
    movie = make_movie(5, MovieSettings(field, frames=3, step=0.08))[0]
    metadata = {"axes": "TYX", "unit": "um", "finterval": 30.0}
    tifffile.imwrite(tmp_path / "movie.tif", movie, imagej=True, resolution=(2.0, 2.0), metadata=metadata)
    assert biounet("segment", "movie.tif", "--frames", "all", "-o", "out", "--quiet")[0] == 0
    image, labels = layers_of(tmp_path / "out")
    for data, options, _ in (image, labels):
        assert data.shape == movie.shape
        assert (options["scale"], options["units"]) == ([30.0, 0.5, 0.5], ["s", "um", "um"])
    assert {"index", "t", "track"} <= labels[1]["features"].keys()
    alone = shutil.copy(tmp_path / "out" / "movie_labels.tif", tmp_path)
    np.testing.assert_array_equal(layers_of(alone)[0][0], labels[0])


def test_channels_are_layers_and_a_picture_in_colours_is_one(biounet, tmp_path):
    dapi = tifffile.imread(sample_folder() / NUCLEI)
    metadata = {"axes": "CYX", "Labels": ["DAPI", "GFP"]}
    tifffile.imwrite(tmp_path / "two.tif", np.stack([dapi, dapi // 2]), imagej=True, metadata=metadata)
    biounet("segment", "two.tif", "--channel", "DAPI", "--measure", "all", "-o", "out", "--quiet")
    first, second, labels = layers_of(tmp_path / "out")
    np.testing.assert_array_equal(first[0], dapi)
    np.testing.assert_array_equal(second[0], dapi // 2)
    assert [layer[1]["name"] for layer in (first, second)] == ["two DAPI", "two GFP"]
    assert [layer[1]["colormap"] for layer in (first, second)] == ["cyan", "magenta"]
    assert labels[1]["units"] == ["pixel", "pixel"]


@pytest.mark.parametrize("codes", ["RAS", "LPS", "ASR", "IRP"])
def test_a_volume_lies_where_its_header_says(tmp_path, codes):
    """Whatever the order of its voxels is: the layer has RAS coordinates, z first."""
    labels = np.zeros((5, 6, 7), np.uint8)
    labels[1, 4, 2] = 3
    place = (AFFINE @ (1, 4, 2, 1))[:3]
    stored = nib.Nifti1Image(labels, AFFINE)
    stored.header.set_xyzt_units("mm")
    turn = nib.orientations.ornt_transform(nib.io_orientation(AFFINE), nib.orientations.axcodes2ornt(codes))
    nib.save(stored.as_reoriented(turn), tmp_path / "x_labels.nii.gz")
    ((data, options, _),) = layers_of(tmp_path / "x_labels.nii.gz")
    (at,) = np.argwhere(data == 3)
    np.testing.assert_allclose(at * options["scale"] + options["translate"], place[::-1], atol=1e-5)
    assert options["units"] == ["mm"] * 3


def test_an_oblique_volume_is_laid_along_the_axes_with_its_centre_where_it_is(tmp_path):
    turn = np.eye(4)
    turn[:2, :2] = [[0.8, -0.6], [0.6, 0.8]]
    affine = turn @ AFFINE
    volume = nib.Nifti1Image(np.ones((5, 7, 9), np.uint8), affine)
    volume.header.set_xyzt_units("mm")
    nib.save(volume, tmp_path / "x_labels.nii.gz")
    ((_, options, _),) = layers_of(tmp_path / "x_labels.nii.gz")
    centre = (4, 3, 2) * np.array([2.0, 1.1, 0.9]) + options["translate"]
    assert options["scale"] == pytest.approx([2.0, 1.1, 0.9])
    np.testing.assert_allclose(centre, (affine @ (2, 3, 4, 1))[2::-1], atol=1e-5)
    np.testing.assert_allclose(options["metadata"]["affine"], affine[:3], atol=1e-6)


def test_volumes_and_their_classes_lie_on_each_other_in_napari(biounet, tmp_path):
    rng = np.random.default_rng(0)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[0.96, -0.28], [0.28, 0.96]]
    volume = nib.Nifti1Image(rng.normal(100, 20, (20, 24, 16)).astype(np.float32), turn @ np.diag([-1, 1, 1.5, 1]))
    volume.header.set_xyzt_units("mm")
    nib.save(volume, tmp_path / "head.nii.gz")
    assert biounet("segment", "head.nii.gz", "-m", "nuclei3d", "-o", "out", "--quiet")[0] == 0
    image, labels = open_in_napari(tmp_path / "out" / "head_labels.nii.gz")
    assert image["extent"] == labels["extent"]
    assert image["units"] == labels["units"] == ["millimeter"] * 3


@pytest.mark.parametrize(
    ("table", "index", "volumes"),
    [
        ("label,area\n2,5.0\n1,6.0\n", [2, 1], [5, 6]),
        ("class,label,area\ncore,1,5.0\nrim,2,6.0\n", [1, 2], [5, 6]),
        ("class,lesion,area\nwhole,0,9.0\nwhole,1,9.0\nrim,0,6.0\nrim,1,6.0\n", [2], [6]),
    ],
    ids=["objects", "classes", "regions and lesions"],
)
def test_features_are_the_rows_that_have_a_label(tmp_path, table, index, volumes):
    """`whole` is core and rim together, and lesions are parts of a class."""
    (tmp_path / "x_objects.csv").write_text(table)
    features = table_features(tmp_path / "x_objects.csv", ("core", "rim"))
    assert (features["index"].tolist(), features["area"].tolist()) == (index, volumes)
    assert not {"label", "lesion"} & features.keys()


def test_labels_of_an_ome_zarr_are_in_place(biounet, tmp_path):
    """Of an image so large that it has several levels, and two channels."""
    dapi = np.tile(tifffile.imread(sample_folder() / NUCLEI), (5, 5))
    metadata = {"axes": "CYX", "Labels": ["DAPI", "GFP"], "unit": "um"}
    options = {"imagej": True, "resolution": (2.0, 2.0), "metadata": metadata}
    tifffile.imwrite(tmp_path / "two.tif", np.stack([dapi, dapi // 2]), **options)
    arguments = ("--channel", "DAPI", "--measure", "all", "--export", "ome-zarr", "-o", "out", "--quiet")
    assert biounet("segment", "two.tif", *arguments)[0] == 0
    first, second, labels = open_in_napari(tmp_path / "out" / "two.ome.zarr")
    assert [layer["name"] for layer in (first, second)] == ["two DAPI", "two GFP"]
    assert [layer["kind"] for layer in (first, second, labels)] == ["Image", "Image", "Labels"]
    assert first["extent"] == second["extent"] == labels["extent"] == [[0, 0], [639.5, 639.5]]
    assert labels["units"] == first["units"] == ["micrometer"] * 2
    assert first["levels"] == labels["levels"] > 1
    data, options, _ = layers_of(tmp_path / "out" / "two.ome.zarr")[2]
    np.testing.assert_array_equal(data[0].compute(), tifffile.imread(tmp_path / "out" / "two_labels.tif"))


def test_labels_alone_and_their_columns_are_read_from_an_ome_zarr(biounet, tmp_path):
    shutil.copy(sample_folder() / NUCLEI, tmp_path)
    biounet("segment", "nuclei.tif", "-o", "out", "--quiet")
    (tmp_path / "nuclei.tif").unlink()
    assert biounet("export", "out", "--format", "ome-zarr", "--quiet")[0] == 0
    ((data, options, kind),) = layers_of(tmp_path / "out" / "nuclei.ome.zarr")
    table = read_rows(tmp_path / "out" / "nuclei_objects.csv")
    assert kind == "labels"
    assert options["features"]["index"] == [int(row["label"]) for row in table]
    assert options["features"]["area_um2"] == [float(row["area_um2"]) for row in table]
    np.testing.assert_array_equal(data.compute(), tifffile.imread(tmp_path / "out" / "nuclei_labels.tif"))
    path = tmp_path / "out" / "nuclei.ome.zarr" / "zarr.json"
    raw = json.loads(path.read_text())
    del raw["attributes"]["ome"]["image-label"]["properties"]  # as of more than 1 000 objects
    path.write_text(json.dumps(raw))
    ((_, options, _),) = layers_of(tmp_path / "out" / "nuclei.ome.zarr")
    assert options["features"]["area_um2"].tolist() == [float(row["area_um2"]) for row in table]


def test_a_damaged_ome_zarr_is_an_error_of_one_line(tmp_path):
    (tmp_path / "x.ome.zarr").mkdir()
    ome = {"attributes": {"ome": {"version": "0.5", "multiscales": []}}, "zarr_format": 3, "node_type": "group"}
    (tmp_path / "x.ome.zarr" / "zarr.json").write_text(json.dumps(ome))
    with pytest.raises(InputError, match=r"no OME-Zarr of version 0\.5 as biounet writes it"):
        layers_of(tmp_path / "x.ome.zarr")
    (tmp_path / "x.ome.zarr" / "labels").mkdir()
    labels = {"attributes": {"ome": {"version": "0.5", "labels": ["../../elsewhere"]}}}
    (tmp_path / "x.ome.zarr" / "labels" / "zarr.json").write_text(json.dumps(labels))
    with pytest.raises(InputError, match="labels outside of it"):
        layers_of(tmp_path / "x.ome.zarr")
    (tmp_path / "x.ome.zarr" / "zarr.json").write_text("{")
    assert get_reader(str(tmp_path / "x.ome.zarr")) is None
