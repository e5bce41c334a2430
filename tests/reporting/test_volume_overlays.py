"""Overlays of volumes: square pixels, upright patients, and slices through the largest object."""

import numpy as np
import pytest

from biounet.core import Grid
from biounet.reporting.volume_overlays import draw_volume

UPRIGHT = ((-1.0, 0, 0, 0), (0, -1.0, 0, 0), (0, 0, -1.0, 0))  # x to the left, y to the back, z to the feet


def volume(shape=(8, 16, 16)):
    image = np.zeros((1, *shape), np.uint16)
    labels = np.zeros(shape, np.int32)
    labels[2:6, 4:12, 4:12] = 1
    image[0, labels > 0] = 1000
    return image, labels


def test_anisotropic_voxels_are_drawn_to_scale():
    image, labels = volume()
    cube = draw_volume(image, labels, Grid(labels.shape, (2.0, 1.0, 1.0), "um"))
    # axial 16 x 16, coronal and sagittal 8 planes of twice the length: three squares of 256 pixels, gaps of 4
    assert cube.shape == (256 + 4 + 256, 3 * 256 + 2 * 4, 3)
    flat = draw_volume(image, labels, Grid(labels.shape))
    coronal = flat[:256, 260:516]
    assert coronal[:128].any()
    assert not coronal[128:].any()


def test_slices_intersect_the_largest_object():
    labels = np.zeros((9, 32, 32), np.int32)
    labels[1, 2:5, 2:5] = 1
    labels[5:8, 20:30, 20:30] = 2
    drawn = draw_volume(np.zeros((1, *labels.shape), np.uint8), labels, Grid(labels.shape))
    axial = drawn[:256, :256].any(axis=2)
    assert axial[160:240, 160:240].any()
    assert not axial[:150, :150].any()


@pytest.mark.parametrize("flipped", [(), (0,), (1,), (2,), (0, 1, 2)])
def test_patients_are_upright_in_any_storage_order(flipped):
    random = np.random.default_rng(0)
    image, labels = random.integers(0, 255, (1, 6, 16, 16)).astype(np.uint8), np.zeros((6, 16, 16), np.int32)
    labels[4, 9:13, 2:6] = 1
    plain = draw_volume(image, labels, Grid(labels.shape, (1.0,) * 3, "mm", UPRIGHT), fill=0.4)
    assert np.array_equal(plain, draw_volume(image, labels, Grid(labels.shape, (1.0,) * 3, "mm"), fill=0.4))
    rows = [list(row) for row in UPRIGHT]
    for axis in flipped:
        rows[axis][axis] *= -1  # row right, anterior, superior, of column x, y, z
    axes = [3 - axis for axis in flipped]
    turned = draw_volume(
        np.flip(image, axes) if axes else image,
        np.flip(labels, [axis - 1 for axis in axes]) if axes else labels,
        Grid(labels.shape, (1.0,) * 3, "mm", tuple(map(tuple, rows))),
        fill=0.4,
    )
    assert np.array_equal(plain, turned)


def test_sagittal_volumes_are_reoriented():
    image, labels = volume((16, 16, 8))
    image, labels = image + np.arange(16, dtype=np.uint16)[:, None, None], labels * 0
    labels[4:12, 4:12, 2:6] = 1
    plain = draw_volume(image, labels, Grid(labels.shape, (1.0, 1.0, 2.0), "mm", ((-2.0, 0, 0, 0), *UPRIGHT[1:])))
    affine = ((0, 0, -2.0, 0), (-1.0, 0, 0, 0), (0, -1.0, 0, 0))  # array axes: x is y, y is z, z is x
    moved = Grid((8, 16, 16), (2.0, 1.0, 1.0), "mm", affine)
    assert np.array_equal(plain, draw_volume(image.transpose(0, 3, 1, 2), labels.transpose(2, 0, 1), moved))


def test_objects_have_their_colours_in_the_projection():
    image, labels = volume()
    labels[2:6, 4:12, 8:12] = 2
    drawn = draw_volume(image, labels, Grid(labels.shape))
    colours = drawn[260:516, 260:516]
    left, right = colours[128, 96], colours[128, 160]
    assert left.any()
    assert right.any()
    assert not np.array_equal(left, right)


def test_volumes_without_labels():
    image = np.arange(4 * 5 * 6, dtype=np.float32).reshape(1, 4, 5, 6)
    for fill in (0.0, 0.4):
        assert draw_volume(image, np.zeros((4, 5, 6), np.int32), Grid((4, 5, 6)), fill=fill).any()


def test_a_class_has_one_colour_in_all_slices():
    labels = np.ones((12, 16, 16), np.int32)
    image = np.full((1, *labels.shape), 10, np.uint8)
    image[0, 6:] = 240
    image[0, 0, 0, 0], image[0, 0, 0, 1] = 0, 255
    drawn = draw_volume(image, labels, Grid(labels.shape), fill=1.0)
    shown = drawn[drawn.any(axis=2)]
    assert len(np.unique(shown, axis=0)) == 1


def test_slices_intersect_the_largest_lesion():
    labels = np.zeros((9, 32, 32), np.int32)
    for place in range(4):  # more voxels of this class than of the other, none of them in a large lesion
        labels[1, 2 + 6 * place, 2:10] = 1
    labels[5:8, 20:23, 20:23] = 2
    drawn = draw_volume(np.zeros((1, *labels.shape), np.uint8), labels, Grid(labels.shape), fill=0.4)
    axial = drawn[:256, :256].any(axis=2)
    assert axial[165:180, 165:180].all()
    assert not axial[:150, :150].any()
