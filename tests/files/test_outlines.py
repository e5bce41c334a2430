"""Labels become outlines along the corners of their pixels, and outlines become the same labels again."""

import numpy as np
import pytest
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from biounet.core import UNLABELLED, InputError
from biounet.files.outlines.fill import Overlap, fill, fill_windows, number_objects
from biounet.files.outlines.outline import Outline, Plane
from biounet.files.outlines.trace import trace

NECK = np.array([[1, 0, 0], [0, 1, 1], [0, 1, 0]])  # touches itself at a corner only
NOTCH = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]])  # its hole touches the outside at a corner
ISLAND = np.array([[1, 1, 1, 1, 1], [1, 0, 0, 0, 1], [1, 0, 2, 1, 1], [1, 0, 0, 1, 0], [1, 1, 1, 1, 1]])
IN_RING = np.array([[1, 1, 1, 1, 1], [1, 0, 0, 0, 1], [1, 0, 1, 0, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1]])


def label_images(most=5):
    shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)
    return st.integers(1, most).flatmap(lambda n: hnp.arrays(np.int32, shapes, elements=st.integers(0, n)))


def as_outlines(labels):
    """Each object as one outline of all its rings."""
    traced = trace(labels)
    return [Outline(tuple(r.astype(float) for polygon in polygons for r in polygon)) for _, polygons in traced], traced


def square(y, x, size=2.0, **others):
    return Outline((np.array([[y, x], [y, x + size], [y + size, x + size], [y + size, x]]),), **others)


@settings(max_examples=300, deadline=None)
@example(NECK)
@example(NOTCH)
@example(ISLAND)
@example(IN_RING)
@example(np.zeros((2, 3), np.int32))
@given(label_images())
def test_filled_outlines_are_the_labels_again(labels):
    outlines, traced = as_outlines(labels)
    filled = fill(outlines, labels.shape, values=traced.labels.tolist())
    np.testing.assert_array_equal(filled.labels, labels)
    assert (filled.overlaps, filled.notes) == ((), ())


@settings(max_examples=300, deadline=None)
@example(NECK)
@example(NOTCH)
@example(ISLAND)
@example(IN_RING)
@given(label_images(most=2))
def test_every_polygon_is_valid_and_has_the_area_of_its_pixels(labels):
    for label, polygons in trace(labels):
        shapes = [shapely.Polygon(rings[0], rings[1:]) for rings in polygons]
        assert all(shape.is_valid for shape in shapes)
        assert shapely.MultiPolygon(shapes).is_valid
        assert sum(shape.area for shape in shapes) == (labels == label).sum()
        for rings in polygons:
            assert [shapely.LinearRing(ring[:, ::-1]).is_ccw for ring in rings] == [True] + [False] * (len(rings) - 1)


def test_a_notch_that_touches_the_outside_at_a_corner_is_a_hole():
    [(label, [(exterior, hole)])] = trace(NOTCH)
    assert label == 1
    assert exterior.tolist() == [[0, 0], [0, 3], [2, 3], [2, 2], [3, 2], [3, 0]]
    assert hole.tolist() == [[1, 2], [1, 1], [2, 1], [2, 2]]


def test_pixels_that_touch_at_a_corner_only_are_two_polygons():
    [(_, polygons)] = trace(NECK)
    assert [rings[0].tolist() for rings in polygons] == [
        [[0, 0], [0, 1], [1, 1], [1, 0]],
        [[1, 1], [1, 3], [2, 3], [2, 2], [3, 2], [3, 1]],
    ]


def test_labels_are_found_by_value_and_unlabelled_space_has_no_outline():
    traced = trace(np.array([[7, UNLABELLED, 3]]))
    assert traced.labels.tolist() == [3, 7]
    assert [len(traced.polygons(label)) for label in (3, 7, 5, -1)] == [1, 1, 0, 0]


def test_the_outlines_of_large_images_are_traced_over_all_bands(monkeypatch):
    monkeypatch.setattr("biounet.files.outlines.trace._BAND", 7)
    [(_, [(exterior, hole)])] = trace(np.pad(np.zeros((3, 3), int), 1, constant_values=1))
    assert (exterior.tolist(), hole.tolist()) == ([[0, 0], [0, 5], [5, 5], [5, 0]], [[1, 4], [1, 1], [4, 1], [4, 4]])


def test_the_later_outline_lies_on_top_and_all_pairs_are_counted():
    filled = fill([square(0, 0), square(1, 1), square(1, 1, 1)], (3, 3))
    assert filled.labels.tolist() == [[1, 1, 0], [1, 3, 2], [0, 2, 2]]
    assert filled.overlaps == (Overlap(0, 1, 1), Overlap(0, 2, 1), Overlap(1, 2, 1))


def test_overlaps_may_be_unlabelled():
    filled = fill([square(0, 0), square(1, 1), square(1, 1, 1)], (3, 3), "unlabelled")
    assert filled.labels.tolist() == [[1, 1, 0], [1, -1, 2], [0, 2, 2]]
    assert len(filled.overlaps) == 3


def test_pieces_of_one_object_do_not_overlap():
    filled = fill([square(0, 0, object_number=9), square(1, 1, object_number=9)], (3, 3))
    assert filled.labels.tolist() == [[9, 9, 0], [9, 9, 9], [0, 9, 9]]
    assert filled.overlaps == ()


