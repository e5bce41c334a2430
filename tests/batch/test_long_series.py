"""A time series that does not fit into memory gives the files that it gives in memory."""

from types import SimpleNamespace

import numpy as np
import pytest
import tifffile

from biounet.batch import BatchOptions, segment_batch
from biounet.batch.long_series import find_long
from biounet.core import PROGRAM_RAM, MachineError, builtin_models
from biounet.files import ReadOptions, find_images, open_series
from biounet.network import load_model
from biounet.segmentation import SegmentOptions, memory_needs
from biounet.synthetic import FieldSettings, MovieSettings, make_movie

FIELD = FieldSettings(shape=(128, 160), coverage=0.12, elongation=1.2, diameter_spread=0.1)
MOVIE = {"imagej": True, "resolution": (2.0, 2.0)}


@pytest.fixture(scope="module")
def model():
    return load_model(builtin_models()["nuclei"])


@pytest.fixture(scope="module")
def series():
    return make_movie(5, MovieSettings(FIELD, frames=3, step=0.08))[0]


def segment(path, model, out, monkeypatch, limit, **read):
    """Segment a movie with so much memory; return its row, whether it was on the disk, and its files."""
    used = []
    monkeypatch.setattr("biounet.batch.records.usable_memory", lambda: limit)
    from biounet.files.lazy.series import LazySeries

    read_to_disk = LazySeries.read_to_disk
    monkeypatch.setattr(LazySeries, "read_to_disk", lambda *given: used.append(1) or read_to_disk(*given))
    read = ReadOptions(frames="all", **read)
    options = BatchOptions(read=read, segment=SegmentOptions(diameter="native"))
    [row] = segment_batch(find_images([str(path)]), model, out, options)
    files = {one.name: one.read_bytes() for one in out.iterdir() if one.name.startswith(path.stem)}
    assert not list(out.rglob(".array-*"))
    return row, bool(used), files


@pytest.mark.parametrize("further", [False, True])
def test_files_are_those_of_memory(tmp_path, monkeypatch, model, series, further):
    planes = np.stack([series, series[:, ::-1]], axis=1) if further else series
    metadata = {"axes": "TCYX" if further else "TYX", "unit": "um", "finterval": 30.0}
    tifffile.imwrite(tmp_path / "movie.tif", planes, **MOVIE, metadata=metadata)
    how = {"channel": 0, "measure": ("all",)} if further else {}
    (row, on_disk, files), (other, in_memory, wanted) = (
        segment(tmp_path / "movie.tif", model, tmp_path / str(limit), monkeypatch, limit, **how) for limit in (1, 2**40)
    )
    assert (on_disk, in_memory) == (True, False)
    assert files == wanted
    assert {"movie_labels.tif", "movie_objects.csv", "movie_overlay.png"} <= set(files)
    assert (row.count, row.message, row.figures) == (other.count, other.message, other.figures)
    assert [frame.count for frame in row.frames] == [frame.count for frame in other.frames]
    timeless = ("seconds",)
    assert {k: v for k, v in row.details.items() if k not in timeless} == {
        k: v for k, v in other.details.items() if k not in timeless
    }


def test_a_damaged_frame_is_one_line(tmp_path, monkeypatch, model, series):
    noisy = series + np.random.default_rng(0).integers(0, 200, series.shape).astype(series.dtype)
    path, packed = tmp_path / "movie.ome.tif", {"tile": (64, 64), "compression": "zlib", "photometric": "minisblack"}
    tifffile.imwrite(path, noisy, metadata={"axes": "TYX"}, **packed)
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages[1].dataoffsets[0]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"no zlib at all")
    row, *_ = segment(path, model, tmp_path / "out", monkeypatch, 1)
    assert row.status == "failed"
    assert "damaged" in row.message, row.message


def test_a_disk_that_is_too_small_is_refused_first(tmp_path, monkeypatch, model, series):
    tifffile.imwrite(tmp_path / "movie.tif", series, **MOVIE, metadata={"axes": "TYX"})
    monkeypatch.setattr("biounet.batch.large_image.shutil.disk_usage", lambda path: SimpleNamespace(free=10))
    with pytest.raises(MachineError, match=r"are needed, and .* are free"):
        segment(tmp_path / "movie.tif", model, tmp_path / "out", monkeypatch, 1)


def test_the_program_takes_its_part_of_the_memory(tmp_path, model, series):
    tifffile.imwrite(tmp_path / "movie.tif", series, **MOVIE, metadata={"axes": "TYX"})
    [found], native = find_images([str(tmp_path / "movie.tif")]), SegmentOptions(diameter="native")
    read = ReadOptions(frames="all")
    header = open_series(found.files(), found.read_options(read)).header
    least = PROGRAM_RAM + memory_needs(header, model, native, "auto")[-1][1].total
    enough, few = (BatchOptions(read=read, segment=native, ram=ram) for ram in (least, least - 1))
    assert find_long(found, model, enough) is None
    assert find_long(found, model, few) is not None
