"""Labels larger than memory: whatever writes a store, in whatever order, what is read back are the labels."""

import errno
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from biounet.core import Grid, InputError, MachineError
from biounet.files import (
    STORE_SUFFIX,
    LabelStore,
    StoreOptions,
    create_label_store,
    find_label_images,
    open_label_store,
    read_label_kind,
    read_labels,
    write_level,
    write_shard,
)
from biounet.files.exports.pyramid import halve_labels, pyramid

AFFINE = ((-0.5, 0, 0, 10), (0, -0.5, 0, 20), (0, 0, 2, -30))


def labels_of(shape, seed=0, objects=40):
    """Blocks of labels with background between them."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, objects, [-(-n // 7) for n in shape]) * rng.integers(0, 2, [-(-n // 7) for n in shape])
    for axis in range(len(shape)):
        coarse = coarse.repeat(7, axis)
    return coarse[tuple(slice(0, n) for n in shape)].astype(np.int32)


def fill(store, labels, order=1):
    for region in list(store.levels[0].regions())[::order]:
        write_shard(store, region, labels[region])
    for level in range(1, len(store.levels)):
        for region in list(store.levels[level].regions())[::order]:
            write_level(store, level, region)


def whole(store, level=0):
    return store.read(tuple(slice(0, n) for n in store.levels[level].shape), level)


def content(path):
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


@pytest.mark.parametrize(
    ("shape", "shard"),
    [
        ((601, 533), (128, 96)),
        ((300, 1100), (4096, 4096)),
        ((1100, 300), (1024, 1024)),
        ((37, 300, 280), (16, 128, 64)),
        ((3, 515, 270), (3, 200, 200)),
    ],
)
def test_a_store_holds_the_labels_and_the_levels_of_the_whole_array(tmp_path, shape, shard):
    labels = labels_of(shape)
    grid = Grid(shape, (2.0, 0.5, 0.5)[-len(shape) :], "um")
    store = create_label_store(tmp_path / f"a{STORE_SUFFIX}", grid, StoreOptions(shard))
    fill(store, labels)
    for level, expected in enumerate(pyramid(labels, [one.factors for one in store.levels], halve_labels)):
        assert np.array_equal(whole(store, level), expected)
    assert isinstance(store, LabelStore)
    assert open_label_store(store.path) == store
    assert whole(pickle.loads(pickle.dumps(store))).dtype == np.int32


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_region_of_any_layout_is_read_as_it_was_written(tmp_path_factory, data):
    dims = data.draw(st.sampled_from([2, 3]))
    lengths = st.integers(1, 300 if dims == 2 else 40)
    shape = tuple(data.draw(lengths) for _ in range(dims))
    shard = tuple(data.draw(st.integers(1, 64)) if dims == 2 else data.draw(st.integers(9, 30)) for _ in range(dims))
    shard = tuple(max(size, length // 5 + 1) for size, length in zip(shard, shape, strict=True))
    labels = labels_of(shape, data.draw(st.integers(0, 5)))
    store = create_label_store(tmp_path_factory.mktemp("s") / "x.zarr", Grid(shape), StoreOptions(shard))
    fill(store, labels)
    starts = [data.draw(st.integers(0, length - 1)) for length in shape]
    region = tuple(
        slice(start, data.draw(st.integers(start + 1, length))) for start, length in zip(starts, shape, strict=True)
    )
    assert np.array_equal(store.read(region), labels[region])
    for level, expected in enumerate(pyramid(labels, [one.factors for one in store.levels], halve_labels)):
        assert np.array_equal(whole(store, level), expected)


def test_the_order_of_writers_is_invisible_in_the_bytes(tmp_path):
    labels, grid = labels_of((700, 600)), Grid((700, 600), (0.3, 0.3), "um")
    for folder, order in (("one", 1), ("two", -1)):
        (tmp_path / folder).mkdir()
        fill(create_label_store(tmp_path / folder / "a_labels.ome.zarr", grid, StoreOptions((256, 256))), labels, order)
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_a_shard_without_labels_is_not_stored_and_an_earlier_one_goes(tmp_path):
    store = create_label_store(tmp_path / "a", Grid((200, 200)), StoreOptions((100, 100)))
    region = (slice(100, 200), slice(0, 100))
    write_shard(store, region, np.ones((100, 100), np.int32))
    assert store.has_labels(region)
    assert not store.has_labels((slice(0, 100), slice(0, 200)))
    write_shard(store, region, np.zeros((100, 100), np.int32))
    assert not store.shard_path(0, region).exists()
    assert not whole(store).any()


def test_a_store_is_valid_and_says_what_its_values_are(tmp_path):
    import zarr
    from ome_zarr_models.v05 import ImageLabel

    labels = labels_of((600, 500))
    options = StoreOptions((256, 256), kind="classes", class_names={1: "whole", 2: "core"}, source="../a.ome.zarr")
    store = create_label_store(tmp_path / f"a{STORE_SUFFIX}", Grid((600, 500), (0.5, 0.25), "um"), options)
    fill(store, labels)
    found = ImageLabel.from_zarr(zarr.open_group(store.path, mode="r")).ome_attributes.image_label
    assert found.source.image == "../a.ome.zarr"
    assert [colour.label_value for colour in found.colors] == [1, 2]
    assert read_label_kind(store.path) == "classes"
    assert np.array_equal(read_labels(store.path), labels)
    assert [file.name.name for file in find_label_images(tmp_path)] == ["a"]
    assert find_label_images(store.path)[0].path == store.path


def test_a_volume_keeps_its_affine_and_header(tmp_path):
    grid = Grid((4, 6, 8), (2.0, 0.5, 0.5), "mm", AFFINE, b"header", frame="scanner")
    store = create_label_store(tmp_path / "a", grid, StoreOptions((4, 6, 8)))
    found = open_label_store(store.path).grid
    assert (found, found.header, found.frame) == (grid, b"header", "scanner")


@pytest.mark.parametrize(
    ("grid", "options", "message"),
    [
        (Grid((100, 91)), StoreOptions((50, 50)), "is 100 x 90, not 100 x 91"),
        (Grid((100, 90), (1.0, 1.0), "um"), StoreOptions((50, 50)), "lies on another grid"),
        (Grid((100, 90)), StoreOptions((50, 60)), "has shards of 50 x 50, not 50 x 60"),
        (Grid((100, 90)), StoreOptions((50, 50), "uint8"), "holds int32, not uint8"),
        (Grid((100, 90)), StoreOptions((50, 50), pinned={"model": "b"}), "was made with another model"),
        (Grid((100, 90)), StoreOptions((50, 50), title="b"), "was written by another version"),
    ],
)
def test_another_store_is_never_opened_or_replaced(tmp_path, grid, options, message):
    store = create_label_store(tmp_path / "a", Grid((100, 90)), StoreOptions((50, 50)))
    write_shard(store, (slice(0, 50), slice(0, 50)), np.ones((50, 50), np.int32))
    before = content(tmp_path)
    with pytest.raises(InputError, match=message):
        create_label_store(tmp_path / "a", grid, options)
    create_label_store(tmp_path / "a", Grid((100, 90)), StoreOptions((50, 50)))
    assert content(tmp_path) == before


def test_what_is_no_store_is_an_error_of_one_line(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="it has no multiscales"):
        open_label_store(tmp_path / "folder")
    store = create_label_store(tmp_path / "a", Grid((600, 600)), StoreOptions((300, 300)))
    (store.path / "1" / "zarr.json").unlink()
    with pytest.raises(InputError, match="level 1 is missing"):
        open_label_store(store.path)


def test_a_store_of_another_layout_is_refused(tmp_path):
    store = create_label_store(tmp_path / "a", Grid((60, 60)), StoreOptions((30, 30)))
    file = store.path / "zarr.json"
    file.write_text(file.read_text().replace('"layout": 1', '"layout": 2'))
    before = content(tmp_path)
    for use in (open_label_store, lambda path: create_label_store(path, store.grid, StoreOptions((30, 30)))):
        with pytest.raises(
            InputError, match="a label store of layout 2, and this version of biounet knows 1"
        ) as caught:
            use(store.path)
        assert "\n" not in str(caught.value)
    assert content(tmp_path) == before


def test_a_damaged_shard_is_named_and_others_are_read(tmp_path):
    store = create_label_store(tmp_path / "a", Grid((200, 200)), StoreOptions((100, 100)))
    labels = labels_of((200, 200)) + 1
    fill(store, labels)
    shard = store.path / "0" / "c" / "1" / "0"
    damaged = bytearray(shard.read_bytes())
    damaged[40] ^= 255
    shard.write_bytes(damaged)
    with pytest.raises(InputError, match="shard 0/c/1/0 is damaged"):
        whole(store)
    assert np.array_equal(store.read((slice(0, 100), slice(0, 200))), labels[:100])


def test_wrong_regions_and_labels_are_refused(tmp_path):
    store = create_label_store(tmp_path / "a", Grid((100, 90)), StoreOptions((50, 50), "uint8"))
    last = (slice(50, 100), slice(50, 90))
    assert store.levels[0].region(3) == last
    with pytest.raises(ValueError, match="is not one shard"):
        write_shard(store, (slice(50, 100), slice(40, 90)), np.zeros((50, 50), np.int32))
    with pytest.raises(ValueError, match="labels of shape"):
        write_shard(store, last, np.zeros((50, 50), np.int32))
    for label in (-1, 256):
        with pytest.raises(InputError, match=f"label {label} does not fit in uint8"):
            write_shard(store, last, np.full((50, 40), label, np.int32))


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(tmp_path, monkeypatch):
    store = create_label_store(tmp_path / "a", Grid((100, 100)), StoreOptions((100, 100)))
    before = content(tmp_path)

    def write_half(path, data):
        with path.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises(MachineError, match=r"No space left on device .*free some space"):
        write_shard(store, (slice(0, 100), slice(0, 100)), np.ones((100, 100), np.int32))
    assert content(tmp_path) == before


WRITER = """
import sys
from pathlib import Path
import numpy as np
from biounet.files import open_label_store, write_shard
store = open_label_store(Path(sys.argv[1]))
print("ready", flush=True)
labels = np.random.default_rng(int(sys.argv[2])).integers(1, 2**30, (512, 512), np.int32)
while True:
    write_shard(store, store.levels[0].region(int(sys.argv[2])), labels)
"""


def test_writers_that_are_killed_leave_whole_shards_or_none(tmp_path):
    store = create_label_store(tmp_path / "a", Grid((1024, 512)), StoreOptions((512, 512)))
    command = [sys.executable, "-c", WRITER, str(store.path)]
    writers = [subprocess.Popen([*command, str(n)], stdout=subprocess.PIPE) for n in range(2)]
    for writer in writers:
        assert writer.stdout.readline() == b"ready\n"
    while not all(store.shard_path(0, region).exists() for region in store.levels[0].regions()):
        time.sleep(0.01)
    for writer in writers:
        writer.kill()
        writer.communicate()
    for number, region in enumerate(store.levels[0].regions()):
        expected = np.random.default_rng(number).integers(1, 2**30, (512, 512), np.int32)
        assert np.array_equal(store.read(region), expected)
