"""What other programs drew trains a model: the same labels, drawn in any of them, give the same training."""

import base64
import json

import numpy as np
import pytest
import tifffile
from roifile import ImagejRoi, roiwrite
from safetensors.numpy import load_file

from biounet.core import DataSettings, Grid, InputError, read_recipe
from biounet.evaluation import evaluate
from biounet.files import LabelledImage, export_formats, find_pairs, read_annotation, write_export
from biounet.files.outlines.trace import trace
from biounet.training import check_data
from support.images import discs

TINY = """
name = "tiny"
[network]
widths = [2, 2]
half_resolution = false
[train]
patch = 32
batch = 1
steps_per_epoch = 2
epochs = 1
"""
COUNT = 4


def export(name, labels, folder, stem):
    (chosen,) = export_formats([name])
    columns = {"label": np.arange(1, labels.max() + 1)}
    return write_export(LabelledImage(stem, labels, Grid(labels.shape), "objects", columns), chosen, folder)


def as_label_images(labels, folder):
    for stem, one in labels.items():
        tifffile.imwrite(folder / f"{stem}.tif", one.astype(np.uint16))


def as_rois(labels, folder):
    """As the ROI Manager saves them: outlines without any number of the object."""
    for stem, one in labels.items():
        rois = [ImagejRoi.frompoints(polygon[0][:, ::-1]) for _, polygons in trace(one) for polygon in polygons]
        roiwrite(folder / f"{stem}_RoiSet.zip", rois, mode="w")


def as_geojson(labels, folder):
    for stem, one in labels.items():
        export("geojson", one, folder, stem)


def as_coco(labels, folder):
    """One file for all images, with polygons, as annotation services export it."""
    images, annotations = [], []
    for number, (stem, one) in enumerate(labels.items(), 1):
        images.append({"id": number, "file_name": f"{stem}.png", "height": one.shape[0], "width": one.shape[1]})
        for _, polygons in trace(one):
            drawn = [polygon[0][:, ::-1].reshape(-1).tolist() for polygon in polygons]
            annotations.append({"id": len(annotations) + 1, "image_id": number, "segmentation": drawn})
    (folder / "instances.json").write_text(json.dumps({"images": images, "annotations": annotations}))


def as_own_coco(labels, folder):
    for stem, one in labels.items():
        export("coco", one, folder, stem)


def as_labelme(labels, folder):
    for stem, one in labels.items():
        shapes = [
            {"label": "cell", "shape_type": "polygon", "points": polygon[0][:, ::-1].tolist()}
            for _, polygons in trace(one)
            for polygon in polygons
        ]
        picture = base64.b64encode(bytes(1000)).decode()
        content = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": f"{stem}.tif", "imageData": picture}
        size = {"imageHeight": one.shape[0], "imageWidth": one.shape[1]}
        (folder / f"{stem}.json").write_text(json.dumps(content | size))


DRAWN = {"ImageJ ROI": as_rois, "GeoJSON": as_geojson, "COCO": as_coco, "LabelMe": as_labelme, "own COCO": as_own_coco}


@pytest.fixture
def fields(tmp_path):
    """Folder ``images`` of four fields, and the labels of each by its stem."""
    (tmp_path / "images").mkdir()
    labels = {}
    for number in range(COUNT):
        image, labels[f"f{number}"] = discs((64, 64), 6, number)
        tifffile.imwrite(tmp_path / "images" / f"f{number}.tif", image)
    (tmp_path / "tiny.toml").write_text(TINY)
    return labels


@pytest.mark.parametrize("program", DRAWN)
def test_outlines_give_the_annotations_of_the_label_image(tmp_path, fields, program):
    drawn = tmp_path / "drawn"
    drawn.mkdir()
    DRAWN[program](fields, drawn)
    pairs = find_pairs(tmp_path / "images", drawn)
    assert len(pairs) == COUNT
    for pair in pairs:
        labels = fields[pair.image.stem]
        found = read_annotation(pair.label, DataSettings(), Grid(labels.shape), image=pair.image)
        np.testing.assert_array_equal(found.labels, labels, strict=True)
        assert (found.format, found.overlaps, found.notes) == (program.removeprefix("own "), 0, ())


