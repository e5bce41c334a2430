"""Label stores of a run in the formats of other programs: the files that label images of one page give."""

import shutil

import numpy as np
import pytest
import tifffile
import zarr

from biounet.batch import BatchOptions, export_run, sample, segment_batch
from biounet.core import builtin_models, sample_folder
from biounet.files import find_images, mapped_labels
from biounet.large_images import budget
from biounet.measurement import columns_from_csv, columns_from_parquet
from biounet.network import load_model
from biounet.segmentation import SegmentOptions

FORMATS = ("parquet", "roi", "coco", "coco-polygons", "cellprofiler", "ome-tiff", "itk-snap", "slicer", "fsleyes")
WITH_IDENTITY = ("geojson", "geojson-points", "h5ad", "ome-zarr")  # which is that of the settings, --format included


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder of runs of one image, a Zarr array: with a label store, with a TIFF, and with a table in Parquet."""
    folder = tmp_path_factory.mktemp("runs")
    image = tifffile.imread(sample_folder() / "images" / "nuclei.tif")[:200, :180]
    zarr.create_array(folder / "in" / "a.zarr", data=image, chunks=(64, 64))
    segment, model = SegmentOptions(diameter="native"), load_model(builtin_models()["nuclei"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(budget, "_EDGES", {2: ((128, 128),)})
        for name, label_format in (("store", "zarr"), ("page", "tif"), ("rows", "zarr")):
            patch.setattr("biounet.batch.large_image.MOST_CSV_ROWS", 0 if name == "rows" else 10**7)
            options = BatchOptions(segment=segment, overlay=False, label_format=label_format)
            segment_batch(find_images([str(folder / "in")]), model, folder / name, options)
    return folder


@pytest.fixture
def folder(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(mapped_labels, "_LARGE", 0)
    shutil.copytree(runs, tmp_path / "runs", copy_function=shutil.copy2)
    return tmp_path / "runs"


def files(out):
    return {path.relative_to(out): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def exported(out, formats):
    """What is written to a folder of results, by its name."""
    before = files(out)
    rows = export_run(out, formats)
    assert {row.status for row in rows} == {"written"}, rows
    return {name: content for name, content in files(out).items() if name not in before and name.suffix != ".jsonl"}


def test_a_store_gives_what_a_label_image_of_one_page_gives(folder):
    store, page = (exported(folder / name, FORMATS) for name in ("store", "page"))
    assert store.keys() == page.keys()
    assert [str(name) for name in store if store[name] != page[name]] == []
    store, page = (exported(folder / name, WITH_IDENTITY) for name in ("store", "page"))
    assert store.keys() == page.keys()


def test_a_table_in_parquet_is_exported_as_one_in_csv(folder):
    table, rows = folder / "store" / "a_objects.csv", folder / "rows" / "a_objects.parquet"
    one, other = columns_from_csv(table), columns_from_parquet(rows)
    assert list(one) == list(other)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])
    of_csv, of_parquet = (exported(folder / name, ("cellprofiler", "coco")) for name in ("store", "rows"))
    assert of_csv == of_parquet


def test_a_format_that_memory_does_not_hold_is_refused_in_one_line(folder, monkeypatch):
    monkeypatch.setattr("biounet.files.exports.formats.free_memory", lambda: 2**18)
    rows = {row.format: row for row in export_run(folder / "store", ("geojson", "roi", "parquet", "coco", "ome-zarr"))}
    assert {name: row.status for name, row in rows.items()} == {
        "geojson": "written",
        "roi": "written",
        "parquet": "written",
        "coco": "failed",
        "ome-zarr": "failed",
    }
    message = rows["coco"].message
    assert "coco of 200 x 180 pixels takes about 0.0004 GiB, and 0.00024 GiB are free" in message
    assert "geojson, geojson-points, roi" in message
    assert "\n" not in message


def test_stores_are_drawn_and_copied_to_be_counted_by_hand(folder, tmp_path):
    drawn = sample(folder / "store", 1, out=tmp_path / "hand.csv")
    assert drawn.files == ("hand_images/1.zarr",)
    assert np.array_equal(zarr.open_array(tmp_path / drawn.files[0])[:], zarr.open_array(folder / "in" / "a.zarr")[:])
    assert sample(folder / "store", 1, out=tmp_path / "b.csv", copies="pictures").files == ("b_images/1.png",)
