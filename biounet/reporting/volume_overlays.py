"""Pictures of a volume: three slices through the largest object, and below them all of it at one glance.

Where the file says how the patient lies, slices are shown as in radiology: superior and anterior up, and the patient's
right on the left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from biounet.core import Grid, canonical_transform
from biounet.reporting.overlays import LARGEST, Limits, contrast, draw_overlay, palette

Picture = NDArray[np.uint8]

_SMALLEST = 256  # pixels along the longest side of a panel: smaller volumes are shown larger
_MONTAGE, _COLUMNS = 12, 6
_GAP = 4  # pixels between panels
_FURTHEST = 10.0  # times that a voxel is drawn longer along one axis than along the other


class _Look(NamedTuple):
    """What all slices of a volume share, so that an intensity and a class look the same in each."""

    fill: float
    limits: Limits
    ground: float

    @property
    def bright(self) -> bool:
        return self.ground > sum(self.limits) / 2


def draw_volume(array: NDArray[Any], labels: NDArray[Any], grid: Grid, *, fill: float = 0.0) -> Picture:
    """Draw a volume and what was found in it.

    Parameters
    ----------
    array
        Intensities, shape ``(c, z, y, x)``; the first channel is shown.
    labels
        Objects or classes, shape ``(z, y, x)``; 0 is background.
    grid
        Says how long voxels are along each axis, and how the patient lies.
    fill
        Opacity of the colour inside the outlines. Above 0, for classes, the second row is a montage of slices; at 0,
        for objects, it is the brightest voxel along z, and the same in the colours of the objects.

    Returns
    -------
    RGB, shape ``(y, x, 3)``, with sides of at most `LARGEST` pixels.
    """
    image, names, steps = _upright(array[0], labels, grid)
    look = _Look(fill, contrast(image), float(np.median(image)))
    z, y, x = _middle_of_largest(names if fill == 0 else _connected(names))
    zoom = max(1.0, _SMALLEST / max(names.shape))
    cuts = (((z,), (1, 2)), ((slice(None), y), (0, 2)), ((slice(None), slice(None), x), (0, 1)))
    panels = []
    for cut, (rows, columns) in cuts:
        window = _window(names[cut].shape, (steps[rows], steps[columns]), zoom)
        panels.append(_draw(image[cut][window], names[cut][window], look))
    window = _window(names.shape[1:], steps[1:], zoom if fill == 0 else zoom / 2)
    if fill == 0:
        below = [_beside([part[window] for part in _projections(image, names, look)])]
    else:
        shown = _spread(names)
        slices = [_draw(image[n][window], names[n][window], look) for n in shown]
        below = [_beside(slices[n : n + _COLUMNS]) for n in range(0, len(slices), _COLUMNS)]
    picture = _below([_beside(panels), *below])
    factor = -(-max(picture.shape) // LARGEST)
    return np.ascontiguousarray(picture[::factor, ::factor])


def _upright(
    image: NDArray[Any], labels: NDArray[Any], grid: Grid
) -> tuple[NDArray[Any], NDArray[Any], tuple[float, ...]]:
    """Turn a volume so that its axes run from superior, from anterior and from the patient's right."""
    if grid.axcodes is None:
        return image, labels, grid.steps
    way = canonical_transform(grid)
    # The canonical axes grow away from the end of the body that is shown first.
    image, labels = (way.apply(array)[::-1, ::-1, ::-1] for array in (image, labels))
    return image, labels, tuple(grid.steps[axis] for axis in way.axes)


def _connected(classes: NDArray[Any]) -> NDArray[np.int32]:
    """Return classes as objects: what touches is one, such as a tumour and the oedema around it."""
    from scipy import ndimage  # slow to import

    return np.asarray(ndimage.label(classes > 0, np.ones((3, 3, 3)))[0], np.int32)


def _middle_of_largest(labels: NDArray[Any]) -> tuple[int, ...]:
    """Return the voxel of the largest object that is nearest to its middle; without one, the middle of the volume."""
    inside = labels[labels > 0]
    if not inside.size:
        return tuple(n // 2 for n in labels.shape)
    places = np.argwhere(labels == np.bincount(inside).argmax())
    return tuple(places[np.linalg.norm(places - places.mean(axis=0), axis=1).argmin()].tolist())


def _window(shape: tuple[int, ...], steps: Sequence[float], zoom: float) -> tuple[NDArray[Any], ...]:
    """Return the rows and columns that make a slice a picture with square pixels."""
    unit = max(min(steps), max(steps) / _FURTHEST)
    sizes = [max(1, round(n * step / unit * zoom)) for n, step in zip(shape, steps, strict=True)]
    places = [(np.arange(size) + 0.5) * n / size for size, n in zip(sizes, shape, strict=True)]
    return np.ix_(*(place.astype(np.intp) for place in places))


def _draw(image: NDArray[Any], labels: NDArray[Any], look: _Look) -> Picture:
    return draw_overlay(image[None], labels, fill=look.fill, limits=look.limits, bright=look.bright)


def _projections(image: NDArray[Any], labels: NDArray[Any], look: _Look) -> tuple[Picture, Picture]:
    """Return the brightest voxels along z, and the brightest of the objects in the objects' colours."""
    nothing = np.zeros(image.shape[1:], np.int32)
    plain = _draw(image.max(axis=0), nothing, look)
    brightest = np.where(labels > 0, image, image.min()).argmax(axis=0)[None]
    names = np.take_along_axis(labels, brightest, axis=0)[0]
    light = _draw(np.take_along_axis(image, brightest, axis=0)[0], nothing, look)
    colours = palette()
    shade = 0.4 + 0.6 * light.astype(np.float32) / 255
    coloured = np.where((names > 0)[..., None], colours[(names - 1) % len(colours)] * shade, 0)
    return plain, coloured.astype(np.uint8)


def _spread(labels: NDArray[Any]) -> NDArray[np.intp]:
    """Return slices spread evenly over those that hold anything."""
    held = np.flatnonzero((labels > 0).any(axis=(1, 2)))
    first, last = (held[0], held[-1]) if held.size else (0, len(labels) - 1)
    return np.unique(np.linspace(first, last, _MONTAGE).round().astype(np.intp))


def _beside(pictures: Sequence[Picture]) -> Picture:
    height = max(len(picture) for picture in pictures)
    padded = [np.pad(p, ((0, height - len(p)), (0, _GAP), (0, 0))) for p in pictures]
    return np.concatenate(padded, axis=1)[:, :-_GAP]


def _below(pictures: Sequence[Picture]) -> Picture:
    width = max(picture.shape[1] for picture in pictures)
    padded = [np.pad(p, ((0, _GAP), (0, width - p.shape[1]), (0, 0))) for p in pictures]
    return np.concatenate(padded)[:-_GAP]
