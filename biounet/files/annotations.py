"""Read annotations: object ids, classes, scribbles, and colours."""

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
    list_some,
)
from biounet.files.axes import ReadOptions, resolve_axes, squeeze
from biounet.files.dataset_index.alignment import compare_alignment, reorder_labels, stored_shape
from biounet.files.dataset_index.names import may_be_outlines, stem_of
from biounet.files.drawn_annotations import DrawnImage, read_drawn_labels
from biounet.files.formats.dicom.segmentation import is_segmentation, read_segmentation
from biounet.files.formats.ome_zarr import is_label_image, label_groups
from biounet.files.formats.opening import open_raw
from biounet.files.formats.raw import (
    DEFAULT_LIMIT,
    RawImage,
    apply_palette,
    format_shape,
    remove_alpha,
    translate_errors,
)
from biounet.files.read import resolve_grid
from biounet.files.retry import read_first_bytes

_MAX_LABEL = np.iinfo(np.int32).max
_JPEG = b"\xff\xd8\xff"
_ROUNDING = 1e-3  # of integers by a scale in the header or another type; interpolation leaves larger fractions
_MAX_SHOWN = 5  # values that a message lists


def read_annotation(
    path: str | Path,
    data: DataSettings,
    grid: Grid | None = None,
    options: ReadOptions | None = None,
    order: Grid | None = None,
    image: Path | None = None,
) -> Annotation:
    """Read an annotation.

    Parameters
    ----------
    path
        A label image or, where the recipe has a palette, a picture in its colours; or outlines, as other programs draw
        them (see `biounet.files.drawn_annotations`).
    data
        What the values mean. In scribbles 0 is unlabelled and strokes of the first class are 1; a class called
        ``background`` becomes 0 and the others keep their order.
    grid
        Grid of the image, which the annotation must share. Its axes may be exchanged or flipped if its affine says so.
    options
        How the image is read: axes, channel and plane apply to an annotation that has as many.
    order
        Instead of `grid`: a grid whose axis order the result shall have, but which the annotation need not share.
        Outlines are filled on this or that.
    image
        File of the image: by its name it is found among those whose outlines are in one file.

    Raises
    ------
    InputError
        If it has another shape, values that the recipe lacks or no label, or contradicts the kind in the recipe (see
        `biounet.core.inspect_annotation`).
    SettingsError
        If the recipe does not name the strokes of scribbles.
    """
    path = Path(path)
    if data.kind == "scribbles" and not data.classes:
        cause = "data.classes: the strokes of scribbles need names"
        raise SettingsError(cause, hint="for example ['background', 'cell']")
    if may_be_outlines(path):
        return _finish(_read_drawn(path, data, grid or order, options, image), data)
    if is_segmentation(path):
        return _finish(_read_segments(path, data, grid or order, image), data)
    check_not_jpeg(path)
    labels = _from_colours(path, data) if data.palette else _from_values(path, data, options)
    if grid is not None and (1, *labels.shape) == grid.shape:
        labels = labels[None]  # a volume of one slice
    labels = reorder_labels(labels, path, grid or order)
    if grid is not None and labels.shape != grid.shape:
        cause = f"is {format_shape(labels.shape)}, its image {format_shape(grid.shape)}"
        is_transposed = labels.shape == grid.shape[::-1]
        hint = "the axes are exchanged" if is_transposed else "an annotation has the pixels of its image"
        raise InputError(cause, path=path, hint=hint)
    notes = _check_alignment(path, grid) if grid is not None and grid.affine is not None else ()
    return _finish(Annotation(labels, data.kind, grid or Grid(labels.shape), path, notes, image=image), data)


