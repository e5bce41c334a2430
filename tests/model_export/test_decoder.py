"""The decoder that goes with a package gives the labels of biounet, on any maps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from biounet.core import LabelSettings
from biounet.labelling import label_objects
from biounet.model_export.decoder import LabelObjects


def smooth_maps(seed, shape, blur):
    """Return maps that look like those of a network: a third of the image is foreground, in clumps and with holes."""
    rng = np.random.default_rng(seed)
    noise = [ndimage.gaussian_filter(rng.random(shape), blur) for _ in range(3)]
    foreground, contour, distance = ((one - one.min()) / max(np.ptp(one), 1e-9) for one in noise)
    return [np.rint(one * 65535) / 65535 for one in (foreground, contour, distance * foreground)]


def both(maps, chosen):
    decoder = LabelObjects(**chosen.model_dump(exclude={"min_size_unit"}))
    own = label_objects(*(np.rint(one * 65535).astype(np.uint16) for one in maps), chosen)
    return decoder(*(one[None, None] for one in maps)), own.labels


@given(
    seed=st.integers(0, 10**6),
    shape=st.one_of(st.tuples(*[st.integers(1, 40)] * 2), st.tuples(*[st.integers(1, 14)] * 3)),
    blur=st.floats(0, 4),
    chosen=st.builds(
        LabelSettings,
        foreground=st.floats(0.1, 0.9),
        contour=st.floats(0, 2),
        join=st.floats(0, 1),
        min_peak=st.floats(0, 0.6),
        min_size=st.integers(0, 30),
        fill_holes=st.booleans(),
    ),
)
@settings(max_examples=150, deadline=None)
def test_labels_are_those_of_biounet(seed, shape, blur, chosen):
    found, own = both(smooth_maps(seed, shape, blur), chosen)
    np.testing.assert_array_equal(found[0, 0], own)


def test_images_of_a_batch_are_labelled_one_by_one():
    maps = [
        np.stack(pair)[:, None] for pair in zip(smooth_maps(1, (40, 50), 3), smooth_maps(2, (40, 50), 3), strict=True)
    ]
    decoder = LabelObjects()
    together = decoder(*maps, "further outputs are ignored")
    assert together.dtype == np.int32
    assert together.max() > 3
    for number in range(2):
        np.testing.assert_array_equal(together[number], decoder(*(one[number, None] for one in maps))[0])


@pytest.mark.parametrize(
    ("rows", "filled"),
    [
        (["11111", "1...1", "1.2.1", "1...1", "11111"], False),
        (["11111", "1...1", "1...1", "11111"], True),
        (["11111", "1...1", "1...1", "11.11"], False),
        (["1111", "1..1", "2222"], False),
    ],
    ids=["holds an object", "enclosed", "open", "between two"],
)
def test_holes_are_what_one_object_encloses(rows, filled):
    from biounet.model_export.decoder import _fill_holes

    labels = np.array([[int(letter) if letter != "." else 0 for letter in row] for row in rows], np.int32)
    assert (_fill_holes(labels) == 0).any() != filled
