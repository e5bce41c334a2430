"""``biounet measure`` of what does not fit into memory writes the tables that it writes of what does."""

import csv
import json
import re

import nibabel
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import tifffile
from PIL import Image

from biounet.core import Grid
from biounet.files import StoreOptions, write_label_store
from support.label_images import blobs

TILED = {"tile": (32, 32), "photometric": "minisblack"}


@pytest.fixture
def in_parts(monkeypatch):
    """Return options by which these images do not fit into memory, and super-blocks of 40 pixels do."""
    monkeypatch.setattr("biounet.reporting.large_labels._EDGES", {2: (40,), 3: (12,)})
    monkeypatch.setattr("biounet.reporting.large_labels._PROGRAM", 0)
    return "--ram", "200k"


def write_pair(folder, labels):
    """Write labels, an image of two channels, and larger objects that hold some of them."""
    rng = np.random.default_rng(7)
    image = rng.integers(0, 4000, (2, *labels.shape)).astype(np.uint16)
    metadata = {"axes": "CYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "Channel": {"Name": ["DAPI", "GFP"]}}
    tifffile.imwrite(folder / "cells.ome.tif", image, metadata=metadata, **TILED)
    larger = np.kron(rng.integers(0, 5, (9, 9)), np.ones((20, 20), int))[: labels.shape[0], : labels.shape[1]]
    tifffile.imwrite(folder / "cells_inside.tif", larger.astype(np.uint16), **TILED)


def tables(out):
    """Return the tables in a folder, without the times that it took."""
    with (out / "counts.csv").open(newline="") as file:
        rows = [{**row, "seconds": ""} for row in csv.DictReader(file)]
    return rows, {path.name: path.read_bytes() for path in out.glob("*_*.csv")}


@pytest.mark.parametrize("kind", ["tif", "zarr"])
def test_tables_are_those_of_memory(biounet, tmp_path, in_parts, kind):
    labels = (blobs(150, 40) * 3).astype(np.int32)
    write_pair(tmp_path, labels)
    name = f"labels/cells_labels.{'ome.zarr' if kind == 'zarr' else 'tif'}"
    (tmp_path / "labels").mkdir()
    if kind == "zarr":
        write_label_store(tmp_path / name, labels, Grid(labels.shape, (0.5, 0.5), "um"), StoreOptions((64, 64)))
    else:
        tifffile.imwrite(tmp_path / name, labels.astype(np.uint16), **TILED)
    inputs = ("measure", name, "--image", "cells.ome.tif", "--inside", "cells_inside.tif", "--quiet")
    assert biounet(*inputs, "-o", "memory")[0] == 0
    assert biounet(*inputs, "-o", "parts", *in_parts)[0] == 0
    rows, found = tables(tmp_path / "parts")
    assert (rows, found) == tables(tmp_path / "memory")
    assert set(found) == {"cells_objects.csv", "cells_parents.csv"}
    assert int(rows[0]["count"]) == len(np.unique(labels)) - 1
    assert not [path for path in (tmp_path / "parts").iterdir() if path.name.startswith(".")]


def test_labels_without_an_image_and_images_of_one_channel_each(biounet, tmp_path, in_parts):
    labels = blobs(120, 20).astype(np.int32)
    write_pair(tmp_path, labels)
    tifffile.imwrite(tmp_path / "cells_labels.tif", labels, **TILED)
    for number, name in enumerate(("DAPI", "GFP")):
        (tmp_path / name).mkdir()
        image = tifffile.imread(tmp_path / "cells.ome.tif")[number]
        tifffile.imwrite(tmp_path / name / "cells.tif", image, **TILED)
    images = ("--image", "DAPI=DAPI", "--image", "GFP=GFP", "--ring", "1,4px")
    for number, further in enumerate(((), ("--spacing", "0.5"), images)):
        inputs = ("measure", "cells_labels.tif", *further, "--quiet")
        for out, how in ((f"memory{number}", ()), (f"parts{number}", in_parts)):
            code, _, err = biounet(*inputs, "-o", out, *how)
            assert code == 0, err
        assert tables(tmp_path / f"parts{number}") == tables(tmp_path / f"memory{number}")


def test_labels_stored_in_another_order_than_their_image(biounet, tmp_path, in_parts):
    labels = np.stack([blobs(40, 8)] * 20).astype(np.int16)
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    image = np.random.default_rng(0).normal(size=labels.T.shape).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(image, affine), tmp_path / "case.nii")
    flipped = affine.copy()
    flipped[0] = [-1, 0, 0, labels.shape[2] - 1]
    nibabel.save(nibabel.Nifti1Image(labels.T[::-1], flipped), tmp_path / "case_labels.nii")
    inputs = ("measure", "case_labels.nii", "--image", "case.nii", "--quiet")
    assert biounet(*inputs, "-o", "memory")[0] == 0
    assert biounet(*inputs, "-o", "parts", *in_parts)[0] == 0
    assert tables(tmp_path / "parts") == tables(tmp_path / "memory")