def _read_drawn(
    path: Path, data: DataSettings, grid: Grid | None, options: ReadOptions | None, image: Path | None
) -> Annotation:
    if grid is None:
        raise InputError("outlines have no size: they are read on the grid of their image", path=path)
    options = options or ReadOptions(dims=grid.dims)
    drawn = read_drawn_labels(path, data, DrawnImage(grid.shape, options, image))
    notes = drawn.notes
    if grid.affine is not None:
        notes += (f"outlines are taken to be drawn on the voxels as they are stored, {grid.axcodes}",)
    return Annotation(drawn.labels, data.kind, grid, path, notes, drawn.format, drawn.overlaps, image)


def _read_segments(path: Path, data: DataSettings, grid: Grid | None, image: Path | None) -> Annotation:
    """Read a DICOM SEG: segments that are called like all classes of the recipe are these, others go by number."""
    values, names = read_segmentation(path, grid)
    numbers = {name.casefold(): number for number, name in enumerate(data.classes, 1)}
    if data.kind != "instances" and all(name.casefold() in numbers for number, name in names.items() if number):
        table = np.zeros(max(names, default=0) + 1, np.int32)
        for number, name in names.items():
            table[number] = numbers[name.casefold()] if number else 0
        values = table[values]
    labels = _labels_of_values(values, path, data)
    return Annotation(labels, data.kind, grid or Grid(labels.shape), path, image=image)


def _finish(annotation: Annotation, data: DataSettings) -> Annotation:
    """Keep the slices of the recipe, and check what is left."""
    labels, path = annotation.labels, annotation.source
    if data.slices is not None:
        try:
            labels = keep_slices(labels, data.slices, data.slice_numbers)
        except InputError as error:
            raise InputError(error.cause, path=path) from None
    if (labels == UNLABELLED).all():
        raise InputError("nothing is labelled", path=path)
    annotation = replace(annotation, labels=labels)
    findings = inspect_annotation(annotation)
    if findings and findings[0].severity == "problem":
        raise InputError(findings[0].cause, path=path, hint=findings[0].hint or None)
    return replace(annotation, notes=(*annotation.notes, *(finding.cause for finding in findings)))


def undrawn_regions(path: Path, data: DataSettings, image: Path | None = None) -> frozenset[str]:
    """Return the regions or classes that were not drawn in the case of an annotation, and are unknown there.

    A case is called like the annotation, its folder or its image.
    """
    cases = {stem_of(path), path.parent.name, *([stem_of(image)] if image is not None else [])}
    return frozenset(name for case in cases for name in data.unknown.get(case, ()))


def _check_alignment(path: Path, grid: Grid) -> tuple[str, ...]:
    """Check that an annotation lies where its image does, as far as its header states it; return notes."""
    raw = open_raw(path)
    if raw.header is None:
        return ()
    own, _ = resolve_grid(stored_shape(raw, grid.shape), raw, path, ReadOptions(dims=grid.dims))
    difference, note = compare_alignment(grid, own)
    if difference:
        raise InputError(f"does not lie where its image does: {difference}", path=path, hint="draw it on its image")
    return (f"its annotation {note}",) if note else ()


def read_labels(path: str | Path, options: ReadOptions | None = None) -> NDArray[np.int32]:
    """Read a label image as stored: integers, shape ``([z,] y, x)``.

    Fractions, values beyond 32 bits, and several channels where `options` choose none are an `InputError`.
    """
    path = Path(path)
    values = _read_integers(path, options)
    if values.min() < -_MAX_LABEL - 1 or values.max() > _MAX_LABEL:
        raise InputError(f"label {values.max()} does not fit in 32 bits", path=path)
    return np.ascontiguousarray(values.astype(np.int32))


def _from_values(path: Path, data: DataSettings, options: ReadOptions | None) -> NDArray[np.int32]:
    return _labels_of_values(_read_integers(path, options), path, data)


