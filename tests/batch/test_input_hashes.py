"""The files of a large image are hashed while it is worked on, and for no longer than there is use for it."""

from pathlib import Path
from threading import Event, Timer

import numpy as np
import pytest
import tifffile
import zarr

from biounet.batch import BatchOptions, segment_batch
from biounet.batch.input_hashes import work_while_hashed
from biounet.core import InputError, Stopped, builtin_models
from biounet.files import FoundImage, ReaderPool, ReadOptions, find_images
from biounet.large_images import budget
from biounet.network import load_model
from biounet.segmentation import SegmentOptions

LATE = 30.0  # seconds that a hash takes, unless it is given up


@pytest.fixture
def image(tmp_path):
    """An image of two files."""
    for name in ("a.tif", "b.tif"):
        (tmp_path / name).write_bytes(name.encode())
    return FoundImage(tmp_path / "a.tif", Path("a.tif"), (tmp_path / "b.tif",), channels=("a", "b"))


@pytest.fixture
def given_up(monkeypatch):
    """The files whose hash was given up, where each takes long."""
    names = []

    def hash_slowly(self, path, stop=None, scene=""):
        if not stop.wait(LATE):
            return "0" * 64
        names.append(Path(path).name)
        raise Stopped("reading was stopped")

    monkeypatch.setattr(ReaderPool, "hash_file", hash_slowly)
    return names


def test_states_are_those_of_all_files_in_their_order(image):
    result, states = work_while_hashed(image, lambda path, scene, stop: path.name, Event(), lambda: 7)
    assert result == 7
    assert [state.sha256 for state in states] == ["a.tif", "b.tif"]
    assert [state.size for state in states] == [5, 5]


def test_work_that_fails_does_not_wait_for_the_hash(image):
    has_begun, hashed = Event(), []

    def hash_file(path, scene, stop):
        has_begun.set()
        hashed.append((path.name, not stop.wait(LATE)))
        raise Stopped("reading was stopped")

    def fail():
        has_begun.wait(LATE)
        raise InputError("damaged")

    stop = Event()
    with pytest.raises(InputError, match="damaged"):
        work_while_hashed(image, hash_file, stop, fail)
    assert hashed == [("a.tif", False)]
    assert not stop.is_set()


def test_a_stop_ends_a_hash_that_takes_longer_than_the_work(image):
    given_up = []

    def hash_file(path, scene, stop):
        given_up.append(stop.wait(LATE))
        raise Stopped("reading was stopped")

    stop = Event()
    Timer(0.2, stop.set).start()
    with pytest.raises(Stopped):
        work_while_hashed(image, hash_file, stop, lambda: 7)
    assert given_up == [True]


def test_a_file_that_cannot_be_hashed_is_an_error(image):
    def hash_file(path, scene, stop):
        raise InputError("it changes while it is read", path=path)

    with pytest.raises(InputError, match="it changes while it is read"):
        work_while_hashed(image, hash_file, Event(), lambda: 7)


def test_a_damaged_image_in_super_blocks_ends_its_hash(tmp_path, monkeypatch, given_up):
    monkeypatch.setattr("biounet.batch.large_image._SMALL_FILE", 0)
    monkeypatch.setattr(budget, "_EDGES", {2: ((96, 64),)})
    path = tmp_path / "damaged.zarr"
    pixels = np.random.default_rng(0).integers(1, 2**16, (128, 128)).astype(np.uint16)
    zarr.create_array(path, data=pixels, chunks=(64, 64))
    (path / "c" / "1" / "1").write_bytes(b"no chunk at all")
    assert_one_line(path, tmp_path / "out", {"label_format": "zarr"})
    assert given_up == ["damaged.zarr"]


def test_a_damaged_series_on_the_disk_ends_its_hash(tmp_path, monkeypatch, given_up):
    monkeypatch.setattr("biounet.batch.records.usable_memory", lambda: 1)
    noise = np.random.default_rng(0).integers(0, 2**16, (3, 128, 128)).astype(np.uint16)
    path = tmp_path / "movie.ome.tif"
    tifffile.imwrite(path, noise, metadata={"axes": "TYX"}, compression="zlib", photometric="minisblack")
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages[1].dataoffsets[0]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"no zlib at all")
    assert_one_line(path, tmp_path / "out", {"read": ReadOptions(frames="all")})
    assert given_up == ["movie.ome.tif"]


def assert_one_line(path, out, options):
    chosen = BatchOptions(segment=SegmentOptions(diameter="native"), overlay=False, jobs=1, **options)
    [row] = segment_batch(find_images([path]), load_model(builtin_models()["nuclei"]), out, chosen)
    assert (row.status, "damaged" in row.message or "decoded" in row.message) == ("failed", True), row.message