def test_a_mask_is_said_to_be_one(biounet, tmp_path, in_parts):
    mask = (blobs(150, 30) > 0).astype(np.uint8) * 255
    tifffile.imwrite(tmp_path / "nuclei_masks.tif", mask, **TILED)
    for out, how in (("memory", ()), ("parts", in_parts)):
        assert biounet("measure", "nuclei_masks.tif", "-o", out, *how)[0] == 0
    rows, found = tables(tmp_path / "parts")
    assert (rows, found) == tables(tmp_path / "memory")
    assert "of the value 255: a mask" in rows[0]["message"]


def test_what_is_wrong_is_one_line_and_other_files_are_measured(biounet, tmp_path, in_parts):
    labels = blobs(150, 30).astype(np.int32)
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / "good_labels.tif", labels, **TILED)
    tifffile.imwrite(tmp_path / "in" / "negative_labels.tif", labels - 1, **TILED)
    code, out, err = biounet("measure", "in", "-o", "out", *in_parts)
    assert (code, "good_labels.tif: 30 ok" in out, "holds the value -1" in err) == (3, True, True)
    code, _, err = biounet("measure", "in/good_labels.tif", "-o", "tables", "--columns", "cellprofiler", *in_parts)
    assert (code, "does not fit into memory, which a table of cellprofiler takes" in err) == (4, True)
    Image.fromarray(labels.astype(np.uint8)).save(tmp_path / "good.png")
    code, _, err = biounet("measure", "in/good_labels.tif", "--image", "good.png", "-o", "png", *in_parts)
    assert (code, "good.png: stored such that it has to be read as a whole (hint: save it as" in err) == (4, True)


def test_an_image_that_memory_is_too_little_for_is_one_line(biounet, tmp_path, monkeypatch):
    monkeypatch.setattr("biounet.reporting.large_labels._EDGES", {2: (40,), 3: (12,)})
    labels = blobs(150, 30).astype(np.uint16)
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / "large_labels.tif", labels, **TILED)
    tifffile.imwrite(tmp_path / "in" / "small_labels.tif", labels[:20, :20], **TILED)
    code, out, err = biounet("measure", "in", "-o", "out", "--ram", str(250 * 2**20 + 50_000))
    assert (code, "small_labels.tif: " in out, err.count("\n")) == (3, True, 1)
    assert err.startswith("ERROR large_labels.tif: 0.24 GiB of memory are too little: it takes 0.244 GiB (hint: ")
    least = re.search(r"--ram (\d+M) or more", err)[1]
    assert biounet("measure", "in", "-o", "out", "--ram", least, "--quiet")[0] == 0
    code, out, err = biounet("measure", "in", "-o", "none", "--ram", "250M")  # for which no image is small enough
    assert (code, out) == (2, "")
    assert err == "ERROR ram of 250 MiB: too little for any label image (hint: the program itself takes 250 MiB)\n"
    assert not (tmp_path / "none").exists()


def test_tables_of_many_rows_are_parquet(biounet, tmp_path, in_parts, monkeypatch):
    labels = (blobs(150, 40) * 3).astype(np.int32)
    write_pair(tmp_path, labels)
    tifffile.imwrite(tmp_path / "cells_labels.tif", labels.astype(np.uint16), **TILED)
    inputs = ("measure", "cells_labels.tif", "--image", "cells.ome.tif", "--inside", "cells_inside.tif")
    assert biounet(*inputs, "-o", "out", "--quiet", *in_parts)[0] == 0
    names, csv_tables = ("cells_objects", "cells_parents"), {}
    for name in names:
        csv_tables[name] = pd.read_csv(tmp_path / "out" / f"{name}.csv")
    monkeypatch.setattr("biounet.reporting.large_labels.MOST_CSV_ROWS", 3)
    code, out, _ = biounet(*inputs, "-o", "out", "--json", *in_parts)
    assert (code, json.loads(out)["outputs"]) == (0, [f"{name}.parquet" for name in names])
    kinds = set()
    for name, expected in csv_tables.items():
        found = pq.read_table(tmp_path / "out" / f"{name}.parquet")
        assert found.column_names == list(expected.columns)
        kinds.add(str(found.schema.field("parent").type) if "parent" in found.column_names else "")
        pd.testing.assert_frame_equal(found.to_pandas(), expected, check_dtype=False, rtol=1e-12)
    assert kinds == {"int64", ""}
    assert not list((tmp_path / "out").glob("cells_*.csv"))  # of the earlier run
    assert biounet(*inputs, "-o", "out", "--quiet")[0] == 0  # there is memory: they are CSV again
    assert {path.name for path in (tmp_path / "out").glob("cells_*")} == {f"{name}.csv" for name in names}


def test_tables_of_others_are_not_replaced_by_parquet(biounet, tmp_path, in_parts, monkeypatch):
    tifffile.imwrite(tmp_path / "cells_labels.tif", blobs(150, 40).astype(np.uint16), **TILED)
    mine = tmp_path / "out" / "cells_objects.parquet"
    mine.parent.mkdir()
    mine.write_text("mine")
    inputs = ("measure", "cells_labels.tif", "-o", "out", *in_parts)
    assert biounet(*inputs)[0] == 0
    monkeypatch.setattr("biounet.reporting.large_labels.MOST_CSV_ROWS", 3)
    code, _, err = biounet(*inputs)
    assert (code, "cells_objects.parquet: there already, and not written by biounet" in err) == (4, True)
    assert mine.read_text() == "mine"