def _labels_of_values(values: NDArray[Any], path: Path, data: DataSettings) -> NDArray[np.int32]:
    unlabelled = values == data.unlabelled
    if data.kind == "scribbles":
        unlabelled |= values == 0
    lowest = int(values.min(where=~unlabelled, initial=0))
    largest = int(values.max(where=~unlabelled, initial=0))
    if lowest < 0:
        raise InputError(f"value {lowest} is negative", path=path, hint="declare it as data.unlabelled")
    if largest > _MAX_LABEL:
        hint = "if it means unlabelled, declare it as data.unlabelled"
        raise InputError(f"object id {largest} does not fit in 32 bits", path=path, hint=hint)
    if data.kind != "instances" and largest > len(data.classes):
        raise _unknown_values_error(values[~unlabelled & (values > len(data.classes))], data, path)
    labels = values.astype(np.int32)
    labels[unlabelled] = UNLABELLED
    if data.kind == "instances" or "background" not in data.classes:
        return labels
    meaning = _label_values(data)
    table = np.array([UNLABELLED, 0, *(meaning[name] for name in data.classes)], np.int32)  # of values from -1
    return np.asarray(table[labels + 1])


def _label_values(data: DataSettings) -> dict[str, int]:
    return {"unlabelled": UNLABELLED, "background": 0, **{name: n for n, name in enumerate(data.foreground, 1)}}


def _unknown_values_error(unknown: NDArray[Any], data: DataSettings, path: Path) -> InputError:
    values, counts = np.unique(unknown, return_counts=True)
    shown = ", ".join(f"{v} ({n} pixels)" for v, n in zip(values[:_MAX_SHOWN], counts[:_MAX_SHOWN], strict=True))
    names = "0 unlabelled" if data.kind == "scribbles" else "0 background"
    hint = f"the classes are {names}, {', '.join(f'{n} {name}' for n, name in enumerate(data.classes, 1))}"
    if values.size > _MAX_SHOWN:
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


def _from_colours(path: Path, data: DataSettings) -> NDArray[np.int32]:
    codes = _colour_codes(apply_palette(open_raw(path), path), path)
    meaning, unknown = _label_values(data), UNLABELLED - 1
    labels = np.full(codes.shape, unknown, np.int32)
    for colour, name in data.palette.items():
        labels[codes == int(colour.lstrip("#"), 16)] = meaning[name]
    others, counts = np.unique(codes[labels == unknown], return_counts=True)
    if others.size:
        order = np.argsort(-counts, kind="stable")[:_MAX_SHOWN]
        shown = ", ".join(f"#{others[n]:06X} ({counts[n]} pixels)" for n in order)
        hint = "a palette needs exact colours; JPEG, smoothing and resizing change them"
        hint = "add them to data.palette" if others.size <= _MAX_SHOWN else hint
        raise InputError(f"{others.size} colours that the palette lacks: {shown}", path=path, hint=hint)
    return labels


def _colour_codes(raw: RawImage, path: Path) -> NDArray[np.int32]:
    """Return ``0xRRGGBB`` of each pixel; a picture that is all grey may be stored without colours."""
    if raw.dtype != np.uint8 or raw.axes not in ("YXS", "YX"):
        cause = f"the recipe has a palette, but this is no colour picture of 8 bits ({raw.axes} {raw.dtype})"
        raise InputError(cause, path=path)
    picture = raw.load().reshape(*raw.shape[:2], -1)
    is_colour = picture.shape[2] - len(raw.alpha) >= 3
    red, green, blue = (picture[..., n if is_colour else 0].astype(np.int32) for n in range(3))
    return red << 16 | green << 8 | blue


