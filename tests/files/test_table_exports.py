"""Tables for other programs: every value as in the CSV, with its unit, and the keys that SpatialData joins by."""

import sys
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from biounet.core import Grid, SettingsError, Volume
from biounet.files import export_format_names, export_formats, hash_tree, write_export
from biounet.files.exports.tables import column_unit
from support.labelled_images import labelled_image, squares, time_series

PARQUET, H5AD = export_formats(["parquet", "h5ad"])
UM = labelled_image(squares((20, 30)), (0.5, 0.25), "um")
EMPTY = labelled_image(np.zeros((20, 30), np.int32), (0.5, 0.25), "um")
CLASSES = labelled_image(squares((20, 30)).clip(max=2), kind="classes", class_names={1: "core", 2: "rim"})
LESIONS = replace(
    labelled_image(squares((3, 20, 30)).clip(max=1), (1, 1, 1), "mm", kind="classes", class_names={1: "core"}),
    columns={
        "class": np.array(["core", "core", "core"], object),
        "lesion": np.array([0, 1, 2]),
        "voxels": np.array([70, 40, 30]),
        "volume_ml": np.array([0.07, 0.04, 0.03]),
        **{f"centroid_{axis}_px": np.array([1.0, 2.0, 3.0]) for axis in "zyx"},
        "frame": np.array(["scanner"] * 3, object),
    },
)


def read_h5ad(path):
    import anndata

    return anndata.read_h5ad(path)


def fails_of_spatialdata(table):
    """Return what `spatialdata.models.TableModel.validate` would refuse a table for, by its rules."""
    if "spatialdata_attrs" not in table.uns:
        return []
    attrs, fails = table.uns["spatialdata_attrs"], []
    if set(attrs) != {"region", "region_key", "instance_key"}:
        return [f"attributes {sorted(attrs)}"]
    region, instance = table.obs[attrs["region_key"]], table.obs[attrs["instance_key"]]
    if region.dtype.name != "category" or region.unique().tolist() != [attrs["region"]]:
        fails.append(f"regions {region.unique().tolist()} of type {region.dtype}")
    if instance.dtype not in (np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64):
        fails.append(f"instances of type {instance.dtype}")
    return fails + ([] if instance.is_unique else ["instances that occur twice"])


@pytest.mark.parametrize(
    ("column", "unit"),
    [
        ("area_um2", "um2"),
        ("centroid_x_px", "px"),
        ("volume_ml", "ml"),
        ("centroid_x_ras_mm", "mm"),
        ("ring_area_px", "px"),
        ("solidity", ""),
        ("intensity_mean_scaled_um", ""),
        ("ring_mean_um", ""),
        ("background_px", ""),
    ],
)
def test_units_are_those_of_the_names(column, unit):
    assert column_unit(column) == unit


@pytest.mark.parametrize("image", [UM, EMPTY, CLASSES, LESIONS, time_series()], ids=lambda image: image.kind)
def test_parquet_holds_the_table_with_units_in_the_metadata(tmp_path, image):
    table = pq.read_table(write_export(image, PARQUET, tmp_path))
    assert table.column_names == list(image.columns)
    for name, column in image.columns.items():
        assert table[name].to_pylist() == column.tolist()
        assert (table.schema.field(name).metadata or {}).get(b"unit", b"").decode() == column_unit(name)
    assert table.schema.metadata[b"image"] == b"a"


def test_parquet_has_no_value_where_a_cell_is_empty(tmp_path):
    columns = {
        "label": np.array([1, 2]),
        "ring_mean_DAPI": np.array([np.nan, 3.0]),
        "parent": np.array([None, 4], object),
    }
    table = pq.read_table(write_export(replace(UM, columns=columns), PARQUET, tmp_path))
    assert (table["ring_mean_DAPI"].to_pylist(), table["parent"].to_pylist()) == ([None, 3.0], [None, 4])


def test_h5ad_holds_numbers_with_units_and_joins_the_labels_of_the_ome_zarr(tmp_path):
    table = read_h5ad(write_export(UM, H5AD, tmp_path))
    assert table.uns["spatialdata_attrs"] == {"region": "cells", "region_key": "region", "instance_key": "instance_id"}
    assert fails_of_spatialdata(table) == []
    assert table.obs["instance_id"].tolist() == UM.values.tolist()
    assert table.obs_names[0] == "a_1"
    for name in table.var_names:
        np.testing.assert_array_equal(table[:, name].X[:, 0], UM.columns[name])
    assert table.var["unit"].to_dict()["area_um2"] == "um2"
    assert set(UM.columns) - set(table.var_names) == {"label", "touches_border"}
    assert "touches_border" in table.obs


