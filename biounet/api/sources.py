"""Many images, as people pass them (paths, folders, patterns, arrays, lists of them), as a list with names."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from biounet.api.images import Image, is_array
from biounet.api.keywords import Choices
from biounet.core import DataSettings, InputError, SettingsError, Volume, as_path
from biounet.files import FoundImage, ReaderPool, ReadOptions, resolve_images, search_images, stem_of

Images = Image | Iterable[Image]


@dataclass(frozen=True)
class Source:
    """One of many images.

    Attributes
    ----------
    name
        In tables: its path below the folder that was searched.
    image
        What `biounet.Segmenter.segment` takes.
    output
        Path of its results below the folder of results, without their endings.
    problem
        Why it cannot be read; empty if it may.
    channels
        Names of the files of an image, where they are its channels.
    scene
        Which of several images of its file it is, as in `biounet.files.ReadOptions`.
    """

    name: str
    image: Any
    output: Path
    path: Path | None = None
    problem: str = ""
    channels: tuple[str, ...] = ()
    scene: str = ""

    def choose(self, choices: Choices) -> Choices:
        """Return choices with the names of the channels, if its files have some, and its scene."""
        channels = self.channels or choices.read.channels
        scene = choices.read.scene if self.path is None else self.scene
        return replace(choices, read=replace(choices.read, channels=channels, scene=scene))

    def check(self) -> None:
        """Raise `InputError` if the image cannot be read, such as a broken link in a folder."""
        if self.problem:
            raise InputError(self.problem, path=self.path)


def is_one_image(images: object) -> bool:
    """Whether an argument is a single image: a file, an array, a volume, or a dict of channels."""
    if isinstance(images, str | os.PathLike):
        return os.path.isfile(images)  # noqa: PTH113 - that of Path raises for some names
    return isinstance(images, Volume | Mapping) or is_array(images)


def find_sources(images: Images, data: DataSettings, read: ReadOptions) -> list[Source]:
    """Return what is meant by images, in their order; what a folder or pattern holds in natural order.

    Files that are one channel each are joined, if the model has several channels or `read` chooses some.

    Raises
    ------
    InputError
        If a file does not exist, or a folder or pattern holds no image.
    SettingsError
        If something is no image.
    """
    items = [images] if _is_item(images) else _as_list(images)
    if not items:
        raise SettingsError("an empty list of images")
    paths = [as_path(item, "an image") for item in items if isinstance(item, str | os.PathLike)]
    found = _find_files(paths, data, read)
    return [
        source
        for number, item in enumerate(items)
        for source in (found.pop(0) if isinstance(item, str | os.PathLike) else [_unnamed(item, number)])
    ]


def _is_item(images: object) -> bool:
    return isinstance(images, str | os.PathLike) or is_one_image(images)


def _as_list(images: object) -> list[Any]:
    if not isinstance(images, Iterable) or isinstance(images, bytes):
        raise SettingsError(f"images are paths, arrays or a list of them, not {type(images).__name__}")
    return list(images)


def _unnamed(item: Any, number: int) -> Source:  # noqa: ANN401
    """Return an image that is no single file; volumes have the name of their file."""
    if not is_one_image(item):
        raise SettingsError(f"an image is a path or an array, not {type(item).__name__} (number {number} from 0)")
    if isinstance(item, Volume) and item.source is not None:
        return Source(item.source.name, item, Path(stem_of(item.source)), item.source)
    name = f"image_{number}"
    return Source(name, item, Path(name))


def _find_files(paths: list[Path], data: DataSettings, read: ReadOptions) -> list[list[Source]]:
    """Return the images of each path."""
    if not paths:
        return []
    together = search_images(paths, data.channels, data.annotation, read.series).images
    with ReaderPool() as readers:
        together = resolve_images(together, read, readers)
    if len(paths) == 1:
        return [list(map(_found, together))]
    if any(image.others or image.is_case for image in together):
        return [list(map(_found, together)), *([] for _ in paths[1:])]
    by_path = {(image.path, image.scene): image for image in together}
    separate = (search_images([path], data.channels, data.annotation, read.series).images for path in paths)
    return [[_found(by_path.get((image.path, image.scene), image)) for image in images] for images in separate]


def _found(image: FoundImage) -> Source:
    files = (image.path, *image.others)
    return Source(
        name=image.relative.as_posix(),
        image=files if len(files) > 1 else files[0],
        output=image.relative.parent / image.stem,
        path=image.path,
        problem=image.problem,
        channels=image.channels,
        scene=image.scene,
    )
