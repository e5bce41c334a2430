"""Labels larger than memory: whatever writes a store, in whatever order, what is read back are the labels."""

import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from biounet.core import Grid
from biounet.files import (
    STORE_SUFFIX,
    LabelStore,
    StoreOptions,
    create_label_store,
    open_label_store,
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
