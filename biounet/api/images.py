"""One image, as people have it in Python (a file, one file or array for each channel, an array), as a `Volume`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

from biounet.api.keywords import Choices
from biounet.core import Grid, InputError, SettingsError, Unit, Volume
from biounet.files import ReadOptions, join_channels, read_array, read_volume, rearrange_volume
from biounet.network import Card

PathLike = str | Path
Channel = PathLike | NDArray[Any] | Volume
Image = Channel | Mapping[str, Channel]
_COLOURS = (3, 4)


def read_image(image: Image | Sequence[PathLike], card: Card, choices: Choices) -> Volume:
    """Return an image as a volume for the model of a card; raises as `biounet.Segmenter.segment`."""
    if isinstance(image, Mapping):
        return _read_channels(image, card, choices)
    read, unit = choices.read, choices.unit
    if read.scene and (is_array(image) or isinstance(image, Volume)):
        raise SettingsError(f"scene {read.scene} of what is no file", hint="leave scene out")
    if is_array(image):
        array = np.asanyarray(image)
        in_mm = card.unit == "mm" or card.recipe.data.min_lesion_mm3 > 0
        if read.spacing is not None and unit is None and in_mm:
            raise SettingsError("spacing without its unit, and this model works in mm", hint="add unit='mm'")
        if hasattr(image, "getbands") and array.ndim > read.dims:  # a picture of Pillow
            read = replace(read, axes=read.axes or "YXS")
        _check_channels(array, card, read)
        return _volume_from_array(array, read, unit)
    if unit is not None:
        raise SettingsError(f"unit {unit!r}: only that of an array can be chosen, files and volumes have theirs")
    if isinstance(image, Volume):
        return _choose_from_volume(image, read)
    return read_volume(cast("Sequence[PathLike]", image), read)


def is_array(image: object) -> bool:
    """Whether an object is an array, of NumPy or of another library that gives its pixels."""
    return not isinstance(image, type) and (hasattr(image, "__array__") or hasattr(image, "__array_interface__"))


def _check_channels(array: NDArray[Any], card: Card, options: ReadOptions) -> None:
    """Say what to do with an array whose first axis may be no channels: colours at the end, a list of images."""
    count, taken = len(array) if array.ndim == options.dims + 1 else 0, len(card.inputs)
    chosen = (options.axes, options.channel, options.frames, options.project)
    if chosen != (None,) * 4 or count in (0, taken):
        return
    cause = f"an array of shape {array.shape} has {count} channels, since they come first"
    last = array.shape[-1] in _COLOURS
    hint = f"axes='{'ZYX'[-options.dims :]}S' if it ends with colours" if last else "list(array) if these are images"
    raise InputError(f"{cause}, and the model expects {taken}", hint=f"{hint}, channel=0 for the first")


def _read_channels(files: Mapping[str, Channel], card: Card, choices: Choices) -> Volume:
    """Return the channels of one image, each a file or array by its name, those of the model in its order."""
    if not files or not all(isinstance(name, str) for name in files):
        raise SettingsError("an image of channels is a dict of a file or array for each name")
    if choices.read.channels is not None:
        raise SettingsError("these channels have their names", hint="leave channels= out")
    each = replace(choices.read, channel=None, measure=(), inputs=1)
    volumes = {name: _read_channel(name, image, card, replace(choices, read=each)) for name, image in files.items()}
    for name, volume in volumes.items():
        if volume.channels > 1:
            raise InputError(f"channel '{name}' has {volume.channels} channels itself", path=volume.source)
    # Errors about an array name its channel.
    named = {name: replace(volume, source=volume.source or Path(name)) for name, volume in volumes.items()}
    inputs = _find_inputs(list(files), card, choices.read)
    if len(inputs) == 1:
        joined = join_channels(named, replace(choices.read, channel=inputs[0]))
    else:
        joined = join_channels({str(name): named[str(name)] for name in inputs}, replace(choices.read, measure=()))
        further = join_channels(named, replace(choices.read, channel=inputs[0])).measured
        joined = replace(joined, measured={name: array for name, array in further.items() if name not in inputs})
    return joined if joined.source in [volume.source for volume in volumes.values()] else replace(joined, source=None)


def _read_channel(name: str, image: Channel, card: Card, choices: Choices) -> Volume:
    try:
        return read_image(image, card, choices)
    except InputError as error:
        raise error if error.path else InputError(error.cause, path=name) from error


def _find_inputs(names: list[str], card: Card, options: ReadOptions) -> list[int | str]:
    """Return the channels that the model gets, in its order."""
    by_name = {name.casefold(): name for name in names}
    if options.channel is not None:
        return [options.channel]
    if all(name.casefold() in by_name for name in card.inputs):
        return [by_name[name.casefold()] for name in card.inputs]
    if len(names) == len(card.inputs) == 1:
        return [*names]
    expected = f"{len(card.inputs)} ({', '.join(card.inputs)})"
    cause = f"channels {', '.join(names)}, the model '{card.recipe.name}' expects {expected}"
    raise InputError(cause, hint=f"choose one with channel='{names[0]}'" if len(card.inputs) == 1 else None)


def _choose_from_volume(volume: Volume, options: ReadOptions) -> Volume:
    """Return a volume with the channels and pixel size of read options; those of reading a file are refused."""
    if options.axes is not None:
        raise SettingsError("a Volume has its axes: (c, [z,] y, x)", hint="leave axes out")
    for name in ("plane", "project", "frames"):
        if getattr(options, name) is not None:
            raise SettingsError(f"{name} of a Volume, which was read already", hint=f"leave {name} out")
    return rearrange_volume(volume, options)


def _volume_from_array(array: NDArray[Any], options: ReadOptions, unit: Unit | None) -> Volume:
    """Return an array as a volume, with read options as for files."""
    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        raise InputError("a masked array, whose masked pixels have no values", hint="fill them first")
    axes = ("T" if options.frames is not None else "") + ("Z" if options.project else "") + "ZYX"[-options.dims :]
    if options.axes is None and array.ndim == len(axes) > options.dims:  # these options leave no choice
        options = replace(options, axes=axes)
    if options.axes is None:
        volume_from_array(array, options.dims, options.spacing, unit)
    return read_array(array, options, unit or "um")


def volume_from_array(
    array: NDArray[Any], dims: int, spacing: tuple[float, ...] | None = None, unit: Unit | None = None
) -> Volume:
    """Return an array ``([c,] [z,] y, x)`` with `dims` spatial axes as a volume.

    `spacing` is along each of them, in `unit`, ``"um"`` (default) or ``"mm"``. Raise `InputError` if the array is not
    an image of real numbers with so many axes, and `SettingsError` for an unknown unit or one without a spacing.
    """
    if unit is not None and not (isinstance(unit, str) and unit in get_args(Unit)):
        raise SettingsError(f"unit {unit!r}: 'um' or 'mm'")
    if unit is not None and spacing is None:
        raise SettingsError("a unit without a spacing")
    if array.ndim not in (dims, dims + 1) or not array.size:
        raise InputError(f"an array of shape {array.shape} is not a {dims}D image with or without channels")
    if not (np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)):
        raise InputError(f"an array of {array.dtype} is not an image of real numbers")
    if not np.isfinite(array).all():
        raise InputError(f"{int((~np.isfinite(array)).sum())} pixels are NaN or infinite")
    full = array if array.ndim == dims + 1 else array[None]
    return Volume(full, Grid(full.shape[1:], spacing, None if spacing is None else unit or "um"))
