"""Overlays of volumes: square pixels, upright patients, and slices through the largest object."""

import numpy as np
import pytest

from biounet.core import Grid
from biounet.reporting.overlays import MAX_SIDE, draw_outlines
from biounet.reporting.panels import nice_length
from biounet.reporting.volume_overlays import compose_volume

UPRIGHT = ((-1.0, 0, 0, 0), (0, -1.0, 0, 0), (0, 0, -1.0, 0))  # x to the left, y to the back, z to the feet


def draw_volume(image, labels, grid, fill=0.0):
    """Draw without the names of the panels."""
    return draw_outlines(compose_volume(image, labels, grid, classes=fill > 0, names=False), fill)


def volume(shape=(8, 16, 16)):
    image = np.zeros((1, *shape), np.uint16)
    labels = np.zeros(shape, np.int32)
    labels[2:6, 4:12, 4:12] = 1
    image[0, labels > 0] = 1000
    return image, labels


def test_anisotropic_voxels_are_drawn_to_scale():
    image, labels = volume()
    cube = draw_volume(image, labels, Grid(labels.shape, (2.0, 1.0, 1.0), "um"))
    # xy and two projections of 16 x 16; below them xz and yz, 8 planes of twice the length, as wide as those: no gap
    assert cube.shape == (256 + 4 + 386, 3 * 256 + 2 * 4, 3)
    flat = draw_volume(image, labels, Grid(labels.shape))
    assert flat.shape == (256 + 4 + 193, 3 * 256 + 2 * 4, 3)


def test_panels_fill_the_picture():
    """No row ends before the others, whatever the shape; only the gaps between panels are black."""
    for shape in ((8, 16, 16), (3, 40, 17), (30, 9, 50), (1, 16, 16)):
        image = np.full((1, *shape), 200, np.uint8)
        image[0, 0, 0, 0] = 100
        for classes in (False, True):
            labels = np.ones(shape, np.int32)
            canvas = compose_volume(image, labels, Grid(shape, (2.0, 1.0, 1.0), "um"), classes=classes, names=False)
            assert (canvas.labels > 0).any(axis=1).mean() > 0.9
            assert max(canvas.labels.shape) <= MAX_SIDE
            drawn = (canvas.labels > 0) | canvas.picture.any(axis=2)
            assert drawn.mean() > 0.9, (shape, classes)


def test_panels_are_named_and_say_their_scale():
    image, labels = volume((8, 64, 64))
    grid = Grid(labels.shape, (2.0, 1.0, 1.0), "um")
    plain, named = (compose_volume(image, labels, grid, names=names) for names in (False, True))
    changed = (plain.picture != named.picture).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert np.array_equal(plain.labels, named.labels)
    assert rows.min() < 20
    assert (columns > 520).any()  # also of the last panel of a row
    unknown = (compose_volume(image, labels, Grid(labels.shape), names=names).picture for names in (False, True))
    without = np.logical_or.reduce(next(unknown) != next(unknown), axis=2)
    assert without.sum() < changed.sum()


@pytest.mark.parametrize(("pixel", "most", "length"), [(0.65, 100, 50), (1.0, 5, 5), (0.3, 20, 5), (2.0, 100, 200)])
def test_bars_of_scale_have_round_lengths(pixel, most, length):
    found, pixels = nice_length(pixel, most)
    assert found == length
    assert pixels == round(length / pixel) <= most


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
    colours = drawn[:256, 520:776]
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
    axial = drawn[:297, :297].any(axis=2)  # the first of four panels in a row of 1200 pixels
    assert axial[188:210, 188:210].all()
    assert not axial[:180, :180].any()
