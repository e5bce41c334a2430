"""A model in Python: what is given to it, and the results."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, Unpack, overload

from biounet.api.images import Image, read_image
from biounet.api.keywords import Choices, ImageKeywords, parse_keywords, spell_out
from biounet.api.progress import show_progress
from biounet.api.results import FailedImage, Result, Results
from biounet.api.sources import Images, Source, find_sources, is_one_image
from biounet.core import BiounetError, InputError, ModelError, SettingsError, as_path, builtin_models
from biounet.files import atomic_group, write_text
from biounet.model_export import ExportedModel, export_model
from biounet.network import Card, Model, Predictor, describe_use, load_model, model_predictor, save_model
from biounet.segmentation import SegmentOptions, segment

PathLike = str | Path
_log = logging.getLogger(__name__)


@dataclass(frozen=True, repr=False)
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

    @overload
    def __call__(
        self,
        images: Images,
        *,
        stream: Literal[False] = ...,
        errors: Literal["raise", "skip"] = ...,
        progress: bool | None = ...,
        options: SegmentOptions | None = ...,
        **keywords: Unpack[ImageKeywords],
    ) -> Results: ...
    @overload
    def __call__(
        self,
        images: Images,
        *,
        stream: Literal[True],
        errors: Literal["raise", "skip"] = ...,
        progress: bool | None = ...,
        options: SegmentOptions | None = ...,
        **keywords: Unpack[ImageKeywords],
    ) -> Iterator[Result]: ...
    @spell_out(ImageKeywords)
    def __call__(
        self,
        images: Images,
        *,
        stream: bool = False,
        errors: Literal["raise", "skip"] = "raise",
        progress: bool | None = None,
        options: SegmentOptions | None = None,
        **keywords: Unpack[ImageKeywords],
    ) -> Results | Iterator[Result]:
        """Segment one image or many.

        Parameters
        ----------
        images
            A path, folder or pattern; an array ``([c,] [z,] y, x)``, a `Volume`, or a dict of a file or array for each
            channel; or a list of any of these.
        stream
            Whether results come one by one, as they are made, instead of all at the end: for more images than fit into
            memory.
        errors
            What an image does that cannot be segmented: ``"raise"`` ends the call; ``"skip"`` leaves it out of the
            results, with a warning, and lists it in their `failed`.
        progress
            Whether to show how far it is; None: for several images, in a notebook or terminal.
        options
            How to segment, as one object; what keywords say goes before it.
        **keywords
            `spacing`, `unit`, `axes`, `channel`, `diameter` and so on, as for `segment`.

        Returns
        -------
        A list of a `Result` for each image, with `counts` and `table` of all; with `stream`, an iterator over them.

        Raises
        ------
        InputError, SettingsError
            If an image, or a keyword, cannot be used with this model. If all images fail, also with ``"skip"``.
        """
        choices = parse_keywords(keywords, self.card, options)
        return self._segment_many(images, choices, errors, progress, stream)

    def _segment_many(
        self, images: Images, choices: Choices, errors: str, progress: bool | None, stream: bool
    ) -> Results | Iterator[Result]:
        if errors not in ("raise", "skip"):
            raise SettingsError(f"errors {errors!r}: 'raise' or 'skip'")
        sources = find_sources(images, self.card.recipe.data, choices.read)
        skip = errors == "skip" and not is_one_image(images)
        made = self._segment_all(sources, choices, skip, progress)
        if stream:
            return (one for one in made if isinstance(one, Result))
        done = list(made)
        failed = (one for one in done if isinstance(one, FailedImage))
        return Results((one for one in done if isinstance(one, Result)), failed)

    def _segment_all(
        self, sources: Sequence[Source], choices: Choices, skip: bool, progress: bool | None
    ) -> Iterator[Result | FailedImage]:
        """Yield the result of each image, or with `skip` its error; raise that if all have one."""
        failed: list[FailedImage] = []
        with show_progress(len(sources), shown=progress) as advance:
            for source in sources:
                try:
                    source.check()
                    made: Result | FailedImage = self._segment_one(source.image, source.name, source.choose(choices))
                except BiounetError as error:
                    error = error if error.path or len(sources) == 1 else _with_path(error, source)
                    if not skip or not isinstance(error, InputError) or len(failed) + 1 == len(sources):
                        raise _with_way_on(error, skip or len(sources) == 1) from error.__cause__
                    made = FailedImage(source.name, error)
                    failed.append(made)
                    _log.warning("left out: %s", error)
                yield made
                advance()

    def _segment_one(self, image: Image | Sequence[PathLike], name: str, choices: Choices) -> Result:
        volume = read_image(image, self.card, choices)
        result = segment(volume, self.predictor, self.card, choices.segment, executor=self.executor)
        return Result(**vars(result), name=name or (volume.source.name if volume.source else ""))

    @spell_out(ImageKeywords)
    def segment(
        self,
        image: Image | Sequence[PathLike],
        *,
        options: SegmentOptions | None = None,
        **keywords: Unpack[ImageKeywords],
    ) -> Result:
        """Segment one image.

        Parameters
        ----------
        image
            A file, one file for each channel, a dict of a file or array for each channel, an array ``([c,] y, x)`` or
            ``([c,] z, y, x)``, or a `Volume`.
        options
            How to segment, as one object; what keywords say goes before it.
        spacing
            Pixel size along ``([z,] y, x)``, or one number for all axes: of an array in `unit`, of a file in µm (NIfTI:
            mm), instead of what the file says.
        unit
            Of the `spacing` of an array, ``"um"`` (default) or ``"mm"``; required by models that work in mm.
        axes
            Axes of the file or array, such as ``"CYX"``, where they are ambiguous.
        channel
            The channel to use, by number from 0 or by name.
        **keywords
            The others are the options of ``biounet segment``; see `biounet.api.ImageKeywords`.

        Raises
        ------
        InputError, SettingsError
            If the image, or an argument, cannot be used with this model; or if the unit is missing.
        """
        return self._segment_one(image, "", parse_keywords(keywords, self.card, options))

    def __repr__(self) -> str:
        data, inputs = self.card.recipe.data, ", ".join(self.card.inputs)
        return f"<Segmenter {self.card.recipe.name}: {data.kind} in {data.dims}D, of {inputs}, on {self.device}>"

    def save(self, path: PathLike) -> None:
        """Write the model as one safetensors file, and beside it how to use it, ``<model>_howto.txt``."""
        path = as_path(path, "the model")
        with atomic_group():
            save_model(self.model, path)
            write_text(path.with_name(f"{path.stem}_howto.txt"), describe_use(self.model.card, path))

    def export(self, format: str, path: PathLike | None = None, *, overwrite: bool = False) -> ExportedModel:
        """Write the model for other programs, as ``biounet export`` does, after a comparison with it.

        Parameters
        ----------
        format
            ``"onnx"``, ``"onnx-int8"`` or ``"bioimageio"``.
        path
            Of the file; None: the name of the model in the working folder.
        overwrite
            Whether a file that is there is replaced.

        Returns
        -------
        The path, and how far what the file computes is from what the model does, on synthetic images.

        Raises
        ------
        SettingsError, InputError
            If there is no such format, or its packages are not installed; if the file is there.
        ModelError
            If the file does not compute what the model does; it is not kept.
        MachineError
            If the file cannot be written.
        """
        return export_model(
            self.model, format, None if path is None else as_path(path, "the file"), overwrite=overwrite
        )


def _with_way_on(error: BiounetError, no_other: bool) -> BiounetError:
    """Return an error that says how the other images of a call are segmented; unchanged if there is no other."""
    if no_other or not isinstance(error, InputError):
        return error
    hint = "errors='skip' leaves out what cannot be segmented"
    return type(error)(error.cause, path=error.path, hint=f"{error.hint}; {hint}" if error.hint else hint)


def _with_path(error: BiounetError, source: Source) -> BiounetError:
    """Return an error with the image that it is about."""
    return type(error)(error.cause, path=source.path or source.name, hint=error.hint)


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
