"""Annotations as people store them: object ids, classes, strokes, and colours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import (
    UNLABELLED,
    Annotation,
    DataSettings,
    Grid,
    InputError,
    SettingsError,
    inspect_annotation,
    keep_slices,
)
from biounet.files.axes import ReadOptions, named_axes
from biounet.files.dataset_index.alignment import compare_alignment, reorder_labels, stored_shape
from biounet.files.dataset_index.names import stem_of
from biounet.files.formats.raw import RawImage, in_colour
from biounet.files.read import calibrate, open_raw

_LARGEST = np.iinfo(np.int32).max
_JPEG = b"\xff\xd8\xff"
_COLOURS = 3
_ROUNDING = 1e-3  # what a scale in the header or another type left of a whole number; interpolation leaves more
_SHOWN = 5  # values that a message lists


def read_annotation(
    path: str | Path,
    data: DataSettings,
    grid: Grid | None = None,
    options: ReadOptions | None = None,
    order: Grid | None = None,
) -> Annotation:
    """Read an annotation.

    Parameters
    ----------
    path
        A label image or, where the recipe has a palette, a picture in its colours.
    data
        What the values mean. In scribbles 0 is unlabelled, a stroke of the first class has 1, and so on; a class called
        ``background`` becomes 0 and the others keep their order.
    grid
        Grid of the image, which the annotation must share. It may be stored in another order, axes exchanged or
        flipped, if its affine says so.
    options
        How the image is read: axes, channel and plane hold for an annotation that has as many.
    order
        Grid in whose order the voxels shall be where the annotation need not share it, instead of `grid`.

    Raises
    ------
    InputError
        If it has another shape, or values that the recipe does not know, or nothing is labelled, or what it holds
        cannot be what the recipe says (see `biounet.core`).
    SettingsError
        If the recipe does not name the strokes of scribbles.
    """
    path = Path(path)
    if data.kind == "scribbles" and not data.classes:
        raise SettingsError(
            "data.classes: the strokes of scribbles need names", hint="for example ['background', 'cell']"
        )
    _refuse_jpeg(path)
    labels = _from_colours(path, data) if data.palette else _from_values(path, data, options)
    if grid is not None and (1, *labels.shape) == grid.shape:
        labels = labels[None]  # a volume of one slice
    labels = reorder_labels(labels, path, grid or order)
    if grid is not None and labels.shape != grid.shape:
        cause = f"is {_shape(labels.shape)}, its image {_shape(grid.shape)}"
        hint = "an annotation has the pixels of its image"
        hint = "the axes are exchanged" if labels.shape == grid.shape[::-1] else hint
        raise InputError(cause, path=path, hint=hint)
    if data.slices is not None:
        try:
            labels = keep_slices(labels, data.slices, data.slice_numbers)
        except InputError as error:
            raise InputError(error.cause, path=path) from None
    notes = _remark_on_place(path, grid) if grid is not None and grid.affine is not None else ()
    if (labels == UNLABELLED).all():
        raise InputError("nothing is labelled", path=path)
    return _judged(Annotation(labels, data.kind, grid or Grid(labels.shape), path, notes))


def undrawn_regions(path: Path, data: DataSettings) -> frozenset[str]:
    """Return the regions, or classes, that nobody drew in the case of this annotation: they do not exist there."""
    return frozenset(name for case in (stem_of(path), path.parent.name) for name in data.unknown.get(case, ()))


def _remark_on_place(path: Path, grid: Grid) -> tuple[str, ...]:
    """Refuse an annotation that says of itself that it lies elsewhere than its image; return remarks if it may."""
    raw = open_raw(path)
    if raw.header is None:
        return ()
    own, _ = calibrate(stored_shape(raw, grid.shape), raw, path, ReadOptions(dims=grid.dims))
    difference, remark = compare_alignment(grid, own)
    if difference:
        raise InputError(f"does not lie where its image does: {difference}", path=path, hint="draw it on its image")
    return (f"its annotation {remark}",) if remark else ()


def read_labels(path: str | Path, options: ReadOptions | None = None) -> NDArray[np.int32]:
    """Read a label image as it is: integers, shape ``([z,] y, x)``.

    Parameters
    ----------
    path
        The label image.
    options
        Its axes, and the channel and plane to use, where there is a choice.

    Raises
    ------
    InputError
        If values are fractions, or beyond 32 bits, or the image has several channels.
    """
    path = Path(path)
    values = _integers(path, options)
    if values.min() < -_LARGEST - 1 or values.max() > _LARGEST:
        raise InputError(f"label {values.max()} does not fit in 32 bits", path=path)
    return np.ascontiguousarray(values.astype(np.int32))


def _from_values(path: Path, data: DataSettings, options: ReadOptions | None) -> NDArray[np.int32]:
    values = _integers(path, options)
    unlabelled = values == data.unlabelled
    if data.kind == "scribbles":
        unlabelled |= values == 0
    lowest = int(values.min(where=~unlabelled, initial=0))
    largest = int(values.max(where=~unlabelled, initial=0))
    if lowest < 0:
        raise InputError(f"value {lowest} is negative", path=path, hint="declare it as data.unlabelled")
    if largest > _LARGEST:
        hint = "if it means unlabelled, declare it as data.unlabelled"
        raise InputError(f"object id {largest} does not fit in 32 bits", path=path, hint=hint)
    if data.kind != "instances" and largest > len(data.classes):
        raise _unknown_values(values[~unlabelled & (values > len(data.classes))], data, path)
    labels = values.astype(np.int32)
    labels[unlabelled] = UNLABELLED
    return labels if data.kind == "instances" else _background_first(labels, data)


def _unknown_values(strange: NDArray[Any], data: DataSettings, path: Path) -> InputError:
    values, counts = np.unique(strange, return_counts=True)
    shown = ", ".join(f"{v} ({n} pixels)" for v, n in zip(values[:_SHOWN], counts[:_SHOWN], strict=True))
    names = "0 unlabelled" if data.kind == "scribbles" else "0 background"
    hint = f"the classes are {names}, {', '.join(f'{n} {name}' for n, name in enumerate(data.classes, 1))}"
    if values.size > _SHOWN:
        hint = f"{values.size} values look like object ids: is this kind = 'instances'?"
    elif values[-1] in (255, 65535):
        hint += f"; if {values[-1]} means unlabelled, declare it as data.unlabelled"
        if values.size == len(data.classes) == 1:
            hint += f"; if {values[-1]} is {data.classes[0]}, write 1 for it"
    elif values.size > 1:
        hint += "; if they are ids of objects, this is kind = 'instances'"
    elif values[-1] == len(data.classes) + 1 and data.kind == "classes" and "background" not in data.classes:
        hint += "; if background has a value of its own, name it among them as 'background'"
    return InputError(f"holds values that no class has: {shown}", path=path, hint=hint)


def _background_first(labels: NDArray[np.int32], data: DataSettings) -> NDArray[np.int32]:
    if "background" not in data.classes:
        return labels
    table = np.arange(-1, len(data.classes) + 1, dtype=np.int32)  # of the values from -1 (unlabelled) on
    own = data.classes.index("background") + 1
    table[own + 1] = 0
    table[own + 2 :] -= 1
    return np.asarray(table[labels + 1])


def _from_colours(path: Path, data: DataSettings) -> NDArray[np.int32]:
    codes = _colour_codes(in_colour(open_raw(path), path), path)
    meaning = {"unlabelled": UNLABELLED, "background": 0, **{name: n for n, name in enumerate(data.foreground, 1)}}
    unknown = UNLABELLED - 1
    labels = np.full(codes.shape, unknown, np.int32)
    for colour, name in data.palette.items():
        labels[codes == int(colour.lstrip("#"), 16)] = meaning[name]
    strange, counts = np.unique(codes[labels == unknown], return_counts=True)
    if strange.size:
        order = np.argsort(-counts, kind="stable")[:_SHOWN]
        shown = ", ".join(f"#{strange[n]:06X} ({counts[n]} pixels)" for n in order)
        hint = "a palette needs exact colours; JPEG, smoothing and resizing change them"
        hint = "add them to data.palette" if strange.size <= _SHOWN else hint
        raise InputError(f"{strange.size} colours that the palette lacks: {shown}", path=path, hint=hint)
    return labels


def _colour_codes(raw: RawImage, path: Path) -> NDArray[np.int32]:
    """Return ``0xRRGGBB`` of each pixel. A picture that happens to be all grey may be stored without colours."""
    if raw.dtype != np.uint8 or raw.axes not in ("YXS", "YX"):
        raise InputError(
            f"the recipe has a palette, but this is no colour picture of 8 bits ({raw.axes} {raw.dtype})", path=path
        )
    picture = raw.load()
    samples = picture.shape[2] - len(raw.alpha) if picture.ndim == 3 else 1
    bands = [picture[..., n] if picture.ndim == 3 else picture for n in ((0, 1, 2) if samples >= 3 else (0, 0, 0))]
    red, green, blue = (band.astype(np.int32) for band in bands)
    return red << 16 | green << 8 | blue


def _integers(path: Path, options: ReadOptions | None) -> NDArray[Any]:
    """Return the numbers of a label image, shape ``([z,] y, x)``: its palette is display, unless it is a mask."""
    raw = open_raw(path)
    raw = in_colour(raw, path) if raw.dtype == np.bool_ else raw  # of which white may be 0
    if raw.dtype.kind not in "biuf":
        raise InputError(f"labels of type {raw.dtype} are not supported", path=path)
    values = raw.load()
    if raw.alpha:
        at = raw.axes.index("S")
        values = values[(slice(None),) * at + (slice(0, min(raw.alpha)),)]
    named = _named(raw, options, path)
    gone = tuple(n for n, letter in enumerate(named) if values.shape[n] == 1 and letter not in "YX")
    values, axes = values.squeeze(gone), "".join(letter for n, letter in enumerate(named) if n not in gone)
    values, axes = _chosen(values, axes, options, path)
    if "S" in axes:
        values, axes = _grey(values, axes.index("S"), path), axes.replace("S", "")
    if axes not in ("YX", "ZYX", "QYX", "IYX"):
        raise InputError(f"a label image has axes YX or ZYX, not {raw.axes} of shape {_shape(raw.shape)}", path=path)
    if values.dtype.kind == "f":
        if not np.isfinite(values).all() or (np.abs(values - np.rint(values)) > _ROUNDING).any():
            raise InputError("labels are whole numbers, this file holds fractions", path=path)
        values = np.rint(values)
        if np.abs(values).max() > 2.0**53:
            raise InputError(f"label {values.max():g} is no object id", path=path)
        values = values.astype(np.int64)
    return values.astype(np.uint8) if values.dtype == np.bool_ else values


def _grey(values: NDArray[Any], at: int, path: Path) -> NDArray[Any]:
    """Return the one value that all colours of a pixel have, as programs store grey that know nothing but colours."""
    bands = np.moveaxis(values, at, 0)
    if len(bands) < _COLOURS or any((band != bands[0]).any() for band in bands[1:]):
        hint = "save one number for each object, in grey, or declare the colours of classes in data.palette"
        raise InputError("a colour picture, not a label image", path=path, hint=hint)
    return np.asarray(bands[0])


def _named(raw: RawImage, options: ReadOptions | None, path: Path) -> str:
    """Return the axes, as the options name them where there are as many and the file itself does not say."""
    given = None if options is None or raw.header is not None else options.axes
    fits = given is not None and len(given) in (len(raw.shape), sum(length > 1 for length in raw.shape))
    return named_axes(raw, given, path) if fits else raw.axes


def _chosen(values: NDArray[Any], axes: str, options: ReadOptions | None, path: Path) -> tuple[NDArray[Any], str]:
    """Return the channel and plane that the options choose, where the label image has several."""
    if options is None:
        return values, axes
    flat = options.dims == 2 and len(axes) - ("C" in axes) == 3
    stack = next((letter for letter in axes if letter not in "CYX"), "") if flat else ""
    for letter, number, what in (("C", options.channel, "channel"), (stack, options.plane, "plane")):
        if letter and letter in axes and isinstance(number, int):
            at = axes.index(letter)
            if not 0 <= number < values.shape[at]:
                raise InputError(f"no {what} {number}: there are {values.shape[at]}, counted from 0", path=path)
            values, axes = values.take(number, at), axes.replace(letter, "")
    return values, axes


def _judged(annotation: Annotation) -> Annotation:
    """Refuse an annotation that cannot hold what it is declared to; return it with what else is odd about it."""
    found = inspect_annotation(annotation)
    if found and found[0].severity == "problem":
        raise InputError(found[0].cause, path=annotation.source, hint=found[0].hint or None)
    return replace(annotation, notes=(*annotation.notes, *(finding.cause for finding in found)))


def _refuse_jpeg(path: Path) -> None:
    if path.is_file():
        with path.open("rb") as file:
            if file.read(len(_JPEG)) == _JPEG:
                cause = "a JPEG, which changes values along every edge: no label image"
                raise InputError(cause, path=path, hint="export the labels again, as PNG or TIFF")


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