def _read_integers(path: Path, options: ReadOptions | None) -> NDArray[Any]:
    """Return the values of a label image, shape ``([z,] y, x)``; palettes are display, but for those of masks."""
    raw = open_label_file(path)
    values, axes = select_labels(raw, remove_alpha(raw.load(), raw), options or ReadOptions(), path)
    if "S" in axes:  # programs store grey that write colours only
        bands, axes = np.moveaxis(values, axes.index("S"), 0), axes.replace("S", "")
        values = bands[0]
        if len(bands) < 3 or (bands != values).any():
            hint = "save one number for each object, in grey, or declare the colours of classes in data.palette"
            raise InputError("a colour picture, not a label image", path=path, hint=hint)
    check_label_axes(axes, raw, path)
    if values.dtype.kind == "f":
        if not np.isfinite(values).all() or (np.abs(values - np.rint(values)) > _ROUNDING).any():
            raise InputError("labels are whole numbers, this file holds fractions", path=path)
        values = np.rint(values)
        exact = 2.0 ** (np.finfo(values.dtype).nmant + 1)  # from here on, whole numbers next to each other become one
        if np.abs(values).max() >= exact:
            cause = f"label {np.abs(values).max():.17g}: {values.dtype} does not tell such numbers apart"
            raise InputError(cause, path=path, hint="save the labels as 32-bit integers")
        values = values.astype(np.int64)
    return values.astype(np.uint8) if values.dtype == np.bool_ else values


def open_label_file(path: Path, limit: int = DEFAULT_LIMIT) -> RawImage:
    """Open a label image by its header."""
    raw = open_raw(_label_image(path), limit)
    raw = apply_palette(raw, path) if raw.dtype == np.bool_ else raw  # white may be stored as 0
    if raw.dtype.kind not in "biuf":
        raise InputError(f"labels of type {raw.dtype} are not supported", path=path)
    return raw


def select_labels(raw: RawImage, values: NDArray[Any], options: ReadOptions, path: Path) -> tuple[NDArray[Any], str]:
    """Return the plane and channel of a label image that the options choose, and its axes; values may be views."""
    fits = len(options.axes or "") in (len(raw.shape), sum(length > 1 for length in raw.shape))
    axes = resolve_axes(raw, options.axes if fits and raw.header is None else None, path)
    return _select_image(*squeeze(values, axes, "YX"), options, path)


def check_label_axes(axes: str, raw: RawImage, path: Path) -> None:
    """Raise an `InputError` if what is left of the axes of a label image is more than one image or volume."""
    if axes not in ("YX", "ZYX", "QYX", "IYX"):
        cause = f"a label image has axes YX or ZYX, not {raw.axes} of shape {format_shape(raw.shape)}"
        raise InputError(cause, path=path)


def _label_image(path: Path) -> Path:
    """Return the label image in an OME-Zarr that is an image with one; other paths are label images themselves."""
    names = () if is_label_image(path) else label_groups(path)
    if len(names) > 1:
        hint = f"name one, such as {path.name}/labels/{names[0]}"
        raise InputError(f"holds {len(names)} label images: {list_some(names, _MAX_SHOWN)}", path=path, hint=hint)
    return path / "labels" / names[0] if names else path


def _select_image(values: NDArray[Any], axes: str, options: ReadOptions, path: Path) -> tuple[NDArray[Any], str]:
    """Select the channel and plane of the options, where the label image has several."""
    has_planes = options.dims == 2 and len(axes) - ("C" in axes) == 3
    stack = next((letter for letter in axes if letter not in "CYX"), "") if has_planes else ""
    for letter, number, name in (("C", options.channel, "channel"), (stack, options.plane, "plane")):
        if letter and letter in axes and isinstance(number, int):
            axis = axes.index(letter)
            if not 0 <= number < values.shape[axis]:
                raise InputError(f"no {name} {number}: there are {values.shape[axis]}, counted from 0", path=path)
            values, axes = values[(slice(None),) * axis + (number,)], axes.replace(letter, "")
    return values, axes


@translate_errors
def check_not_jpeg(path: Path) -> None:
    """Raise an `InputError` if labels are stored as JPEG."""
    if path.is_file() and read_first_bytes(path, len(_JPEG)) == _JPEG:
        cause = "a JPEG, which changes values along every edge: no label image"
        raise InputError(cause, path=path, hint="export the labels again, as PNG or TIFF")
