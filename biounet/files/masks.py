"""Annotations as people store them: object ids, classes, strokes, and colours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.annotation import UNLABELLED, Annotation
from biounet.errors import InputError
from biounet.files.picture import read_picture
from biounet.files.read import open_raw
from biounet.recipe import DataSettings
from biounet.volume import Grid

_LARGEST = np.iinfo(np.int32).max
_POINT = 4  # pixels: a label image whose objects are all this small or smaller marks points


def read_annotation(path: str | Path, data: DataSettings, grid: Grid | None = None) -> Annotation:
    """Read an annotation.

    Parameters
    ----------
    path
        A label image or, where the recipe has a palette, a picture in its colours.
    data
        What the values mean. In scribbles 0 is unlabelled, a stroke of the first class has 1, and so on; a class called
        ``background`` becomes 0 and the others keep their order.
    grid
        Grid of the image, which the annotation must share.

    Raises
    ------
    InputError
        If it has another shape, or values that the recipe does not know, or nothing is labelled.
    """
    path = Path(path)
    labels = _from_colours(path, data) if data.palette else _from_values(path, data)
    if grid is not None and labels.shape != grid.shape:
        cause = f"is {_shape(labels.shape)}, its image {_shape(grid.shape)}"
        raise InputError(cause, path=path, hint="an annotation has the pixels of its image")
    if (labels == UNLABELLED).all():
        raise InputError("nothing is labelled", path=path)
    if data.kind == "instances":
        _refuse_points(labels, path)
    return Annotation(np.ascontiguousarray(labels), data.kind, grid or Grid(labels.shape), path)


def read_labels(path: str | Path) -> NDArray[np.int32]:
    """Read a label image as it is: integers, shape ``([z,] y, x)``.

    Raises
    ------
    InputError
        If values are fractions, or beyond 32 bits, or the image has several channels.
    """
    path = Path(path)
    values = _integers(path)
    if values.min(initial=0) < -_LARGEST - 1 or values.max(initial=0) > _LARGEST:
        raise InputError(f"label {values.max()} does not fit in 32 bits", path=path)
    return np.ascontiguousarray(values.astype(np.int32))


def _from_values(path: Path, data: DataSettings) -> NDArray[np.int32]:
    values = _integers(path).astype(np.int64)
    if data.kind == "scribbles":
        unlabelled = (values == 0) | (values == data.unlabelled)
    else:
        unlabelled = values == data.unlabelled
    known = values[~unlabelled]
    if known.size and known.min() < 0:
        raise InputError(f"value {known.min()} is negative", path=path, hint="declare it as data.unlabelled")
    if known.size and known.max() > _LARGEST:
        raise InputError(f"object id {known.max()} does not fit in 32 bits", path=path)
    labels = np.where(unlabelled, UNLABELLED, values)
    if data.kind != "instances":
        _refuse_unknown(labels, data, path)
        labels = _background_first(labels, data)
    return labels.astype(np.int32)


def _refuse_unknown(labels: NDArray[np.int64], data: DataSettings, path: Path) -> None:
    values, counts = np.unique(labels[labels > len(data.classes)], return_counts=True)
    if not values.size:
        return
    shown = ", ".join(f"{v} ({n} pixels)" for v, n in zip(values[:5], counts[:5], strict=True))
    hint = f"the classes are {', '.join(f'{n} {name}' for n, name in enumerate(data.classes, 1))}"
    if values.size > 5:
        hint = f"{values.size} values look like object ids: is this kind = 'instances'?"
    raise InputError(f"holds values that no class has: {shown}", path=path, hint=hint)


def _background_first(labels: NDArray[np.int64], data: DataSettings) -> NDArray[np.int64]:
    if "background" not in data.classes:
        return labels
    table = np.arange(-1, len(data.classes) + 1)
    own = data.classes.index("background") + 1
    table[own + 1] = 0
    table[own + 2 :] -= 1
    return np.asarray(table[labels + 1])


def _from_colours(path: Path, data: DataSettings) -> NDArray[np.int32]:
    raw = open_raw(path)
    picture = raw.load()
    if picture.ndim != 3 or picture.shape[-1] not in (3, 4):
        raise InputError("the recipe has a palette, but this is no colour picture", path=path)
    codes = _code(picture[..., 0], picture[..., 1], picture[..., 2])
    names = [name for name in data.classes if name != "background"]
    meaning = {"unlabelled": UNLABELLED, "background": 0, **{name: n for n, name in enumerate(names, 1)}}
    labels = np.full(codes.shape, UNLABELLED - 1, np.int32)
    for colour, name in data.palette.items():
        labels[codes == int(colour.lstrip("#"), 16)] = meaning[name]
    strange, counts = np.unique(codes[labels == UNLABELLED - 1], return_counts=True)
    if strange.size:
        order = np.argsort(-counts)[:5]
        shown = ", ".join(f"#{strange[n]:06X} ({counts[n]} pixels)" for n in order)
        hint = "a palette needs exact colours; JPEG changes them" if strange.size > 5 else "add it to data.palette"
        raise InputError(f"holds {strange.size} colours that the palette lacks: {shown}", path=path, hint=hint)
    return labels


def _code(red: NDArray[Any], green: NDArray[Any], blue: NDArray[Any]) -> NDArray[np.int64]:
    return red.astype(np.int64) << 16 | green.astype(np.int64) << 8 | blue.astype(np.int64)


def _integers(path: Path) -> NDArray[Any]:
    raw = open_raw(path)
    if raw.dtype == np.uint8 and raw.axes.endswith("S") and path.suffix.lower() == ".png":
        raw = read_picture(path, palette_as_colours=False)
    values = raw.load()
    values = values.squeeze() if values.ndim > 2 and values.size else values
    if "S" in raw.axes and raw.shape[raw.axes.index("S")] > 1:
        raise InputError("a colour picture, not a label image", path=path, hint="declare its colours in data.palette")
    if values.ndim not in (2, 3):
        raise InputError(f"a label image has 2 or 3 axes, not shape {raw.shape}", path=path)
    if values.dtype.kind == "f":
        if not np.isfinite(values).all() or (values != np.floor(values)).any():
            raise InputError("labels are whole numbers, this file holds fractions", path=path)
        values = values.astype(np.int64)
    return values.astype(np.uint8) if values.dtype == np.bool_ else values


def _refuse_points(labels: NDArray[np.int32], path: Path) -> None:
    sizes = np.unique(labels[labels > 0], return_counts=True)[1]
    if len(sizes) >= 3 and sizes.max() <= _POINT:
        cause = f"{len(sizes)} objects of at most {_POINT} pixels: points are not outlines"
        raise InputError(cause, path=path, hint="outline the objects, or paint scribbles")


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