def test_the_same_labels_give_the_same_model_whatever_drew_them(tmp_path, fields, biounet):
    """From ROI, GeoJSON, COCO and LabelMe, one image each, to a model and its figures."""
    for name in ("labels", "drawn"):
        (tmp_path / name).mkdir()
    as_label_images(fields, tmp_path / "labels")
    for (stem, labels), draw in zip(fields.items(), DRAWN.values(), strict=False):
        draw({stem: labels}, tmp_path / "drawn")
    code, out, err = biounet("check", "images", "drawn", "--recipe", "tiny.toml")
    assert (code, err) == (0, "")
    assert "0 problems" in out
    assert all(f" {name} " in out for name in ("ImageJ ROI", "GeoJSON", "COCO", "LabelMe"))
    for name in ("labels", "drawn"):
        command = ("train", "tiny.toml", "--images", "images", "--labels", name, "-o", f"{name}.safetensors")
        assert biounet(*command, "--device", "cpu", "--quiet")[0] == 0
    of_labels, of_outlines = (load_file(tmp_path / f"{name}.safetensors") for name in ("labels", "drawn"))
    assert of_labels.keys() == of_outlines.keys()
    for name, tensor in of_labels.items():
        np.testing.assert_array_equal(of_outlines[name], tensor, strict=True)


def test_results_are_compared_with_outlines_as_with_label_images(tmp_path, fields, biounet):
    for name in ("labels", "drawn", "out"):
        (tmp_path / name).mkdir()
    as_label_images(fields, tmp_path / "labels")
    as_coco(fields, tmp_path / "drawn")
    as_label_images({f"{stem}_labels": np.roll(labels, 1) for stem, labels in fields.items()}, tmp_path / "out")
    figures = []
    for name in ("labels", "drawn"):
        code, out, err = biounet("evaluate", "out", name, "--json")
        assert (code, err) == (0, "")
        figures.append(json.loads(out))
    with_labels, with_outlines = figures
    assert [row["case"] for row in with_outlines["cases"]] == [f"instances.json: {stem}" for stem in fields]
    for one in figures:
        for row in one["cases"]:
            del row["case"]
    assert with_labels == with_outlines


def square(y, x, side=9):
    return {"type": "Polygon", "coordinates": [[[x, y], [x + side, y], [x + side, y + side], [x, y + side]]]}


@pytest.mark.parametrize(
    ("features", "text"),
    [
        ([], "nothing is drawn on this image"),
        ([square(100, 100)], "1 of 1 outlines lie outside the image"),
        ([{"type": "Polygon", "coordinates": [[[1, 1], ["a", 2]]]}], "feature 1"),
        ([{"type": "Point", "coordinates": [3, 3]}], "outline"),
    ],
)
def test_training_stops_at_the_line_that_check_shows(tmp_path, fields, biounet, features, text):
    (tmp_path / "drawn").mkdir()
    as_geojson(fields, tmp_path / "drawn")
    content = {"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": one} for one in features]}
    (tmp_path / "drawn" / "f1_outlines.geojson").write_text(json.dumps(content))
    code, out, err = biounet("check", "images", "drawn", "--recipe", "tiny.toml")
    assert (code, out.splitlines()[-1]) == (2, "4 images read, 1 problem")
    (line,) = err.splitlines()
    assert text in line
    assert "f1_outlines.geojson" in line
    code, _, err = biounet("train", "tiny.toml", "--images", "images", "--labels", "drawn", "-o", "m.safetensors")
    assert code == InputError.exit_code
    assert err.splitlines()[-1] == line


def test_a_table_names_outlines_too(tmp_path, fields):
    (tmp_path / "drawn").mkdir()
    as_coco(fields, tmp_path / "drawn")
    rows = [f"images/{stem}.tif,drawn/instances.json" for stem in fields]
    (tmp_path / "table.csv").write_text("\n".join(["image,label", *rows]))
    rows = check_data(tmp_path / "table.csv", None, read_recipe(tmp_path / "tiny.toml")).rows
    assert [row.objects for row in rows] == [int(labels.max()) for labels in fields.values()]
    assert {(row.format, row.overlaps, row.labelled) for row in rows} == {("COCO", 0, 1.0)}


@pytest.mark.parametrize("name", ["roi", "geojson", "coco"])
def test_volumes_are_compared_with_outlines_of_their_slices(tmp_path, biounet, name):
    labels = np.zeros((5, 30, 32), np.int32)
    labels[1:4, 2:12, 3:12], labels[2:5, 15:28, 14:30] = 1, 2
    for folder in ("labels", "drawn", "out"):
        (tmp_path / folder).mkdir()
    export(name, labels, tmp_path / "drawn", "v")
    for path, one in (("labels/v.tif", labels), ("out/v_labels.tif", np.roll(labels, 1, axis=2))):
        tifffile.imwrite(tmp_path / path, one.astype(np.uint16), imagej=True, metadata={"axes": "ZYX"})
    recipe = DataSettings(dims=3)
    figures = [evaluate(tmp_path / "out", tmp_path / folder, recipe) for folder in ("labels", "drawn")]
    assert figures[0].truth_counts == figures[1].truth_counts == (2,)
    assert figures[0].ap == figures[1].ap
