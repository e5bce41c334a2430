"""The public functions: the command line is built on them and uses the same words."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

from biounet.core import (
    Grid,
    InputError,
    ModelError,
    Recipe,
    SettingsError,
    Unit,
    Volume,
    as_path,
    as_spacing,
    builtin_models,
    find_recipe,
    read_recipe,
)
from biounet.files import ReadOptions, arrange_axes, join_channels, read_volume, rearrange_volume, stem_of
from biounet.network import Card, Model, Predictor, inherit_settings, load_model, model_predictor, save_model
from biounet.reporting import draw_segmentation, write_outputs
from biounet.segmentation import Segmentation, SegmentOptions, segment
from biounet.training import TrainingData

if TYPE_CHECKING:
    from biounet.training import Case, TrainCallbacks, TrainOptions

PathLike = str | Path
Image = PathLike | Sequence[PathLike] | Mapping[str, PathLike | NDArray[Any]] | NDArray[Any] | Volume


@dataclass(frozen=True)
class Result(Segmentation):
    """The segmentation of one image."""

    def overlay(self) -> NDArray[np.uint8]:
        """Return the image with the outlines of objects, RGB, shape ``(y, x, 3)``."""
        return draw_segmentation(self)

    def show(self) -> None:
        """Open the overlay in the image viewer of the desktop."""
        from PIL import Image

        Image.fromarray(self.overlay()).show()

    def save(self, folder: PathLike, name: str | None = None) -> list[Path]:
        """Write label image, table and overlay to a folder, which is created; return their paths.

        `name` is the stem of their names, by default that of the (first) source file.
        """
        source, folder = self.volume.source, as_path(folder, "the folder")
        if name is not None and (not isinstance(name, str) or Path(as_path(name, "the name")).name != name):
            raise SettingsError(f"{name!r} is not the name of a file", hint="give the folder apart from it")
        if name is None and source is None:
            raise SettingsError("an image that was not read from a file needs a name", hint="result.save(folder, name)")
        return write_outputs(self, folder, name or stem_of(source or Path()))


@dataclass(frozen=True)
class Segmenter:
    """A model that segments images on a device, ``auto``, ``cpu`` or ``cuda[:n]``.

    Blocks of an image run in `executor`, such as a pool of threads, or one after the other without one.
    """

    model: Model
    device: str = "auto"
    executor: Executor | None = None

    @property
    def card(self) -> Card:
        """Description of the model."""
        return self.model.card

    @cached_property
    def predictor(self) -> Predictor:
        """The network on the device."""
        return model_predictor(self.model, self.device)

    def segment(  # noqa: PLR0913 - keyword arguments, as the options of the command
        self,
        image: Image,
        *,
        spacing: Sequence[float] | float | None = None,
        unit: Unit | None = None,
        axes: str | None = None,
        channel: int | str | None = None,
        channels: Sequence[str] | None = None,
        measure: Sequence[int | str] | int | str = (),
        options: SegmentOptions | None = None,
    ) -> Result:
        """Segment one image.

        Parameters
        ----------
        image
            A file, one file for each channel, a file or array for each name of a channel, an array ``([c,] y, x)`` or
            ``([c,] z, y, x)``, or a `Volume`.
        spacing
            Pixel size along ``([z,] y, x)``, or one number for all axes: of an array in `unit`, of a file in µm (NIfTI:
            mm), instead of what the file says.
        unit
            Of the `spacing` of an array, ``"um"`` (default) or ``"mm"``; required by models that work in mm.
        axes
            Axes of the file or array, such as ``"CYX"``, where they are ambiguous.
        channel
            The channel to segment, by number from 0 or by name.
        channels
            Names of the channels, one for each of the image or one for each of several files.
        measure
            Further channels to measure, by number or name; ``"all"``: all others.
        options
            Block size, object diameter, thresholds.

        Raises
        ------
        InputError, SettingsError
            If the image, or an argument, cannot be used with this model; or if the unit is missing.
        """
        dims = self.card.recipe.data.dims
        read = ReadOptions(
            axes=axes,
            spacing=None if spacing is None else as_spacing(spacing, dims),
            channel=channel,
            dims=dims,
            channels=cast("tuple[str, ...] | None", channels),
            measure=cast("tuple[int | str, ...]", measure),
            inputs=len(self.card.inputs),
        )
        volume = self._as_volume(image, read, unit)
        return Result(**vars(segment(volume, self.predictor, self.card, options, executor=self.executor)))

    def _as_volume(self, image: Image, read: ReadOptions, unit: Unit | None) -> Volume:
        """Read an image, or choose from one in memory what the options ask for."""
        if isinstance(image, np.ndarray):
            in_mm = self.card.unit == "mm" or self.card.recipe.data.min_lesion_mm3 > 0
            if read.spacing is not None and unit is None and in_mm:
                raise SettingsError("spacing without its unit, and this model works in mm", hint="add unit='mm'")
            return _volume_from_array(image, read, unit)
        if isinstance(image, Mapping):
            return volume_from_channels(image, read, unit)
        if unit is not None:
            raise SettingsError(f"unit {unit!r}: only that of an array can be chosen, files and volumes have theirs")
        return _apply_options(image, read) if isinstance(image, Volume) else read_volume(image, read)

    def save(self, path: PathLike) -> None:
        """Write the model as one safetensors file."""
        save_model(self.model, as_path(path, "the model"))


def _apply_options(volume: Volume, options: ReadOptions) -> Volume:
    """Return a volume with the channel and pixel size of read options."""
    if options.axes is not None:
        raise SettingsError("a Volume has its axes: (c, [z,] y, x)", hint="leave axes out")
    return rearrange_volume(volume, options)


def _volume_from_array(array: NDArray[Any], options: ReadOptions, unit: Unit | None) -> Volume:
    """Return an array as a volume, with read options as for files."""
    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        raise InputError("a masked array, whose masked pixels have no values", hint="fill them first")
    if options.axes is not None:
        array = arrange_axes(array, options)
    volume = volume_from_array(array, options.dims, options.spacing, unit)
    return _apply_options(volume, replace(options, axes=None, spacing=None))


def volume_from_channels(
    channels: Mapping[str, PathLike | NDArray[Any]], options: ReadOptions | None = None, unit: Unit | None = None
) -> Volume:
    """Return one image of files or arrays that are one channel each, by the names of the channels.

    `options` choose the channels that are segmented or measured; without a choice, all are segmented, in their order.
    `unit` is that of the spacing of arrays. Raise `InputError` if the channels lie on different grids.
    """
    options = options or ReadOptions()
    if not channels:
        raise SettingsError("an image without channels")
    if options.channels is not None:
        raise SettingsError("channels that have their names already", hint="leave channels= out")
    each = replace(options, channel=None, measure=(), inputs=1)
    volumes = {
        name: _volume_from_array(image, each, unit) if isinstance(image, np.ndarray) else read_volume(image, each)
        for name, image in channels.items()
    }
    return join_channels(volumes, options)


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


def load(name: PathLike, device: str = "auto") -> Segmenter:
    """Load a built-in model by its name, such as ``"nuclei"``, or the model of a ``.safetensors`` file.

    `device` is ``auto``, ``cpu`` or ``cuda[:n]``.

    Raises
    ------
    MachineError, ModelError
        If there is no such file or device; if the file cannot be used.
    """
    builtin = builtin_models()
    path = builtin.get(str(name)) or as_path(name, "the model")
    if not path.is_file() and path.suffix != ".safetensors" and len(path.parts) == 1:
        hint = f"built in: {', '.join(builtin) or 'none'}; or give a path"
        raise ModelError(f"no model is called '{name}'", hint=hint)
    return Segmenter(load_model(path), device)


def train(  # noqa: PLR0913 - keyword arguments, as the options of the command
    recipe: PathLike | Recipe,
    images: PathLike,
    labels: PathLike | None = None,
    *,
    minutes: float | None = None,
    epochs: int | None = None,
    start: PathLike | None = None,
    validation: tuple[PathLike, PathLike | None] | None = None,
    options: ReadOptions | None = None,
    run: TrainOptions | None = None,
    callbacks: TrainCallbacks | None = None,
) -> Segmenter:
    """Train a model on annotated images.

    Parameters
    ----------
    recipe
        A recipe, its path, or the name of a built-in one.
    images, labels
        Two folders with the same file stems; or a folder with sibling files, or a CSV, as `images` only.
    minutes, epochs
        Budget instead of the recipe's. Minutes are wall time including reading, validation and tuning.
    start
        Model to continue from, a path or a built-in name. It is returned, with a note on its card, if training does not
        improve it.
    validation
        Images and labels for tuning thresholds. By default a share of the training images is held out.
    options
        Axes, pixel size, channel and plane of the images, where their files do not define them.
    run, callbacks
        Device and checkpoint; progress, warnings, and an event that stops the training.

    Raises
    ------
    InputError, SettingsError
        If an image or annotation, or the recipe, cannot be used.
    """
    started = time.perf_counter()
    from biounet.training import TrainOptions, hash_training_files  # MONAI is slow to import
    from biounet.training import train as train_model

    run = replace(run or TrainOptions(), started=(run and run.started) or started)
    images, labels = as_path(images, "images"), None if labels is None else as_path(labels, "labels")
    if validation is not None and not (isinstance(validation, Sequence) and len(validation) == 2):
        raise SettingsError("validation: images and labels, two paths")
    recipe = recipe if isinstance(recipe, Recipe) else read_recipe(find_recipe(recipe))
    if minutes is not None or epochs is not None:
        recipe = recipe.replace("train", minutes=minutes, epochs=epochs)
    initial = load(start, run.device).model if start is not None else None
    if initial is not None:
        recipe = inherit_settings(recipe, initial)
    data = TrainingData((images, labels), recipe, options, validation, strict=True)
    model = train_model(*_load_cases(data), data.recipe, run, initial, callbacks)
    if initial is None or model.network is not initial.network:
        fingerprint = hash_training_files([*data.training, *data.validation])
        model = replace(model, card=model.card.model_copy(update={"fingerprint": fingerprint}))
    return Segmenter(model, run.device)


def _load_cases(data: TrainingData) -> tuple[list[Case], list[Case]]:
    """Return training and validation cases; an image in both sets is trained on only."""
    from biounet.training import make_case

    cases: list[Case] = []
    validation: list[Case] = []
    for image in data.read():
        if image.annotation is not None and image.resampled is not None and not (image.validation and image.same_as):
            case = make_case(image.volume, image.annotation, data.recipe, image.resampled)
            (validation if image.validation else cases).append(case)
    return cases, validation
