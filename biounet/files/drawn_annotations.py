"""Outlines that other programs drew, as the labels of an annotation."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from biounet.core import UNLABELLED, DataSettings, InputError, list_some
from biounet.files.axes import ReadOptions
from biounet.files.dataset_index.outline_files import outline_format
from biounet.files.formats.raw import translate_errors
from biounet.files.outlines.coco_reading import read_coco
from biounet.files.outlines.fill import Filled, fill, fill_windows, number_objects
from biounet.files.outlines.geojson import read_geojson
from biounet.files.outlines.imagej_roi import read_imagej_roi
from biounet.files.outlines.labelme import read_labelme
from biounet.files.outlines.outline import QUPATH_UNLABELLED, QUPATH_WINDOW, UNLABELLED_CLASS, Outline, Plane

_WINDOWS = {"background", QUPATH_WINDOW}  # as a class or name, beside that of the recipe
_UNKNOWN = {UNLABELLED_CLASS, QUPATH_UNLABELLED}  # as a class
_SEPARATORS = re.compile(r"[ _-]+")  # of words, in names of classes
_NUMBER_AT_END = re.compile(r"[ _.#-]*\d+$")  # of a name such as "nucleus 12"
_MAX_LABEL = np.iinfo(np.int32).max
_MAX_NAMES = 5  # that a message lists


@dataclass(frozen=True, eq=False)
class DrawnLabels:
    """Labels ``([z,] y, x)`` of what was drawn, the format of the file, pairs of objects that overlap, and notes."""

    labels: NDArray[np.int32]
    format: str
    overlaps: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class DrawnImage:
    """The image that an annotation is of: its shape ``([z,] y, x)``, how it is read, and its file, if known."""

    shape: tuple[int, ...]
    options: ReadOptions
    path: Path | None = None


@translate_errors
def read_drawn_labels(path: Path, data: DataSettings, image: DrawnImage) -> DrawnLabels:
    """Fill the outlines of a file on the grid of their image.

    Objects have the numbers 1, 2, … in the order of the file, or classes their values. What is not drawn is background,
    since the whole image was looked at. With regions of class ``looked at``, ``background`` or ``Region*`` it is so
    within them only, and unlabelled elsewhere, as in scribbles. Regions of class ``unlabelled`` or ``Ignore*`` are that
    where no object lies.

    Raises
    ------
    InputError
        If the file is damaged, nothing is drawn on this image, most of it lies outside, or a class is unknown.
    """
    if data.palette:
        hint = "their classes are names: take the palette out of the recipe, or give outlines a recipe of their own"
        raise InputError("the recipe has a palette, but these are outlines", path=path, hint=hint)
    name = outline_format(path) or ""
    try:
        outlines, notes = _read_outlines(path, name, data, image)
        drawn = _sort(_of_plane(outlines, image), data, path)
        labels, overlaps, remarks = _fill_all(drawn, data, image.shape)
    except InputError as error:
        raise error if error.path else InputError(error.cause, path=path, hint=error.hint) from None
    return DrawnLabels(labels, name, overlaps, (*notes, *remarks))


def _read_outlines(
    path: Path, name: str, data: DataSettings, image: DrawnImage
) -> tuple[list[Outline], tuple[str, ...]]:
    if name == "COCO":
        return read_coco(path, image.shape, image.path, are_objects=data.kind == "instances")
    if name == "GeoJSON":
        return read_geojson(path, data.window_class, data.cell_part), ()
    if name == "LabelMe":
        return read_labelme(path, (image.shape[-2], image.shape[-1]), data.window_class), ()
    if not name and path.name.lower().endswith(".json"):
        raise InputError("is JSON, but none of GeoJSON, COCO or LabelMe, or damaged", path=path)
    return read_imagej_roi(path), ()


def _of_plane(outlines: Sequence[Outline], image: DrawnImage) -> list[Outline]:
    """Return the outlines of the plane that is read of a stack or time series; raise unless one frame is left."""
    chosen = image.options.plane
    if len(image.shape) == 2:
        if isinstance(chosen, int):
            outlines = [one for one in outlines if _stack_number(one.plane) in (None, chosen)]
        _check_one({_stack_number(one.plane) for one in outlines}, "planes", "choose one with --plane")
        return [replace(one, plane=None) for one in outlines]
    frames = {None if one.plane is None else one.plane.t for one in outlines}
    _check_one(frames, "frames", "save each frame and its outlines in files of their own")
    return [*outlines]


def _stack_number(plane: Plane | None) -> int | None:
    """Return the number along the axis of a stack of planes or frames."""
    return None if plane is None else plane.z if plane.z is not None else plane.t


def _check_one(numbers: set[int | None], what: str, hint: str) -> None:
    stated = sorted(number for number in numbers if number is not None)
    if len(stated) > 1:
        shown = list_some([*map(str, stated)], _MAX_NAMES)
        raise InputError(f"outlines of {len(stated)} {what}, {shown} counted from 0, on one image", hint=hint)


@dataclass(frozen=True)
class _Drawn:
    """What was drawn, by what it means: windows are regions of background unless an object lies there."""

    objects: list[Outline]
    windows: list[Outline]
    unlabelled: list[Outline]


def _sort(outlines: Sequence[Outline], data: DataSettings, path: Path) -> _Drawn:
    drawn = _Drawn([], [], [])
    window = _words(data.window_class)
    for one in outlines:
        meanings = {_words(one.class_name), _words(one.name)}
        if one.is_window or meanings & {window, *_WINDOWS}:
            drawn.windows.append(replace(one, is_window=True))
        elif one.class_name.casefold() in _UNKNOWN:
            drawn.unlabelled.append(one)
        else:
            drawn.objects.append(one)
    if not drawn.objects and not drawn.windows:
        hint = f"outline some objects; if there are none, draw a region of class '{data.window_class}'"
        raise InputError("nothing is drawn on this image", path=path, hint=hint)
    return drawn


def _words(name: str) -> str:
    """Return a name by which it is compared: in lower case, with spaces between its words."""
    return _SEPARATORS.sub(" ", name).strip().casefold()


def _fill_all(drawn: _Drawn, data: DataSettings, shape: tuple[int, ...]) -> tuple[NDArray[np.int32], int, list[str]]:
    """Return labels, the number of pairs of objects that overlap, and notes."""
    _check_inside(drawn.objects, shape)
    values = number_objects(drawn.objects) if data.kind == "instances" else _class_values(drawn.objects, data)
    if max(values, default=0) > _MAX_LABEL:
        raise InputError(f"object number {max(values)} does not fit in 32 bits", hint="number objects from 1")
    if data.kind == "instances" and len(shape) == 3 and not data.slices:
        _check_slices_are_linked(drawn.objects)
    filled = fill(drawn.objects, shape, data.overlap, values)
    if drawn.objects and not drawn.windows and not filled.values.any():
        raise InputError("no outline encloses a pixel", hint="outline the objects, along their edges")
    labels, nothing = filled.labels, filled.labels == 0
    windows = fill_windows(drawn.windows, shape)
    if windows is not None or data.kind == "scribbles":
        labels[nothing if windows is None else nothing & ~windows] = UNLABELLED
    if drawn.unlabelled:
        unknown = fill(drawn.unlabelled, shape, values=[1] * len(drawn.unlabelled)).labels > 0
        labels[nothing & unknown] = UNLABELLED
    return labels, len(filled.overlaps), [*filled.notes, *_describe_overlaps(filled, data)]


def _describe_overlaps(filled: Filled, data: DataSettings) -> list[str]:
    if not filled.overlaps:
        return []
    pixels, pairs = sum(one.pixels for one in filled.overlaps), len(filled.overlaps)
    rule = "the later one is on top" if data.overlap == "later" else "unlabelled there"
    texts = [f"{pairs} pair{'s' if pairs > 1 else ''} of outlines overlap, in {pixels} pixels: {rule}"]
    hidden = np.setdiff1d(filled.values[filled.values > 0], filled.labels)
    if hidden.size:
        texts.append(f"{hidden.size} of them vanish{'es' if hidden.size == 1 else ''} under others")
    return texts


def _check_inside(outlines: Sequence[Outline], shape: tuple[int, ...]) -> None:
    """Raise an `InputError` if most outlines lie outside the image: they are those of another one."""
    rings = [ring for one in outlines for ring in one.rings]
    counts = np.array([sum(map(len, one.rings)) for one in outlines], np.int64)
    counts = counts[counts > 0]
    if not counts.size:
        return
    points, first = np.concatenate(rings), np.cumsum(counts) - counts
    low, high = np.minimum.reduceat(points, first), np.maximum.reduceat(points, first)
    outside = int(np.count_nonzero(((high <= 0) | (low >= shape[-2:])).any(axis=1)))
    if outside > len(counts) / 2:
        cause = f"{outside} of {len(counts)} outlines lie outside the image, which is {shape[-1]} x {shape[-2]} pixels"
        raise InputError(cause, hint="are they those of another image, or of one of another size?")


def _check_slices_are_linked(outlines: Sequence[Outline]) -> None:
    """Raise an `InputError` if outlines in several slices do not say which of them are one object."""
    slices = {one.plane.z for one in outlines if one.plane is not None}
    unlinked = sum(one.object_number is None for one in outlines)
    if len(slices) > 1 and unlinked:
        cause = f"{unlinked} outlines in {len(slices)} slices do not say which of them are one object"
        hint = "say slices = 'z' in the recipe, which learns from sections, or give a label image of the volume"
        raise InputError(cause, hint=hint)


def _class_values(outlines: Sequence[Outline], data: DataSettings) -> list[int]:
    """Return the value of the class of each outline; raise an `InputError` that lists classes the recipe lacks."""
    known = {name.casefold(): value for value, name in enumerate(data.foreground, 1)}
    values = [_class_value(one, known) for one in outlines]
    # Points and lines have no pixels, and need no class.
    lacking = [one for one, value in zip(outlines, values, strict=True) if not value and one.rings]
    unknown = Counter(one.class_name or one.name or "(none)" for one in lacking)
    if unknown:
        shown = list_some([f"{name} ({count})" for name, count in unknown.most_common()], _MAX_NAMES)
        hint = f"the classes are {', '.join(data.foreground)}; outlines may also be called background or unlabelled"
        raise InputError(f"outlines of classes that the recipe lacks: {shown}", hint=hint)
    return values


def _class_value(outline: Outline, known: dict[str, int]) -> int:
    """Return the value of a class by its name, or the name of the outline; 0 if it is unknown."""
    if not outline.class_name and len(known) == 1:
        return next(iter(known.values()))
    full, name = outline.class_name.casefold(), outline.name.casefold()
    of_class = known.get(full) or known.get(full.partition(":")[0])  # QuPath's "Tumor: Positive"
    return of_class or known.get(name) or known.get(_NUMBER_AT_END.sub("", name), 0)
