"""Overlays of a volume: three slices through the largest object, and projections or a montage, in rows that are full.

With an orientation in the file, slices are shown as in radiology: superior and anterior up, and the patient's right on
the left.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from biounet.core import Grid, canonical_transform
from biounet.reporting.overlays import MAX_SIDE, Canvas, Limits, contrast_limits, draw_outlines, palette, prepare_canvas
from biounet.reporting.panels import Panel, arrange

_MIN_SIDE = 256  # pixels along the longest side of a panel: smaller volumes are enlarged
_CLASSES_WIDTH = 1200  # at least, since the slices of the montage are a sixth of it
_MONTAGE_SLICES, _MONTAGE_COLUMNS = 12, 6
_MAX_ASPECT = 10.0  # of a drawn voxel
_THIN = 0.5  # depth of a volume, relative to its height, below which slices along z have a row of their own
_RADIOLOGY = ("axial", "coronal", "sagittal")
_STACK = ("xy", "xz", "yz")


class _Style(NamedTuple):
    """What all slices of a volume share, so that an intensity and a class look the same in each."""

    limits: Limits
    bright: bool
    unit: str | None


class _View(NamedTuple):
    """A volume as it is shown: arrays ``(z, y, x)``, their steps, and whether the patient's axes are known."""

    image: NDArray[Any]
    labels: NDArray[Any]
    steps: tuple[float, ...]
    oriented: bool
    factors: tuple[int, ...] = (1, 1, 1)  # by which the image was reduced

    def name(self, axis: int, index: int) -> str:
        """Return the name of a slice normal to an axis; radiologists count slices from 1, arrays from 0.

        Of an image that was reduced, its number is that in the image.
        """
        factor = self.factors[axis]
        if self.oriented:
            number = len(self) - index if not axis else index + 1
            return f"{_RADIOLOGY[axis]} {(number - 1) * factor + 1} of {self.image.shape[axis] * factor}"
        return f"{_STACK[axis]}  {'zyx'[axis]} = {index * factor}"

    def __len__(self) -> int:
        return len(self.image)


def draw_volume(array: NDArray[Any], labels: NDArray[Any], grid: Grid, *, fill: float = 0.0) -> NDArray[np.uint8]:
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
        Opacity of the colour inside the outlines. Above 0, for classes, the rows below are a montage of slices; at 0,
        for objects, beside the slice stand maximum intensity projections along z, plain and in the colours of the
        objects.

    Returns
    -------
    RGB, shape ``(y, x, 3)``, with sides of at most `MAX_SIDE` pixels.
    """
    return draw_outlines(compose_volume(array, labels, grid, classes=fill > 0), fill)


def compose_volume(
    array: NDArray[Any],
    labels: NDArray[Any],
    grid: Grid,
    *,
    classes: bool = False,
    names: bool = True,
    factors: tuple[int, ...] = (1, 1, 1),
) -> Canvas:
    """Return the panels of a volume without outlines; with `names`, each says what it shows, and rows have a scale.

    `factors` if the arrays were reduced along the axes of the image.
    """
    view = _to_radiological(array[0], labels, grid, factors)
    limits = contrast_limits(view.image)
    style = _Style(limits, float(np.median(view.image)) > sum(limits) / 2, grid.unit)
    at = _centre_of_largest(_connected(view.labels) if classes else view.labels)
    slices = [_slice(view, axis, at[axis], style) for axis in range(3)]
    if classes:
        planes = [_slice(view, 0, int(n), style) for n in _montage_slices(view.labels)]
        is_thin = slices[1].size[0] < _THIN * slices[0].size[0]
        rows = [*_in_rows([slices[0], *planes]), slices[1:]] if is_thin else [slices, *_in_rows(planes)]
    else:
        rows = [[slices[0], *_projections(view, style)], slices[1:]]
    zoom = max(1.0, _MIN_SIDE / max(view.image.shape))
    return arrange(rows, zoom, (_CLASSES_WIDTH if classes else 0, MAX_SIDE), style.bright, names=names)


def _in_rows(panels: Sequence[Panel]) -> list[list[Panel]]:
    """Return panels in rows of about equal numbers."""
    count = -(-len(panels) // _MONTAGE_COLUMNS)
    cuts = [round(n * len(panels) / count) for n in range(count + 1)]
    return [list(panels[start:end]) for start, end in pairwise(cuts)]


def _to_radiological(
    image: NDArray[Any], labels: NDArray[Any], grid: Grid, factors: tuple[int, ...] = (1, 1, 1)
) -> _View:
    """Reorient a volume so that its axes start at superior, anterior and the patient's right."""
    if grid.axcodes is None:
        return _View(image, labels, grid.steps, oriented=False, factors=factors)
    transform = canonical_transform(grid)
    image, labels = (transform.apply(array)[::-1, ::-1, ::-1] for array in (image, labels))
    steps = tuple(grid.steps[axis] for axis in transform.axes)
    return _View(image, labels, steps, oriented=True, factors=tuple(factors[axis] for axis in transform.axes))


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


def _slice(view: _View, axis: int, index: int, style: _Style) -> Panel:
    planes = (np.take(array, index, axis) for array in (view.image, view.labels))
    canvas = prepare_canvas(*_with_channel(*planes), limits=style.limits, bright=style.bright)
    return _panel(canvas, view, axis, view.name(axis, index), style)


def _with_channel(image: NDArray[Any], labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    return image[None], labels


def _panel(canvas: Canvas, view: _View, axis: int, name: str, style: _Style) -> Panel:
    """Return a panel of square pixels, as many as its narrower voxels need."""
    steps = view.steps[:axis] + view.steps[axis + 1 :]
    pixel = max(min(view.steps), max(view.steps) / _MAX_ASPECT)
    shape = canvas.labels.shape
    size = (shape[0] * steps[0] / pixel, shape[1] * steps[1] / pixel)
    return Panel(canvas, name, size, pixel, style.unit)


def _projections(view: _View, style: _Style) -> list[Panel]:
    """Return the maximum intensity projection along z, and that of the objects in their colours."""
    no_labels = np.zeros(view.image.shape[1:], np.int32)
    plain = prepare_canvas(view.image.max(axis=0)[None], no_labels, limits=style.limits, bright=style.bright)
    brightest = np.where(view.labels > 0, view.image, view.image.min()).argmax(axis=0)[None]
    projected = np.take_along_axis(view.labels, brightest, axis=0)[0]
    light = np.take_along_axis(view.image, brightest, axis=0)
    canvas = prepare_canvas(light, projected, limits=style.limits, bright=style.bright)
    colours = palette()
    shade = 0.4 + 0.6 * canvas.picture.astype(np.float32) / 255
    inside = (canvas.labels > 0)[..., None]
    coloured = np.where(inside, colours[(canvas.labels - 1) % len(colours)] * shade, 0)
    objects = canvas._replace(picture=coloured.astype(np.uint8))
    return [
        _panel(plain, view, 0, "maximum projection along z", style),
        _panel(objects, view, 0, "objects, maximum projection", style),
    ]


def _montage_slices(labels: NDArray[Any]) -> NDArray[np.intp]:
    """Return slices at equal distances over those with labels, or over all."""
    labelled = np.flatnonzero((labels > 0).any(axis=(1, 2)))
    first, last = (labelled[0], labelled[-1]) if labelled.size else (0, len(labels) - 1)
    return np.unique(np.linspace(first, last, _MONTAGE_SLICES).round().astype(np.intp))
