"""Labels of any program that are measured in parts have the rows that they have in memory."""

import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from biounet.core import Grid
from biounet.measurement import LargeLabels, MeasuredChannels, Ring, count_pieces, find_ids, measure_owned
from biounet.measurement.id_rows import join_rows, save_rows
from biounet.measurement.labels import measure_labels
from support.label_images import label_images, pixels
from support.super_blocks import StoredLabels, lattice, lazy


def measure_in_parts(labels, grid, further, edge, ring, inside=None):
    """Return what was found of ids, and the rows of all super-blocks by ascending label."""
    names = ("a",) if further else ()
    image = lazy(labels, grid, pixels(labels.shape, 1), further)
    channels = MeasuredChannels(names, further=bool(further), ring=ring if further else None)
    with tempfile.TemporaryDirectory() as folder:
        job = LargeLabels(StoredLabels(labels), image, channels, Path(folder), edge)
        found = find_ids(job, None if inside is None else StoredLabels(inside))
        tables = [table.columns for _, table in measure_owned(job, larger=inside is not None)]
    columns = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    order = np.argsort(columns["label"])
    assert columns["label"][order].tolist() == list(range(1, found.count + 1))
    rows = {name: column[order] for name, column in columns.items()}
    return found, rows | {"label": rows.pop("id")}


@given(
    st.sampled_from([2, 3]).flatmap(lambda dims: label_images(dims, 7)),
    st.integers(0, 2**31 - 2),
    st.integers(2, 8),
    st.sampled_from([None, Ring(), Ring(0, 2)]),
    st.booleans(),
)
@settings(deadline=None, max_examples=50)
def test_rows_are_those_of_memory_whatever_the_ids_and_the_super_blocks(labels, seed, edge, ring, has_parents):
    random = np.random.default_rng(seed)
    ids = np.append(0, np.sort(random.choice(2**31 - 1, labels.max(), replace=False) + 1)).astype(np.int32)
    names = ids[labels]  # in pieces, here and there
    inside = random.choice([0, 5, 7, 2**30], labels.shape).astype(np.int32) if has_parents else None
    further, grid = {"GFP": pixels(labels.shape, 1)[0]}, Grid(labels.shape, (0.5,) * labels.ndim, "um")
    found, rows = measure_in_parts(names, grid, further, edge, ring, inside)
    whole = measure_labels(names, {"a": pixels(labels.shape, 1)[0], **further}, grid, inside=inside, ring=ring)
    if inside is not None:
        rows["parent"] = np.where(rows["parent"] > 0, rows["parent"].astype(object), None)
        counts = dict(zip(*(part.tolist() for part in found.inside), strict=True))
        larger = whole.parents.columns
        assert [counts.get(label, 0) for label in larger["label"].tolist()] == larger["count_inside"].tolist()
        assert found.crossing == whole.objects.columns["crosses"].sum()
        assert found.without_parent == sum(parent is None for parent in whole.objects.columns["parent"])
    assert list(rows) == list(whole.objects.columns)
    for name, column in whole.objects.columns.items():
        np.testing.assert_array_equal(rows[name], column, err_msg=name)


def test_labels_without_an_image_have_positions_and_shapes():
    labels = np.zeros((9, 9), np.int32)
    labels[2:7, 3:8] = 40
    found, rows = measure_in_parts(labels, Grid(labels.shape), {}, 4, Ring())
    assert (found.count, rows["area_px"].tolist(), rows["label"].tolist()) == (1, [25], [40])
    assert not any("intensity" in name for name in rows)


@given(
    st.sampled_from([(7, 8), (4, 5, 6)]), st.integers(0, 10**6), st.floats(0.05, 0.6), st.integers(2, 5), st.booleans()
)
@settings(deadline=None, max_examples=30)
def test_pieces_of_a_mask_are_those_of_the_whole_image(shape, seed, share, edge, is_sparse):
    mask = np.random.default_rng(seed).random(shape) < share
    if is_sparse:
        mask[tuple(slice(n // 2, None) for n in shape)] = False
    with tempfile.TemporaryDirectory() as folder:
        found = count_pieces(StoredLabels(mask), shape, lattice(shape, (edge,) * len(shape)), Path(folder))
    assert found == ndimage.label(mask, np.ones((3,) * len(shape)))[1]


@pytest.mark.parametrize("buffered", [1, 5, 1000])
def test_rows_of_one_id_come_together(tmp_path, monkeypatch, buffered):
    monkeypatch.setattr("biounet.measurement.id_rows._BUFFERED", buffered)
    monkeypatch.setattr("biounet.measurement.id_rows._FEWEST", 1)
    random = np.random.default_rng(0)
    pieces = [random.integers(0, 30, (n, 2)) for n in (0, 40, 7, 1)]
    paths = [tmp_path / f"{n}.npy" for n in range(len(pieces))]
    for path, piece in zip(paths, pieces, strict=True):
        save_rows(path, piece)
    parts = list(join_rows(paths))
    assert all(one[-1, 0] < other[0, 0] for one, other in pairwise(parts))
    joined = np.concatenate(parts)
    assert sorted(map(tuple, joined)) == sorted(map(tuple, np.concatenate(pieces)))


def test_pieces_may_be_more_than_the_files_that_a_process_may_open(tmp_path):
    resource = pytest.importorskip("resource")
    paths, ids = [tmp_path / f"{number}.npy" for number in range(300)], np.arange(100)
    for number, path in enumerate(paths):
        save_rows(path, np.stack([ids, np.full(100, number)], axis=1))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, before[1]))
        rows = np.concatenate(list(join_rows(paths)))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert rows.tolist() == [[i, number] for i in ids for number in range(300)]
