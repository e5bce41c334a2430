"""Names and units of CellProfiler, each value against scikit-image, whose measurements CellProfiler writes."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from skimage.draw import ellipse
from skimage.measure import regionprops_table

from biounet.core import Grid, InputError, Volume
from biounet.files import ExportedImage, LabelledImage, channel_types, export_formats, write_export
from biounet.files.exports.cellprofiler import cellprofiler_table, merge_cellprofiler
from biounet.measurement import measure_objects
from biounet.measurement.labels import measure_labels
from support.labelled_images import labelled_image, squares, time_series

(CELLPROFILER,) = export_formats(["cellprofiler"])
# What MeasureObjectSizeShape takes from scikit-image as it is; angles are turned into degrees
OF_SKIMAGE = {
    "Area": "area",
    "Perimeter": "perimeter",
    "MajorAxisLength": "axis_major_length",
    "MinorAxisLength": "axis_minor_length",
    "Eccentricity": "eccentricity",
    "Center_X": "centroid-1",
    "Center_Y": "centroid-0",
    "BoundingBoxArea": "area_bbox",
    "BoundingBoxMinimum_X": "bbox-1",
    "BoundingBoxMaximum_X": "bbox-3",
    "BoundingBoxMinimum_Y": "bbox-0",
    "BoundingBoxMaximum_Y": "bbox-2",
    "Extent": "extent",
    "Solidity": "solidity",
    "EquivalentDiameter": "equivalent_diameter_area",
    "Orientation": "orientation",
}


def ellipses(turns=(0, 0.3, 1.0, -0.7, 2.5)):
    labels = np.zeros((60, 60 * len(turns)), np.int32)
    for number, turn in enumerate(turns):
        rows, columns = ellipse(30, 30 + 60 * number, 22, 9, rotation=turn)
        labels[rows, columns] = number + 1
    return labels


def described(labels, pixels, spacing=(0.5, 0.25), unit="um"):
    """Return labels with their table, pixels of twice the height where nothing else is said."""
    grid = Grid(labels.shape, spacing, unit)
    columns = measure_objects(labels, pixels[None], grid, None, ("DAPI",)).columns
    types = channel_types(columns, Volume(pixels[None], grid))
    return LabelledImage("a", labels, grid, "objects", columns, channel_types=types)


def noise(labels, dtype=np.uint16, high=4096):
    return np.random.default_rng(0).integers(0, high, labels.shape).astype(dtype)


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_shapes_are_those_of_scikit_image_in_pixels_on_a_calibrated_grid_of_oblong_pixels():
    labels = ellipses()
    table = cellprofiler_table(described(labels, noise(labels)))
    names = {name.split("-")[0] for name in OF_SKIMAGE.values()}
    expected = regionprops_table(labels, properties=tuple(names))
    for name, source in OF_SKIMAGE.items():
        factor = 180 / np.pi if name == "Orientation" else 1
        np.testing.assert_allclose(table[f"AreaShape_{name}"], expected[source] * factor, rtol=1e-9, err_msg=name)
    area, perimeter = expected["area"], expected["perimeter"]
    np.testing.assert_allclose(table["AreaShape_FormFactor"], 4 * np.pi * area / perimeter**2)
    np.testing.assert_allclose(table["AreaShape_Compactness"], perimeter**2 / (4 * np.pi * area))
    np.testing.assert_array_equal(table["Location_Center_X"], table["AreaShape_Center_X"])


@pytest.mark.parametrize(
    ("pixels", "degrees"),
    [([[1], [1], [1]], 0.0), ([[1, 1, 1]], 90.0), ([[1, 0], [0, 1]], 45.0), ([[0, 1], [1, 0]], -45.0)],
    ids=["upright", "lying", "down to the right", "up to the right"],
)
def test_the_angle_is_that_of_the_long_axis_to_the_y_axis_in_degrees(pixels, degrees):
    labels = np.pad(np.array(pixels, np.int32), 1)
    table = cellprofiler_table(described(labels, noise(labels)))
    np.testing.assert_allclose(np.abs(table["AreaShape_Orientation"]), abs(degrees))
    expected = regionprops_table(labels, properties=("orientation",))["orientation"] * 180 / np.pi
    np.testing.assert_allclose(table["AreaShape_Orientation"], expected)
    if abs(degrees) == 45:
        assert table["AreaShape_Orientation"] == degrees


@pytest.mark.parametrize(
    ("dtype", "high", "scale"),
    [(np.uint8, 256, 255), (np.uint16, 4096, 65535), (np.int16, 4096, 65535), (np.uint32, 4096, 2**32)],
)
def test_intensities_are_divided_by_the_largest_value_of_the_type(dtype, high, scale):
    labels = ellipses()
    pixels = noise(labels, dtype, high)
    table = cellprofiler_table(described(labels, pixels))
    for number in range(1, labels.max() + 1):
        own = pixels[labels == number] / scale
        row = {name.split("_")[1]: values[number - 1] for name, values in table.items() if name.endswith("_DAPI")}
        expected = {
            "MeanIntensity": own.mean(),
            "MaxIntensity": own.max(),
            "IntegratedIntensity": own.sum(),
            "StdIntensity": own.std(),
        }
        assert row == pytest.approx(expected, rel=1e-9)


def test_intensities_of_floats_are_taken_as_they_are():
    labels = ellipses()
    image = described(labels, noise(labels, np.float32))
    table = cellprofiler_table(image)
    np.testing.assert_array_equal(table["Intensity_MeanIntensity_DAPI"], image.columns["intensity_mean_DAPI"])


def test_intensities_of_an_unknown_type_are_an_error():
    labels = ellipses()
    with pytest.raises(InputError, match="type of the pixels of channel 'DAPI' is not known"):
        cellprofiler_table(replace(described(labels, noise(labels)), channel_types={}))


def test_objects_of_stacks_have_volumes_and_axes_in_voxels():
    z, y, x = np.ogrid[:24, :40, :40]
    labels = (((z - 12) / 9) ** 2 + ((y - 15) / 12) ** 2 + ((x - 14) / 6) ** 2 < 1).astype(np.int32)
    labels[20:, 34:, 30:] = 2
    table = cellprofiler_table(described(labels, noise(labels), (2.0, 0.5, 0.5)))
    names = ("area", "bbox", "extent", "axis_major_length", "axis_minor_length", "equivalent_diameter_area", "centroid")
    expected = regionprops_table(labels, properties=names)
    sources = {
        "Volume": "area",
        "MajorAxisLength": "axis_major_length",
        "MinorAxisLength": "axis_minor_length",
        "EquivalentDiameter": "equivalent_diameter_area",
        "Extent": "extent",
        "Center_Z": "centroid-0",
        "BoundingBoxMinimum_Z": "bbox-0",
        "BoundingBoxMaximum_Z": "bbox-3",
        "BoundingBoxMaximum_X": "bbox-5",
    }
    for name, source in sources.items():
        np.testing.assert_allclose(table[f"AreaShape_{name}"], expected[source], rtol=1e-6, err_msg=name)
    assert table["Neighbors_NumberOfNeighbors_Adjacent"].tolist() == [0, 0]
    assert "AreaShape_SurfaceArea" not in table  # measured otherwise


def test_each_frame_of_a_series_is_an_image_whose_objects_are_numbered_from_1():
    series = time_series(3)
    shuffled = np.random.default_rng(0).permutation(len(series.columns["label"]))
    for order in (np.arange(len(shuffled)), shuffled):
        columns = {name: column[order] for name, column in series.columns.items()}
        columns |= {"track": columns["label"] % 7}
        table = cellprofiler_table(replace(series, columns=columns, channel_types={"DAPI": "uint16"}))
        count = len(order) // 3
        np.testing.assert_array_equal(table["ImageNumber"], columns["t"] + 1)
        np.testing.assert_array_equal(table["ObjectNumber"], (columns["label"] - 1) % count + 1)
        np.testing.assert_array_equal(table["TrackObjects_Label"], columns["track"])
        boxes = table["AreaShape_BoundingBoxMinimum_X"]
        np.testing.assert_array_equal(boxes, columns["centroid_x_px"] - 1.5)


def test_objects_know_their_parent_and_parents_their_children():
    cells, nuclei = np.zeros((20, 30), np.int32), np.zeros((20, 30), np.int32)
    cells[2:12, 15:25], cells[2:12, 2:12] = 1, 2
    nuclei[4:8, 4:8], nuclei[15:18, 4:8] = 1, 2
    measured = measure_labels(nuclei, {}, Grid(nuclei.shape), inside=cells)
    objects = LabelledImage("a", nuclei, Grid(nuclei.shape), "objects", measured.objects.columns)
    parents = LabelledImage("a", cells, Grid(cells.shape), "objects", measured.parents.columns)
    table = cellprofiler_table(objects)
    assert table["ObjectNumber"].tolist() == [1, 2]
    assert table["AreaShape_BoundingBoxMinimum_Y"].tolist() == [4, 15]
    assert table["Parent_Cells"].tolist() == [2, 0]
    assert cellprofiler_table(parents)["Children_Nuclei_Count"].tolist() == [0, 1]


def test_an_image_without_objects_is_a_table_without_rows(tmp_path):
    for shape in ((20, 30), (3, 20, 30)):
        image = described(np.zeros(shape, np.int32), np.zeros(shape, np.uint16), (0.5,) * len(shape))
        path = write_export(replace(image, name=str(len(shape))), CELLPROFILER, tmp_path)
        assert len(path.read_text().splitlines()) == 1
        assert rows_of(path) == []


def test_classes_are_refused_with_a_format_that_holds_them(tmp_path):
    classes = labelled_image(squares((20, 30)).clip(max=2), kind="classes", class_names={1: "core", 2: "rim"})
    with pytest.raises(InputError, match=r"are of objects, and these are classes.*parquet"):
        write_export(classes, CELLPROFILER, tmp_path)


def test_tables_of_a_run_number_its_images_as_counts_csv_does(tmp_path):
    labels = ellipses()
    one = write_export(described(labels, noise(labels)), CELLPROFILER, tmp_path)
    series = replace(time_series(2), name="b", channel_types={"DAPI": "uint16"})
    several = write_export(series, CELLPROFILER, tmp_path)
    empty = described(np.zeros((9, 9), np.int32), np.zeros((9, 9), np.uint16))
    none = write_export(replace(empty, name="c"), CELLPROFILER, tmp_path)
    images = [
        ExportedImage("p/a.tif", {"Cells": one}, {"Cells": (5,)}, metadata={"well": "A1"}),
        ExportedImage("failed.tif", {}, {"Cells": (None,)}, metadata={"well": "A1"}),
        ExportedImage("b.tif", {"Cells": several}, {"Cells": (15, 15)}, (0, 1), {"well": "B2"}),
        ExportedImage("c.tif", {"Cells": none}, {"Cells": (0,)}, metadata={"well": "B,2"}),
    ]
    merge_cellprofiler(images, tmp_path)
    rows = rows_of(tmp_path / "cellprofiler" / "Image.csv")
    assert [(row["ImageNumber"], row["Count_Cells"], row["Metadata_Well"], row["Metadata_T"]) for row in rows] == [
        ("1", "5", "A1", ""),
        ("2", "", "A1", ""),
        ("3", "15", "B2", "0"),
        ("4", "15", "B2", "1"),
        ("5", "0", "B,2", ""),
    ]
    assert [(row["FileName_DAPI"], row["Metadata_Folder"]) for row in rows[:2]] == [("a.tif", "p"), ("failed.tif", ".")]
    cells = rows_of(tmp_path / "cellprofiler" / "Cells.csv")
    assert [row["ImageNumber"] for row in cells] == ["1"] * 5 + ["3"] * 15 + ["4"] * 15
    assert {row["Metadata_Well"] for row in cells} == {"A1", "B2"}
    assert list(cells[0])[:3] == ["ImageNumber", "ObjectNumber", "Metadata_Well"]
    assert float(cells[0]["AreaShape_Area"]) == (labels == 1).sum()


def test_a_run_without_any_table_still_lists_its_images(tmp_path):
    merge_cellprofiler([ExportedImage("a.tif", {}, {"Cells": (None,)})], tmp_path)
    assert rows_of(tmp_path / "cellprofiler" / "Image.csv")[0]["FileName_Image"] == "a.tif"
    assert rows_of(tmp_path / "cellprofiler" / "Cells.csv") == []
