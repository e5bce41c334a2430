"""Measure labels of any program: files or arrays, with the channels of their image and the objects they lie in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import Grid, InputError, SettingsError, Unit, Volume, as_path, as_spacing
from biounet.files import (
    ReadOptions,
    as_names,
    check_shape,
    join_channels,
    lay_on_grid,
    read_array,
    read_label_grid,
    read_object_labels,
    read_volume,
)
from biounet.measurement.labels import MeasuredLabels, measure_labels
from biounet.measurement.rings import Ring, as_ring

_IMAGE, _VOLUME = 2, 3  # dimensions

PathOrArray = str | Path | NDArray[Any]
Channels = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class MeasureOptions:
    """How labels and their images are read and measured.

    Attributes
    ----------
    axes
        Of the files or arrays of images, such as ``"CYX"``, where they are ambiguous.
    spacing
        Pixel size along ``([z,] y, x)``, or one number for all axes, instead of what the files say: in µm, of NIfTI
        files in mm, of arrays in `unit`.
    unit
        Of the spacing of arrays.
    channels
        Names of the channels of an image, in their order; None: those in the file, or ``channel_0``, ``channel_1``, …
    plane
        Number from 0 of the plane to use of stacks.
    ring
        The ring around each object in which its surroundings are measured, or gap and width as a text, ``"1,5px"``;
        ``"no"`` leaves rings and background out.
    scene
        Number from 0 or name of the image to use of a file that holds several.

    Raises
    ------
    SettingsError
        If a value cannot be one for any image.
    """

    axes: str | None = None
    spacing: float | Sequence[float] | None = None
    unit: Unit = "um"
    channels: Sequence[str] | None = None
    plane: int | None = None
    ring: Ring | str | None = None
    scene: int | str = ""

    def __post_init__(self) -> None:
        as_ring(self.ring)
        is_volume = isinstance(self.spacing, Sequence) and len(self.spacing) == _VOLUME
        self.reading(_VOLUME if is_volume else _IMAGE)
        if self.unit not in ("um", "mm"):
            raise SettingsError(f"unit {self.unit!r}: um or mm")

    def reading(self, dims: int | None = None) -> ReadOptions:
        """Return how files of `dims` dimensions are read; None: label images, of which they are not known yet."""
        size = None if self.spacing is None or dims is None else as_spacing(self.spacing, dims)
        names = None if self.channels is None else as_names(self.channels)
        return ReadOptions(axes=self.axes, spacing=size, dims=dims or _IMAGE, plane=self.plane, channels=names)


def measure(
    labels: PathOrArray,
    image: PathOrArray | Mapping[str, PathOrArray] | None = None,
    *,
    inside: PathOrArray | None = None,
    spacing: float | Sequence[float] | None = None,
    channels: Sequence[str] | None = None,
    options: MeasureOptions | None = None,
) -> MeasuredLabels:
    """Measure the objects of a label image, whatever program made it.

    Parameters
    ----------
    labels
        A file, or an array ``([z,] y, x)`` of integers: 0 is background, and pixels of one id are one object.
    image
        The image with all its channels: a file, an array ``([c,] [z,] y, x)``, or several of one channel each by the
        names of the channels. Without one only positions and shapes are measured.
    inside
        Labels of larger objects, such as the cells of nuclei: a file or an array.
    spacing, channels
        Pixel size and names of channels, as in the options.
    options
        These and the axes, plane and ring.

    Returns
    -------
    One row per object in ``objects`` and, as a DataFrame, ``table``, with the ids of the objects in ``label``; and the
    same of the larger objects in ``parents`` and ``parent_table``.

    Raises
    ------
    InputError
        If a file or array cannot be used, or is not of the shape of the labels.
    SettingsError
        If an option does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> labels, image = np.array([[7, 7, 0, 9]]), np.array([[1, 3, 0, 8]])
    >>> measure(labels, image, channels=["GFP"]).table[["label", "area_px", "intensity_mean_GFP"]].to_numpy().tolist()
    [[7.0, 2.0, 2.0], [9.0, 1.0, 8.0]]
    """
    options = options or MeasureOptions()
    options = options if spacing is None else replace(options, spacing=spacing)
    options = options if channels is None else replace(options, channels=channels)
    values = _read_labels(labels, "the labels", options)
    pixels: Channels = {}
    if image is None:
        grid = _own_grid(labels, values, options)
    else:
        pixels, grid = _read_image(image, values, options)
    values = _on_grid(values, labels, grid, ("the labels", "its image"))
    larger = None
    if inside is not None:
        larger = _read_labels(inside, "the larger objects", options)
        larger = _on_grid(larger, inside, grid, ("the larger objects", "the labels"))
    return measure_labels(values, pixels, grid, inside=larger, ring=as_ring(options.ring))


def _read_labels(labels: PathOrArray, what: str, options: MeasureOptions) -> NDArray[Any]:
    if not isinstance(labels, np.ndarray):
        return read_object_labels(as_path(labels, what), options.reading())
    if labels.ndim not in (2, 3) or not labels.size:
        raise InputError(f"{what} are an array (y, x) or (z, y, x), not of shape {labels.shape}")
    return labels


def _own_grid(labels: PathOrArray, values: NDArray[Any], options: MeasureOptions) -> Grid:
    read = options.reading(values.ndim)
    if not isinstance(labels, np.ndarray):
        return read_label_grid(Path(labels), values.shape, read)
    return Grid(values.shape, read.spacing, None if read.spacing is None else options.unit)


def _read_image(
    image: PathOrArray | Mapping[str, PathOrArray], labels: NDArray[Any], options: MeasureOptions
) -> tuple[Channels, Grid]:
    """Return the channels of an image by their names, and its grid."""
    read = replace(options.reading(labels.ndim), channel=0, measure=("all",), scene=str(options.scene))
    if isinstance(image, Mapping):
        if not image or options.channels is not None:
            raise SettingsError("images by the names of their channels: at least one, and no other names")
        alone = replace(read, channel=None, measure=())
        volume = join_channels({name: _read_one(one, labels, alone, options.unit) for name, one in image.items()}, read)
    else:
        volume = _read_one(image, labels, read, options.unit)
    first = volume.channel_names[0] if volume.channel_names else "channel_0"
    return {first: volume.array[0], **volume.measured}, volume.grid


def _read_one(image: PathOrArray, labels: NDArray[Any], read: ReadOptions, unit: Unit) -> Volume:
    if not isinstance(image, np.ndarray):
        return _read_file(as_path(image, "the image"), read)
    if read.axes is None and image.ndim == labels.ndim + 1 and image.shape[1:] != labels.shape == image.shape[:-1]:
        hint = "say where its channels are, such as axes='YXC'"
        raise InputError(f"an image of shape {image.shape}, and labels of {labels.shape}", hint=hint)
    return read_array(image, read, unit)


def _read_file(path: Path, read: ReadOptions) -> Volume:
    try:
        return read_volume(path, read)
    except InputError as error:
        if "model" not in (error.hint or ""):
            raise
        # Which model to take is no help here: the labels decide on the dimensions.
        hint = "the labels are a volume" if read.dims == _VOLUME else "the labels are an image: choose a --plane"
        raise InputError(error.cause, path=error.path, hint=hint) from error


def _on_grid(values: NDArray[Any], labels: PathOrArray, grid: Grid, names: tuple[str, str]) -> NDArray[Any]:
    """Return labels in the order of voxels of a grid; `names` are what errors call an array, and the other one."""
    if isinstance(labels, np.ndarray):
        check_shape(values, grid, names[0], names[1])
        return values
    return lay_on_grid(values, Path(labels), grid, names[1])
