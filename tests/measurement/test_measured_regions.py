"""Objects of an image that is read in parts: their rows are those of the whole image, to the last bit."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from biounet.core import Grid, InputError
from biounet.measurement import MeasuredChannels, Ring, measure_objects, measure_region
from support.label_images import blobs, label_images, picture, pixels, without_gaps
from support.super_blocks import CountedLabels, lattice, lazy, objects_of, owned

RINGS = [None, Ring(), Ring(0, 2), Ring(0.5, 30)]
NOTHING = MeasuredChannels()
STEPS = [None, (1.0, 1.0, 1.0), (3.0, 0.5, 0.7), (0.3, 0.3, 1.1)]


def rows_by_label(tables):
    """Return the columns of several tables together, in the order of the labels."""
    columns = {name: np.concatenate([table.columns[name] for table in tables]) for name in tables[0].columns}
    order = np.argsort(columns["label"])
    return {name: column[order] for name, column in columns.items()}


def assert_same_columns(ours, whole):
    assert list(ours) == list(whole)
    for name, column in whole.items():
        assert ours[name].dtype == column.dtype, name
        np.testing.assert_array_equal(ours[name], column, err_msg=name)


def measure_in_parts(labels, grid, channels, edges, ring=None, background=None):
    objects, first = objects_of(labels, np.linspace(0, 1, labels.max()))
    image, names = lazy(labels, grid, channels), tuple("abc"[: len(channels)])
    measured = MeasuredChannels(names, ring=ring, background=background or {})
    reader = CountedLabels(labels)
    cores = lattice(labels.shape, edges)
    return [measure_region(owned(objects, first, core), core, reader, image, measured) for core in cores], reader


@given(
    st.sampled_from([2, 3]).flatmap(lambda dims: label_images(dims, 7)),
    st.tuples(*[st.integers(1, 8)] * 3),
    st.sampled_from(RINGS),
    st.sampled_from(STEPS),
    st.sampled_from(["u1", "u2", "i8", "f4", "f8"]),
)
@example(blobs(90, 20), (40, 30, 50), Ring(), (0.5, 0.5, 0.25), "f4")
@example(blobs(200, 150), (64, 64, 64), None, None, "u2")
@settings(deadline=None, max_examples=150)
def test_rows_of_super_blocks_are_those_of_the_whole_image(labels, edges, ring, steps, dtype):
    dims = labels.ndim
    grid = Grid(labels.shape) if steps is None else Grid(labels.shape, steps[:dims], "um")
    channels = (pixels(labels.shape, 2, "f8") / 7).astype(dtype)
    confidence = np.linspace(0, 1, labels.max())
    whole = measure_objects(labels, channels, grid, confidence, ["a", "b"], ring).columns
    background = {name: whole[f"background_{name}"][0] for name in "ab" if ring and labels.max()}
    tables, _ = measure_in_parts(labels, grid, channels, edges[:dims], ring, background)
    assert_same_columns(rows_by_label(tables), whole)


@given(st.data())
@settings(deadline=None, max_examples=30)
def test_a_region_is_hardly_larger_than_its_super_block(data):
    labels = blobs(160, 60)
    edge = data.draw(st.integers(40, 160))
    _, reader = measure_in_parts(labels, Grid(labels.shape), pixels(labels.shape, 1), (edge, edge))
    assert reader.largest <= max((edge * 5 / 4 + 1) ** 2, 41**2)


def test_an_object_larger_than_its_super_block_is_measured_in_its_own_box():
    labels = picture("1111111.. 1.....1.. 1.22..1.3 1.....1.. 1111111..")
    grid, channels = Grid(labels.shape), pixels(labels.shape, 1)
    whole = measure_objects(labels, channels, grid, np.linspace(0, 1, 3), ["a"]).columns
    tables, _ = measure_in_parts(labels, grid, channels, (2, 3))
    assert [len(table.columns["label"]) for table in tables] == [1, 0, 0, 1, 0, 1, 0, 0, 0]
    assert_same_columns(rows_by_label(tables), whole)


def test_labels_that_are_not_those_that_were_numbered_are_an_error():
    labels = picture("11.2")
    objects, _ = objects_of(labels)
    image = lazy(labels, Grid(labels.shape), pixels(labels.shape, 1))
    with pytest.raises(InputError, match="object 1 has 1 voxels, not 2"):
        measure_region(objects, (slice(0, 1), slice(0, 4)), lambda region: picture("1..2")[region], image, NOTHING)


def test_further_channels_are_measured_with_rings_and_those_of_the_model_keep_their_names():
    labels, grid = picture("1..2"), Grid((1, 4), (0.5, 0.5), "um")
    image = lazy(labels, grid, pixels(labels.shape, 1), {"GFP": np.arange(4)[None]})
    channels = MeasuredChannels.of(image, ("DNA",), Ring(0, 1))
    assert (channels.names, channels.further, channels.ring) == (("DNA",), True, Ring(0, 1))
    objects, _ = objects_of(labels)
    columns = measure_region(objects, (slice(0, 1), slice(0, 4)), CountedLabels(labels), image, channels).columns
    assert columns["intensity_mean_GFP"].tolist() == [0, 3]
    assert columns["ring_mean_GFP"].tolist() == [1, 2]
    assert np.isnan(columns["background_GFP"]).all(), "not known yet"
    alone = MeasuredChannels.of(lazy(labels, grid, pixels(labels.shape, 1)), ("DNA",), Ring(0, 1))
    assert (alone.names, alone.further, alone.ring) == (("DNA",), False, None)


@pytest.mark.parametrize("ring", [None, Ring(0.5, 3)])
@pytest.mark.parametrize("shape", [(60, 50), (14, 12, 16)])
def test_an_object_as_large_as_the_image_is_measured_strip_by_strip(shape, ring):
    rng = np.random.default_rng(len(shape))
    labels = without_gaps(np.where(rng.random(shape) < 0.6, 1, rng.integers(0, 9, shape)))
    grid = Grid(shape, (2.0, 0.5, 0.7)[: len(shape)], "um")
    channels = rng.normal(size=(1, *shape)).astype(np.float32)
    confidence = np.linspace(0, 1, labels.max())
    whole = measure_objects(labels, channels, grid, confidence, ["a"], ring).columns
    background = {} if ring is None else {"a": whole["background_a"][0]}
    tables, reader = measure_in_parts(labels, grid, channels, (8,) * len(shape), ring, background)
    assert_same_columns(rows_by_label(tables), whole)
    assert reader.largest < labels.size
