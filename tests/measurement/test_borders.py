"""Objects at the edge of an image: which count, how often, and that density and size have no bias."""

import numpy as np
import pytest
from scipy import ndimage

from biounet.core import Grid
from biounet.measurement import Boxes, FrameCounts, acquired_part, border_weights, frame_figures, frame_notes
from biounet.measurement.borders import frame_size, in_counting_frame


def boxes(labels):
    """Lowest and highest index of each object."""
    found = ndimage.find_objects(labels)
    return (
        np.array([[s.start for s in box] for box in found]).reshape(-1, labels.ndim),
        np.array([[s.stop - 1 for s in box] for box in found]).reshape(-1, labels.ndim),
    )


def test_what_touches_the_last_row_or_column_is_outside_the_frame():
    labels = PICTURE
    low, high = boxes(labels)
    assert in_counting_frame(high, labels.shape).tolist() == [True, False, True, False, False]
    assert frame_size(labels.shape) == 3 * 4
    assert frame_size(labels.shape, (0.5, 2.0)) == 3 * 0.5 * 4 * 2
    # object 3 is 2 high and 1 wide: it has 4 - 1 - 2 = 1 place along y and 5 - 1 - 1 = 3 along x
    assert border_weights(Boxes(low, high), labels.shape).tolist() == [0, 0, 4 * 5 / (1 * 3), 0, 0]


def test_an_empty_image_has_no_weights():
    none = np.empty((0, 2), int)
    assert border_weights(Boxes(none, none), (8, 8)).shape == (0,)
    assert in_counting_frame(none, (8, 8)).shape == (0,)


PICTURE = np.array(
    [
        [1, 0, 0, 0, 2],
        [0, 0, 3, 0, 0],
        [0, 0, 3, 0, 0],
        [4, 0, 0, 5, 0],
    ]
)


def counts(labels, grid, acquired=None):
    return FrameCounts.of(Boxes(*boxes(labels)), grid, acquired_part(grid, acquired))


def figures(labels, spacing=None, acquired=None, **options):
    grid = Grid(labels.shape, spacing, None if spacing is None else "um")
    return frame_figures(counts(labels, grid, acquired), grid, **options)


def notes(labels, acquired=None):
    return [str(note) for note in frame_notes(counts(labels, Grid(labels.shape), acquired))]


def test_density_is_objects_in_the_frame_per_area_of_the_frame():
    assert figures(PICTURE) == {"count_in_frame": 2}
    assert figures(PICTURE, (100.0, 50.0)) == {"count_in_frame": 2, "area_mm2": 0.06, "density_per_mm2": 33.3333}


def test_what_was_not_acquired_is_outside_the_frame():
    wide = np.pad(PICTURE, ((0, 3), (2, 0)))
    acquired = np.pad(np.ones(PICTURE.shape, bool), ((0, 3), (2, 0)))
    assert figures(wide, (100.0, 50.0), acquired=acquired) == figures(PICTURE, (100.0, 50.0))
    assert notes(wide, acquired) == []
    acquired[0, 2] = False  # no rectangle any more
    assert "no counting frame" in notes(wide, acquired)[0]
    assert figures(wide, (100.0, 50.0), acquired=acquired) == {
        "count_in_frame": None,
        "area_mm2": None,
        "density_per_mm2": None,
    }
    assert figures(wide, acquired=np.zeros_like(acquired)) == {"count_in_frame": None}


def test_without_the_objects_at_the_border_the_frame_counts_nothing():
    assert figures(PICTURE, complete=False) == {"count_in_frame": None}


def test_a_thin_stack_is_counted_per_area():
    stack = np.zeros((3, *PICTURE.shape), int)
    stack[1] = PICTURE
    spacing = (100.0, 100.0, 50.0)
    assert figures(stack, spacing) == {"count_in_frame": 2, "volume_mm3": 0.012, "density_per_mm3": 166.667}
    assert notes(stack) == []
    stack[:, 1, 2] = 3
    assert notes(stack) == ["objects reach through all planes: density is per area"]
    assert figures(stack, spacing) == figures(PICTURE, (100.0, 50.0))
    assert figures(PICTURE[None], spacing) == figures(PICTURE, (100.0, 50.0))
    assert figures(np.zeros((1, 1, 9), int), spacing) == {"count_in_frame": 0, "area_mm2": 0.0, "density_per_mm2": None}


def _tissue(size: int, seed: int, dims: int) -> tuple[np.ndarray, float]:
    """Balls of two sizes that do not overlap on a torus; return labels and the mean size of an object."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((size,) * dims, np.int32)
    places = np.indices((13,) * dims) - 6
    sizes = []
    for _ in range(20000):
        radius = rng.choice([1.6, 5.2])
        ball = np.argwhere((places**2).sum(axis=0) <= radius**2) - 6
        where = tuple(((rng.integers(0, size, dims) + ball) % size).T)
        if not labels[where].any():
            labels[where] = len(sizes) + 1
            sizes.append(len(ball))
    return labels, float(np.mean(sizes))


@pytest.mark.parametrize(("size", "crop", "dims"), [(400, 48, 2), (72, 24, 3)])
def test_density_and_mean_size_have_no_bias(size, crop, dims):
    labels, mean_size = _tissue(size, 0, dims)
    density = (len(np.unique(labels)) - 1) / labels.size
    rng = np.random.default_rng(1)
    frame, weighted, plain, volume = [], [], [], []
    for _ in range(400):
        at = rng.integers(0, size, dims)
        part = np.roll(labels, -at, tuple(range(dims)))[(slice(crop),) * dims]
        _, numbered = np.unique(part, return_inverse=True)
        part = numbered.reshape(part.shape)
        low, high = boxes(part)
        sizes = np.bincount(part.ravel())[1:]
        weights = border_weights(Boxes(low, high), part.shape)
        frame.append(in_counting_frame(high, part.shape).sum() / frame_size(part.shape))
        weighted.append(weights.sum() / part.size)
        plain.append(len(sizes) / part.size)
        volume.append((weights @ sizes, weights.sum()))
    assert np.mean(frame) == pytest.approx(density, rel=0.02)
    assert np.mean(weighted) == pytest.approx(density, rel=0.03)
    assert np.mean(plain) > 1.1 * density
    totals = np.sum(volume, axis=0)
    assert totals[0] / totals[1] == pytest.approx(mean_size, rel=0.03)
