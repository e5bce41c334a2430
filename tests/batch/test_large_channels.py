"""Further channels of an image in super-blocks are measured as in memory: rings over seams, and the background."""

import numpy as np
import pytest
import tifffile

from biounet.batch import BatchOptions, segment_batch
from biounet.core import builtin_models, sample_folder
from biounet.files import ReadOptions, find_images
from biounet.large_images import budget
from biounet.network import load_model
from biounet.segmentation import SegmentOptions

EDGES = {2: ((96, 64),), 3: ((24, 16),)}


@pytest.fixture(autouse=True)
def small_super_blocks(monkeypatch):
    monkeypatch.setattr(budget, "_EDGES", EDGES)
    monkeypatch.setattr("biounet.batch.large_image._SMALL_FILE", 0)


def write_image(path, first, dtype, **metadata):
    """Write an image and a second channel, which differs from place to place and is brighter in objects."""
    rng = np.random.default_rng(3)
    second = first * 0.4 + rng.normal(0, 20, first.shape) + np.linspace(100, 300, first.shape[-1])
    planes = np.stack([first, second.clip(0)], axis=-3).astype(dtype)
    axes = "ZCYX" if first.ndim == 3 else "CYX"
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(planes, tile=(64, 64), photometric="minisblack", metadata={"axes": axes, **metadata})


def segment(folder, out, model, ring, label_format):
    read = ReadOptions(channel=0, measure=("all",), dims=model.card.recipe.data.dims, inputs=1)
    options = SegmentOptions(diameter="native", ring=ring)
    batch = BatchOptions(read=read, segment=options, overlay=False, label_format=label_format)
    [row] = segment_batch(find_images([str(folder / "image.ome.tif")]), model, out, batch)
    assert row.status != "failed", row.message
    return row


def assert_like_memory(folder, model, ring):
    large, memory = (segment(folder, folder / name, model, ring, name) for name in ("zarr", "tif"))
    assert (large.count, large.message, large.figures) == (memory.count, memory.message, memory.figures)
    assert large.details["channel_types"] == memory.details["channel_types"]
    assert "super_blocks" in large.details
    tables = [(folder / name / "image_objects.csv").read_bytes() for name in ("zarr", "tif")]
    assert tables[0] == tables[1]
    return tables[0].decode().splitlines()[0].split(",")


@pytest.mark.parametrize(("dtype", "ring"), [("u2", None), ("u2", "0,40px"), ("f4", "0.5,2um"), ("f4", "no")])
def test_rows_of_an_image_are_those_of_memory(tmp_path, dtype, ring):
    first = tifffile.imread(sample_folder() / "images" / "nuclei.tif")
    write_image(tmp_path / "image.ome.tif", first, dtype, PhysicalSizeX=0.5, PhysicalSizeY=0.5)
    columns = assert_like_memory(tmp_path, load_model(builtin_models()["nuclei"]), ring)
    assert ("background_channel_1" in columns) == (ring != "no")
    assert "intensity_mean_channel_1" in columns


def test_a_ring_that_cannot_be_measured_is_told_before_the_work(tmp_path):
    write_image(tmp_path / "image.ome.tif", tifffile.imread(sample_folder() / "images" / "nuclei.tif"), "u2")
    model = load_model(builtin_models()["nuclei"])
    read = ReadOptions(channel=0, measure=("all",), inputs=1)
    segment = SegmentOptions(diameter="native", ring="1,2um")
    options = BatchOptions(read=read, segment=segment, overlay=False, label_format="zarr")
    [row] = segment_batch(find_images([str(tmp_path / "image.ome.tif")]), model, tmp_path / "out", options)
    assert (row.status, "a ring in µm, but the pixel size is unknown" in row.message) == ("failed", True)
    assert not (tmp_path / "out" / ".large").exists()


def test_rows_of_a_volume_are_those_of_memory(tmp_path):
    first = tifffile.imread(sample_folder() / "stacks" / "images" / "crowded.tif")
    sizes = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "PhysicalSizeZ": 1.0}
    write_image(tmp_path / "image.ome.tif", first, "u2", **sizes)
    columns = assert_like_memory(tmp_path, load_model(builtin_models()["nuclei3d"]), "1,3px")
    assert "ring_mean_channel_1" in columns