@given(st.floats(0, 4, width=32), st.floats(0, 4, width=32), st.floats(0, 4, width=32))
def test_objects_with_a_side_in_common_share_no_pixel_and_leave_none_out(top, middle, bottom):
    left = Outline((np.array([[0, 0], [0, top], [2.25, middle], [4, bottom], [4, 0]]),))
    right = Outline((np.array([[4, 4], [4, bottom], [2.25, middle], [0, top], [0, 4]]),))
    filled = fill([left, right], (4, 4))
    assert filled.overlaps == ()
    assert (filled.labels > 0).all()


def test_outlines_of_other_programs():
    nan = Outline((np.array([[0, 0], [0, 2], [2, 2], [2, np.nan]]),), name="lost")
    line = Outline((np.array([[0.0, 0], [3, 3], [0, 0]]),), name="line")
    far = Outline((np.array([[-1e308, 0], [1e308, 2], [2, 1e308]]),), name="far")
    closed = Outline((np.array([[0.0, 0], [0, 2], [2, 2], [2, 0], [0, 0]]),))
    filled = fill(
        [nan, line, closed, square(-2, -1.5), square(3, 3, 9.0), square(1.1, 1.1, 0.2), square(4, 0), far], (4, 4)
    )
    assert filled.labels.tolist() == [[3, 3, 0, 0], [3, 3, 0, 0], [0, 0, 0, 0], [0, 0, 0, 5]]
    assert filled.values.tolist() == [0, 0, 3, 0, 5, 0, 0, 0]
    assert filled.notes == (
        "1 outline (line): fewer than 3 points: left out",
        "2 outlines (lost, far): coordinates that are no numbers, or beyond any image: left out",
        "2 outlines (number 4, number 7): outside the image: left out",
        "1 outline (number 6): no centre of a pixel within: left out",
        "1 outline (number 5): beyond the edge of the image: cut there",
    )


def test_an_outline_around_pixels_twice_is_reported():
    twice = np.array([[0.0, 0], [0, 3], [3, 3], [3, 0], [0, 0], [0, 2], [2, 2], [2, 0]])
    filled = fill([Outline((twice,), name="spiral")], (3, 3))
    assert filled.labels.tolist() == [[0, 0, 1], [0, 0, 1], [1, 1, 1]]
    assert filled.notes == ("1 outline (spiral): crosses itself: where it lies on itself is left out",)


def test_an_outline_like_an_eight_is_reported_and_one_that_touches_itself_is_not():
    eight = Outline((np.array([[0.0, 0], [4, 4], [0, 4], [4, 0]]),), name="eight")
    filled = fill([eight], (4, 4))
    assert filled.labels.tolist() == [[1, 0, 0, 0], [1, 1, 0, 1], [1, 1, 0, 1], [1, 0, 0, 0]]
    assert filled.notes == ("1 outline (eight): crosses itself: where it lies on itself is left out",)
    touching = Outline((np.array([[0.0, 0], [0, 1], [1, 1], [1, 2], [2, 2], [2, 1], [1, 1], [1, 0]]),))
    assert fill([touching], (2, 2)).labels.tolist() == [[1, 0], [0, 1]]
    assert fill([touching], (2, 2)).notes == ()


def test_outlines_of_another_image_are_refused():
    with pytest.raises(InputError, match=r"all 2 outlines lie outside the image, which is 4 x 3 pixels"):
        fill([square(3, 0), square(50, 60)], (3, 4))


def test_planes_are_the_slices_of_a_volume():
    outlines = [square(0, 0, plane=Plane(z=1), object_number=4), square(0, 0, plane=Plane(z=0), object_number=4)]
    assert fill(outlines, (3, 2, 2)).labels[:, 0, 0].tolist() == [4, 4, 0]
    with pytest.raises(InputError, match="outlines of 2 slices, but the image has one"):
        fill(outlines, (2, 2))
    with pytest.raises(InputError, match="outlines of 2 frames, but the image has one"):
        fill([square(0, 0, plane=Plane(t=t)) for t in (0, 1)], (2, 2))
    with pytest.raises(InputError, match="slice 1, and the volume has slices 0 to 0"):
        fill(outlines, (1, 2, 2))
    with pytest.raises(InputError, match="outline A states no slice"):
        fill([square(0, 0, name="A")], (3, 2, 2))


def test_windows_are_no_objects():
    outlines = [square(0, 0, 1), square(0, 0, 3, is_window=True)]
    assert fill(outlines, (4, 4)).labels.sum() == 1
    assert fill_windows(outlines, (4, 4)).sum() == 9
    assert fill_windows(outlines[:1], (4, 4)) is None


def test_objects_are_numbered_as_they_come_unless_all_have_numbers():
    def numbers(*given_numbers):
        return number_objects([square(0, 0, object_number=n) for n in given_numbers])

    assert numbers(None, None) == [1, 2]
    assert numbers(7, 5, 7) == [7, 5, 7]
    assert numbers(7, None, 7, None) == [1, 2, 1, 3]
    others = [square(0, 0, is_window=True), Outline(())]  # a window and a point
    assert number_objects([*others, square(0, 0), square(3, 3)]) == [0, 0, 1, 2]
    assert number_objects([*others, square(0, 0, object_number=5)]) == [0, 0, 5]
