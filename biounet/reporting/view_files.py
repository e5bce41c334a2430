"""What the report shows of an image besides its row: a thumbnail, the image itself, and the labels of its pixels.

They lie in a folder of their own, so that the results of an image stay few files. A page that is opened from a disk may
load scripts and pictures and nothing else: labels and figures of objects come as a script that calls one function.
"""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from biounet.files import atomic_path, write_text
from biounet.measurement import Table
from biounet.reporting.overlays import Canvas

if TYPE_CHECKING:
    from PIL.Image import Image

    from biounet.core import Grid

THUMBNAIL_SUFFIX, PICTURE_SUFFIX, DATA_SUFFIX = "_thumb.webp", "_view.webp", "_view.js"
VIEW_SUFFIXES = (THUMBNAIL_SUFFIX, PICTURE_SUFFIX, DATA_SUFFIX)

_VIEW_SIDE, _VIEW_BYTES = 1600, 200_000
_BYTES_PER_PIXEL = 0.08  # of a view, unless it is small: noise, of which nobody needs more, is most of what is stored
_SMALL = 15_000  # bytes
_THUMBNAIL_SIZE, _THUMBNAIL_BYTES = (192, 144), 20_000  # twice the pixels at which it is shown, for sharp screens
_QUALITIES = (80, 45)
_SHRINK = 0.85  # at most, of the sides of a picture that is too large at the lower quality
_EFFORT = 1  # of WebP, 0 to 6: half of a JPEG's bytes, in 30 ms for 520 x 696 pixels


def write_view_file(path: Path, canvas: Canvas, overlay: NDArray[np.uint8], data: str) -> None:
    """Write one of the files of an image, by its suffix, atomically; equal input gives equal bytes."""
    if path.name.endswith(DATA_SUFFIX):
        write_text(path, f"biounetView({data});\n")
    elif path.name.endswith(PICTURE_SUFFIX):
        most = min(_VIEW_BYTES, max(_SMALL, round(canvas.labels.size * _BYTES_PER_PIXEL)))
        _write_bytes(path, encode_picture(canvas.picture, (_VIEW_SIDE, _VIEW_SIDE), most))
    else:
        _write_bytes(path, encode_picture(overlay, _THUMBNAIL_SIZE, _THUMBNAIL_BYTES))


def _write_bytes(path: Path, content: bytes) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def encode_picture(rgb: NDArray[np.uint8], size: tuple[int, int], most: int) -> bytes:
    """Return a picture (y, x, 3) as WebP that fits into `size` (width, height) and has at most `most` bytes."""
    from PIL import Image  # slow to import

    image = Image.fromarray(rgb)
    image.thumbnail(size, Image.Resampling.BOX, reducing_gap=None)
    encoded = _encode(image, _QUALITIES[0])
    if len(encoded) > most:
        encoded = _encode(image, _QUALITIES[1])
    while len(encoded) > most:
        factor = min(_SHRINK, (most / len(encoded)) ** 0.5)
        width, height = (max(1, int(n * factor)) for n in image.size)
        image = image.resize((width, height), Image.Resampling.BOX)
        encoded = _encode(image, _QUALITIES[1])
    return encoded


def _encode(image: Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality, method=_EFFORT)
    return buffer.getvalue()


def view_data(canvas: Canvas, table: Table, grid: Grid | None, class_names: Mapping[int, str]) -> str:
    """Return what the viewer needs to know as JSON.

    Labels are runs of equal pixels, row after row, of an overlay, which can be smaller than the image: `hidden` objects
    have no pixel then; not said of several panels, which have no `grid`. Lengths and labels of the runs, then size and
    confidence of each object, are of 32 bits; the lowest bytes of each array come first (a third smaller); zlib, in
    base64.
    """
    labels = canvas.labels
    lengths, values = _runs(labels)
    arrays = [lengths.astype("<i4"), values.astype("<i4")]
    view: dict[str, Any] = {"size": [labels.shape[1], labels.shape[0]], "runs": len(lengths), "bright": canvas.bright}
    if table.kind == "objects":
        column = table.size_column
        sizes, confidence = table.columns[column], table.columns.get("confidence")
        view |= {"objects": len(sizes), "column": column, "confidence": confidence is not None}
        arrays += [np.ascontiguousarray(part, "<f4") for part in (sizes, confidence) if part is not None]
        view["hidden"] = 0 if grid is None else len(sizes) - len(np.unique(labels[labels > 0]))
    else:
        view["names"] = {str(value): name for value, name in class_names.items()}
    if grid is not None:
        view["source"] = [grid.shape[1], grid.shape[0]]
        if grid.spacing is not None:  # of a pixel of the labels, which may be one of several of the image
            view |= {"pixel": grid.spacing[1] * grid.shape[1] / labels.shape[1], "unit": grid.unit}
    planes = b"".join(array.view(np.uint8).reshape(-1, 4).T.tobytes() for array in arrays)
    view["data"] = base64.b64encode(zlib.compress(planes, 9)).decode()
    return json.dumps(view).replace("<", "\\u003c")


def _runs(labels: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    flat = labels.ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    return np.diff(np.append(starts, flat.size)), flat[starts]
