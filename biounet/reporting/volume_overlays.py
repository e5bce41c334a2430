"""Overlays of a volume: three slices through the largest object, and below them projections or a montage.

With an orientation in the file, slices are shown as in radiology: superior and anterior up, and the patient's right on
the left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from biounet.core import Grid, canonical_transform
from biounet.reporting.overlays import MAX_SIDE, Limits, contrast_limits, draw_overlay, palette

Picture = NDArray[np.uint8]

_MIN_SIDE = 256  # pixels along the longest side of a panel: smaller volumes are enlarged
_MONTAGE_SLICES, _MONTAGE_COLUMNS = 12, 6
_GAP = 4  # pixels between panels
_MAX_ASPECT = 10.0  # of a drawn voxel


class _Style(NamedTuple):
    """What all slices of a volume share, so that an intensity and a class look the same in each."""

    fill: float
    limits: Limits
    background: float

    @property
    def bright(self) -> bool:
        return self.background > sum(self.limits) / 2


def draw_volume(array: NDArray[Any], labels: NDArray[Any], grid: Grid, *, fill: float = 0.0) -> Picture:
    """Draw objects or classes on slices of a volume.

    Parameters
    ----------
    array
        Intensities, shape ``(c, z, y, x)``; the first channel is shown.
    labels
        Objects or classes, shape ``(z, y, x)``; 0 is background.
    grid
        Voxel size and orientation.
    fill
        Opacity of the colour inside the outlines. Above 0, for classes, the second row is a montage of slices; at 0,
        for objects, maximum intensity projections along z, plain and in the colours of the objects.

    Returns
    -------
    RGB, shape ``(y, x, 3)``, with sides of at most `MAX_SIDE` pixels.
    """
    image, labels, steps = _to_radiological(array[0], labels, grid)
    style = _Style(fill, contrast_limits(image), float(np.median(image)))
    z, y, x = _centre_of_largest(labels if fill == 0 else _connected(labels))
    zoom = max(1.0, _MIN_SIDE / max(labels.shape))
    cuts = (((z,), (1, 2)), ((slice(None), y), (0, 2)), ((slice(None), slice(None), x), (0, 1)))
    panels = []
    for cut, (rows, columns) in cuts:
        pixels = _square_pixels(labels[cut].shape, (steps[rows], steps[columns]), zoom)
        panels.append(_draw(image[cut][pixels], labels[cut][pixels], style))
    pixels = _square_pixels(labels.shape[1:], steps[1:], zoom if fill == 0 else zoom / 2)
    if fill == 0:
        lower = [_row([projection[pixels] for projection in _projections(image, labels, style)])]
    else:
        slices = [_draw(image[n][pixels], labels[n][pixels], style) for n in _montage_slices(labels)]
        lower = [_row(slices[n : n + _MONTAGE_COLUMNS]) for n in range(0, len(slices), _MONTAGE_COLUMNS)]
    picture = _column([_row(panels), *lower])
    factor = -(-max(picture.shape) // MAX_SIDE)
    return np.ascontiguousarray(picture[::factor, ::factor])


def _to_radiological(
    image: NDArray[Any], labels: NDArray[Any], grid: Grid
) -> tuple[NDArray[Any], NDArray[Any], tuple[float, ...]]:
    """Reorient a volume so that its axes start at superior, anterior and the patient's right."""
    if grid.axcodes is None:
        return image, labels, grid.steps
    transform = canonical_transform(grid)
    image, labels = (transform.apply(array)[::-1, ::-1, ::-1] for array in (image, labels))
    return image, labels, tuple(grid.steps[axis] for axis in transform.axes)


def _connected(classes: NDArray[Any]) -> NDArray[np.int32]:
    """Return connected classes as one object, such as a tumour and the oedema around it."""
    from scipy import ndimage  # slow to import

    return np.asarray(ndimage.label(classes > 0, np.ones((3, 3, 3)))[0], np.int32)


def _centre_of_largest(labels: NDArray[Any]) -> tuple[int, ...]:
    """Return the voxel of the largest object nearest to its centroid; without objects, the centre of the volume."""
    inside = labels[labels > 0]
    if not inside.size:
        return tuple(n // 2 for n in labels.shape)
    voxels = np.argwhere(labels == np.bincount(inside).argmax())
    return tuple(voxels[np.linalg.norm(voxels - voxels.mean(axis=0), axis=1).argmin()].tolist())


def _square_pixels(shape: tuple[int, ...], steps: Sequence[float], zoom: float) -> tuple[NDArray[Any], ...]:
    """Return the indices that resample a slice to square pixels."""
    pixel = max(min(steps), max(steps) / _MAX_ASPECT)
    sizes = [max(1, round(n * step / pixel * zoom)) for n, step in zip(shape, steps, strict=True)]
    centres = [(np.arange(size) + 0.5) * n / size for size, n in zip(sizes, shape, strict=True)]
    return np.ix_(*(centre.astype(np.intp) for centre in centres))


def _draw(image: NDArray[Any], labels: NDArray[Any], style: _Style) -> Picture:
    return draw_overlay(image[None], labels, fill=style.fill, limits=style.limits, bright=style.bright)


def _projections(image: NDArray[Any], labels: NDArray[Any], style: _Style) -> tuple[Picture, Picture]:
    """Return the maximum intensity projection along z, and that of the objects in their colours."""
    no_labels = np.zeros(image.shape[1:], np.int32)
    plain = _draw(image.max(axis=0), no_labels, style)
    brightest = np.where(labels > 0, image, image.min()).argmax(axis=0)[None]
    projected = np.take_along_axis(labels, brightest, axis=0)[0]
    light = _draw(np.take_along_axis(image, brightest, axis=0)[0], no_labels, style)
    colours = palette()
    shade = 0.4 + 0.6 * light.astype(np.float32) / 255
    coloured = np.where((projected > 0)[..., None], colours[(projected - 1) % len(colours)] * shade, 0)
    return plain, coloured.astype(np.uint8)


def _montage_slices(labels: NDArray[Any]) -> NDArray[np.intp]:
    """Return slices at equal distances over those with labels, or over all."""
    labelled = np.flatnonzero((labels > 0).any(axis=(1, 2)))
    first, last = (labelled[0], labelled[-1]) if labelled.size else (0, len(labels) - 1)
    return np.unique(np.linspace(first, last, _MONTAGE_SLICES).round().astype(np.intp))


def _row(pictures: Sequence[Picture]) -> Picture:
    height = max(len(picture) for picture in pictures)
    padded = [np.pad(p, ((0, height - len(p)), (0, _GAP), (0, 0))) for p in pictures]
    return np.concatenate(padded, axis=1)[:, :-_GAP]


def _column(pictures: Sequence[Picture]) -> Picture:
    width = max(picture.shape[1] for picture in pictures)
    padded = [np.pad(p, ((0, _GAP), (0, width - p.shape[1]), (0, 0))) for p in pictures]
    return np.concatenate(padded)[:-_GAP]