def test_positions_are_x_y_z_from_the_corner_of_the_image(tmp_path):
    labels = np.zeros((4, 5, 6), np.int32)
    labels[0, 1, 2] = 1
    image = labelled_image(labels, (2.0, 0.5, 0.25), "um")
    table = read_h5ad(write_export(image, H5AD, tmp_path))
    assert table.obsm["spatial"].tolist() == [[2.5, 1.5, 0.5]]
    assert table.obsm["spatial_um"].tolist() == [[0.625, 0.75, 1.0]]
    flat = read_h5ad(write_export(labelled_image(labels[0], name="b"), H5AD, tmp_path))
    assert flat.obsm["spatial"].tolist() == [[2.5, 1.5]]
    assert list(flat.obsm) == ["spatial"]


def test_h5ad_of_lesions_has_a_row_for_each_and_none_for_the_region(tmp_path):
    table = read_h5ad(write_export(LESIONS, H5AD, tmp_path))
    assert table.obs["lesion"].tolist() == [1, 2]
    assert table.obs_names.tolist() == ["a_core_1", "a_core_2"]
    assert table[:, "voxels"].X.tolist() == [[40], [30]]
    assert "spatialdata_attrs" not in table.uns


@pytest.mark.parametrize(("image", "rows"), [(EMPTY, 0), (CLASSES, 2), (time_series(), 45)], ids=["0", "classes", "t"])
def test_h5ad_of_every_kind_is_valid(tmp_path, image, rows):
    table = read_h5ad(write_export(image, H5AD, tmp_path))
    assert table.n_obs == rows
    assert fails_of_spatialdata(table) == []
    assert ("spatialdata_attrs" in table.uns) == (rows > 0)


@pytest.mark.parametrize("export", [PARQUET, H5AD], ids=["parquet", "h5ad"])
def test_equal_tables_have_equal_bytes(tmp_path, export):
    assert (
        len(
            {hash_tree(write_export(UM, export, tmp_path / name)) for name in "ab" if (tmp_path / name).mkdir() is None}
        )
        == 1
    )


def test_a_format_without_its_package_is_an_error_before_the_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "anndata", None)
    with pytest.raises(
        SettingsError, match=r"h5ad needs anndata, which is not installed.*pip install 'biounet\[export\]'"
    ):
        export_formats(["h5ad"])


def test_a_grid_in_mm_has_positions_in_mm(tmp_path):
    image = labelled_image(squares((3, 20, 30)), grid=Grid((3, 20, 30), (2, 0.5, 0.5), "mm"))
    assert "spatial_mm" in read_h5ad(write_export(image, H5AD, tmp_path)).obsm


# Names of BIDS are of letters and digits, and those of DICOM need a series
OTHERS = [name for name in export_format_names() if name != "bids" and not name.startswith("dicom")]


@pytest.mark.parametrize("name", OTHERS)
def test_file_names_that_are_no_text_are_no_obstacle(tmp_path, name):
    image = replace(UM, name="a\udc80&\x01", channel_types={"DAPI": "uint16"})
    assert write_export(image, export_formats([name])[0], tmp_path).exists()
    assert image.title == "a\\udc80&\\x01"


def test_channels_of_one_name_are_all_there():
    pixels = np.zeros((4, 20, 30), np.uint16) + np.arange(4, dtype=np.uint16)[:, None, None]
    image = replace(UM, image=Volume(pixels, UM.grid, channel_names=("DAPI", "DAPI", "", "GFP")))
    found = {name: int(channel[0, 0]) for name, channel in image.channels.items()}
    assert found == {"DAPI": 0, "DAPI_1": 1, "channel_2": 2, "GFP": 3}


@pytest.mark.parametrize("name", sorted({*OTHERS} - {"cellprofiler", "geojson-points"}))  # which hold objects
def test_a_volume_with_lesions_is_exported(tmp_path, name):
    assert write_export(LESIONS, export_formats([name])[0], tmp_path).exists()


def test_rows_of_lesions_are_about_no_label():
    assert LESIONS.row_labels.tolist() == [1, 0, 0]
    assert LESIONS.rows_by_label()[1]["volume_ml"] == 0.07
    whole = replace(LESIONS, class_names={1: "rim"})
    assert whole.row_labels.tolist() == [0, 0, 0]
    assert CLASSES.row_labels.tolist() == [1, 2]
