"""Sizes of objects, as users type them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from biounet.core import Grid, InputError, ObjectSize, SettingsError, as_object_size

HALF_MICRON = Grid((10, 10), (0.5, 0.5), "um")
MRI = Grid((10, 10, 10), (2.0, 1.0, 1.0), "mm")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("20um2", ObjectSize(20, "um", 2)),
        ("20 µm²", ObjectSize(20, "um", 2)),
        (" 20 μm2", ObjectSize(20, "um", 2)),  # the Greek letter
        ("1.5UM3", ObjectSize(1.5, "um", 3)),
        ("5mm3", ObjectSize(5, "mm", 3)),
        ("30px", ObjectSize(30)),
        ("30", ObjectSize(30)),
        (30, ObjectSize(30)),
        (0.5, ObjectSize(0.5)),
    ],
)
def test_a_size_is_read_as_it_is_typed(text, size):
    assert as_object_size(text, "min_size") == size


@pytest.mark.parametrize("text", ["", "px", "20um", "20px2", "-3px", "1.2.3px", "20nm2", "inf", "nan", None, True, [3]])
def test_anything_else_is_refused_with_an_example(text):
    with pytest.raises(SettingsError, match=r"min_size .* is not the size of an object .*30px, 20um2"):
        as_object_size(text, "min_size")


def test_areas_and_volumes_are_counted_in_voxels():
    assert ObjectSize(20, "um", 2).in_voxels(HALF_MICRON) == 80
    assert ObjectSize(6, "mm", 3).in_voxels(MRI) == 3
    assert ObjectSize(3e9, "um", 3).in_voxels(MRI) == pytest.approx(1.5)
    assert ObjectSize(30).in_voxels(MRI) == 30


def test_a_size_belongs_to_the_smallest_and_the_largest_object():
    assert (ObjectSize(20, "um", 2).as_smallest(HALF_MICRON), ObjectSize(20, "um", 2).as_largest(HALF_MICRON)) == (
        80,
        80,
    )
    assert (ObjectSize(2.5).as_smallest(MRI), ObjectSize(2.5).as_largest(MRI)) == (3, 2)


def test_a_physical_size_needs_a_pixel_size_and_an_area_an_image():
    with pytest.raises(InputError, match=r"a size of 20 µm², but the pixel size is unknown .*--spacing"):
        ObjectSize(20, "um", 2).in_voxels(Grid((10, 10)))
    with pytest.raises(SettingsError, match=r"a size of 20 µm² for a volume .*200um3"):
        ObjectSize(20, "um", 2).in_voxels(MRI)


@given(st.floats(0, 1e9), st.sampled_from([None, "um", "mm"]), st.sampled_from([2, 3]))
def test_a_size_reads_back_as_it_is_shown(value, unit, dims):
    size = ObjectSize(float(f"{value:.3f}"), unit, dims if unit else 0)
    shown = str(size)
    if "e" not in shown:
        assert str(as_object_size(shown, "size")) == shown
