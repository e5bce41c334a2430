"""Outlines of ImageJ and Fiji: ``.roi``, an outline, and ``.zip``, what the ROI Manager saves.

Outlines of ImageJ count the corners of pixels, as ours do, and are filled by the same rule, so that nothing is shifted.
An object that is one ring is written as such. One with holes or of several pieces becomes a composite of several rings:
Fiji, QuPath (through ImageJ) and roifile read it as the same pixels, while its exterior alone would fill the holes.
"""

from __future__ import annotations

import re
import struct
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import InputError
from biounet.files.exports.labelled_image import LabelledImage
from biounet.files.formats.raw import translate_errors
from biounet.files.outlines.curves import bezier, ellipse, rectangle, spline
from biounet.files.outlines.outline import Outline, Plane, Ring
from biounet.files.outlines.strips import trace_strips
from biounet.files.outlines.trace import Polygon

if TYPE_CHECKING:
    from roifile import ImagejRoi

MAX_SIZE = 65_535  # px: coordinates of boxes have 16 bits
_LARGE = 60_000  # px: from here on, ImageJ stores fractions, since it takes larger integers for negative ones
_MAX_BYTES = 1 << 26  # of one outline; the size that an archive states may be anything
_MAX_POINTS = 65_535  # of a single ring
_NO_CLASS = "object"  # of objects whose model does not say what they are
_ELLIPSE_CORNERS = 72  # to ImageJ, an ellipse in any direction is such a polygon
_LABEL = re.compile(r"^label: *([1-9]\d{0,8}) *$", re.MULTILINE | re.ASCII)  # lines of properties
_AUTOMATIC = re.compile(r"\d{4,6}(-\d{4,6}){1,2}(-\d+)?", re.ASCII)  # slice, y and x
_CLASS = re.compile(r"^class:(.*)$", re.MULTILINE)
_DATE = (1980, 1, 1, 0, 0, 0)  # the same for all entries, so that the same results are the same bytes
_MOVE, _LINE, _CLOSE = 0, 1, 4  # steps of a path; 2 and 3 are curves with one and two points more
_CONTROL_POINTS = {_MOVE: 1, _LINE: 1, 2: 2, 3: 3, _CLOSE: 0}


@translate_errors
def read_imagej_roi(path: str | Path) -> list[Outline]:
    """Read ``.roi``, or ``.zip`` of many.

    Points and lines, which are no areas, come back without rings. The class is the property ``class`` that biounet
    writes; else the group, where ImageJ named the outline and not the user, whose names may say the class. A position
    without an axis is that of a slice.

    Raises
    ------
    InputError
        If the file is damaged or holds no outline of ImageJ, or nothing but points and lines.
    """
    path, outlines = Path(path), []
    for name, data in _read_entries(path):
        try:
            outlines.append(_decode(data, name))
        except (ValueError, TypeError, IndexError, OverflowError, struct.error) as error:
            entry = f"{name}.roi: " if path.suffix.lower() == ".zip" else ""
            cause = f"{entry}no outline of ImageJ, or damaged ({next(iter(str(error).splitlines()), 'cut short')})"
            raise InputError(cause, path=path, hint="save it again from the ROI Manager of ImageJ or Fiji") from error
    if not outlines:
        hint = "the ROI Manager of ImageJ or Fiji saves archives of .roi files"
        raise InputError("holds no outline of ImageJ", path=path, hint=hint)
    if not any(outline.rings for outline in outlines):
        cause = f"holds {len(outlines)} points or lines, and no area"
        raise InputError(cause, path=path, hint="points do not say which pixels are of an object: outline some objects")
    return _without_copied_numbers(outlines)


def _without_copied_numbers(outlines: list[Outline]) -> list[Outline]:
    """Return outlines without the numbers that several in one plane have: ImageJ copies an outline with them."""
    taken = Counter((one.plane, one.object_number) for one in outlines)
    return [one if taken[one.plane, one.object_number] == 1 else replace(one, object_number=None) for one in outlines]


def _read_entries(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name of each outline and its bytes; other files in an archive are no outlines."""
    # roifile saves several outlines as an archive, whatever the name.
    if path.suffix.lower() != ".zip" and not zipfile.is_zipfile(path):
        yield path.stem, path.read_bytes()
        return
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            name = entry.filename
            if not name.lower().endswith(".roi") or name.startswith("__MACOSX"):
                continue
            if entry.flag_bits & 1:
                raise InputError("the archive has a password", path=path, hint="save it without one")
            if entry.file_size > _MAX_BYTES:
                raise InputError(f"{name} has {entry.file_size} bytes: no outline", path=path)
            yield name[:-4], archive.read(entry)


def _decode(data: bytes, name: str) -> Outline:
    from roifile import ImagejRoi

    roi = ImagejRoi.frombytes(data)
    # Not all properties, of which there may be fifty: `ImagejRoi.properties` takes as long as everything else.
    label, class_name = _LABEL.search(roi.props), _CLASS.search(roi.props)
    name = roi.name or name
    group = f"group {roi.group}" if roi.group and _AUTOMATIC.fullmatch(name) else ""
    return Outline(
        rings=tuple(np.asarray(ring, np.float64) for ring in _rings(roi)),
        class_name=class_name[1].strip() if class_name else group,
        plane=_plane(roi),
        name=name,
        object_number=int(label[1]) if label else None,
    )


def _plane(roi: ImagejRoi) -> Plane | None:
    """Return the place in the stack: of three axes, or one number for a stack of one axis."""
    z, t, c = (n - 1 if n > 0 else None for n in (roi.z_position, roi.t_position, roi.c_position))
    if z is t is c is None:
        return Plane(z=roi.position - 1) if roi.position > 0 else None
    return Plane(z, t, c)


def _rings(roi: ImagejRoi) -> list[Ring]:
    """Return the rings of an area; none of a point, a line, a text or a picture."""
    from roifile import ROI_SUBTYPE, ROI_TYPE

    if roi.subtype in (ROI_SUBTYPE.TEXT, ROI_SUBTYPE.IMAGE, ROI_SUBTYPE.ARROW):
        return []
    if roi.multi_coordinates is not None:
        return _decode_path(roi.multi_coordinates)
    if roi.roitype in (ROI_TYPE.RECT, ROI_TYPE.OVAL):
        box: tuple[float, float, float, float] = (roi.top, roi.left, roi.bottom, roi.right)
        if roi.subpixelrect:
            box = (roi.yd, roi.xd, roi.yd + roi.heightd, roi.xd + roi.widthd)
        if roi.roitype == ROI_TYPE.RECT:
            return [rectangle(box, roi.rounded_rect_arc_size)]
        top, left, bottom, right = box
        centre = ((top + bottom) / 2, (left + right) / 2)
        return [ellipse(centre, ((bottom - top) / 2, 0.0), (0.0, (right - left) / 2))]
    if roi.roitype == ROI_TYPE.FREEHAND and roi.subtype in (ROI_SUBTYPE.ELLIPSE, ROI_SUBTYPE.ROTATED_RECT):
        return [_along_axis(roi, is_ellipse=roi.subtype == ROI_SUBTYPE.ELLIPSE)]
    if roi.roitype not in (ROI_TYPE.POLYGON, ROI_TYPE.FREEHAND, ROI_TYPE.TRACED):
        return []
    ring = np.asarray(roi.coordinates(), np.float64)[:, ::-1]
    is_spline = roi.options & 1 and len(ring) >= 3
    return [spline(ring) if is_spline else ring]


def _along_axis(roi: ImagejRoi, *, is_ellipse: bool) -> Ring:
    """Return an ellipse or rectangle that is stored by the ends of its long axis and a number for its width."""
    # The number takes the bytes of three others.
    packed = struct.pack(
        f"{roi.byteorder}BBh", roi.arrow_style_or_aspect_ratio, roi.arrow_head_size, roi.rounded_rect_arc_size
    )
    (width,) = struct.unpack(f"{roi.byteorder}f", packed)
    begin, end = np.array([roi.y1, roi.x1]), np.array([roi.y2, roi.x2])
    along = (end - begin) / 2
    across = np.array([-along[1], along[0]])
    if is_ellipse:  # its short axis as a part of the long one
        return ellipse(tuple((begin + end) / 2), tuple(along), tuple(across * width), _ELLIPSE_CORNERS)
    across *= width / 2 / max(np.hypot(*across), 1e-9)
    return np.stack([begin - across, end - across, end + across, begin + across])


def _decode_path(path: NDArray[np.float32]) -> list[Ring]:
    """Return the rings of a path of lines and curves: kinds of steps, each with its points ``x, y``."""
    rings: list[list[NDArray[np.float64]]] = []
    position, values = 0, path.astype(np.float64)
    while position < len(values):
        kind = int(values[position])
        if kind not in _CONTROL_POINTS or (kind != _MOVE and not rings):
            raise ValueError(f"a path with step {values[position]:g}")
        end = position + 1 + 2 * _CONTROL_POINTS[kind]
        points = values[position + 1 : end].reshape(-1, 2)[:, ::-1]
        if end > len(values):
            raise ValueError("a path that is cut short")
        if kind == _MOVE:
            rings.append([points])
        elif kind == _LINE:
            rings[-1].append(points)
        elif kind != _CLOSE:
            rings[-1].append(bezier(np.concatenate([rings[-1][-1][-1:], points])))
        position = end
    return [np.concatenate(ring) for ring in rings]


def write_imagej_roi(image: LabelledImage, path: Path) -> None:
    """Write the outlines of objects or classes as an archive that the ROI Manager of ImageJ and Fiji opens.

    In a stack or time series, an object has an outline in each of its planes. The columns of the table are properties
    of each outline; ImageJ shows them under Properties.

    Raises
    ------
    InputError
        If the image is larger than 65 535 pixels.
    """
    height, width = image.grid.shape[-2:]
    if max(height, width) > MAX_SIZE:
        cause = f"is {width} x {height} pixels, and outlines of ImageJ count to {MAX_SIZE}"
        raise InputError(cause, hint="the format geojson takes any size")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for roi in _rois(image):
            entry = zipfile.ZipInfo(f"{roi.name}.roi", _DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, roi.tobytes())


def _rois(image: LabelledImage) -> Iterator[ImagejRoi]:
    """Yield the outlines of all planes."""
    # Spaces and colons end a key.
    keys = {name: re.sub(r"[^\w.-]", "_", name) for name in ("label", "class", *image.columns)}
    for t, z, labels in image.planes():
        for label, polygons in trace_strips(labels):
            roi = _encode(polygons)
            roi.z_position, roi.t_position = (0 if number is None else number + 1 for number in (z, t))
            roi.name = _name(image, label, roi)
            roi.props = _properties(image, label, keys)
            if image.kind == "classes":
                roi.group = label
            yield roi


def _encode(polygons: list[Polygon]) -> ImagejRoi:
    """Return the outline of an object without name and place."""
    from roifile import ROI_OPTIONS, ROI_TYPE, ImagejRoi

    rings = [ring[:, ::-1] for polygon in polygons for ring in polygon]
    roi = ImagejRoi(roitype=ROI_TYPE.TRACED)
    points = np.concatenate(rings)
    (roi.left, roi.top), (roi.right, roi.bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    if len(rings) > 1 or len(points) > _MAX_POINTS:
        roi.roitype, roi.multi_coordinates = ROI_TYPE.RECT, np.concatenate([_encode_ring(ring) for ring in rings])
        roi.shape_roi_size = len(roi.multi_coordinates)
        return roi
    roi.n_coordinates = len(points)
    roi.integer_coordinates = points - np.array([roi.left, roi.top], np.int32)
    if max(roi.bottom, roi.right) > _LARGE:
        roi.options = ROI_OPTIONS.SUB_PIXEL_RESOLUTION
        roi.subpixel_coordinates = points.astype(np.float32)
    return roi


def _encode_ring(ring: NDArray[np.int32]) -> NDArray[np.float32]:
    kinds = np.full((len(ring), 1), _LINE, np.float32)
    kinds[0] = _MOVE
    return np.append(np.hstack([kinds, ring.astype(np.float32)]), np.float32(_CLOSE))


def _name(image: LabelledImage, label: int, roi: ImagejRoi) -> str:
    """Return what an outline is called: its class and label.

    In a stack, it begins with plane, y and x as ImageJ calls outlines. It takes the plane from there in stacks of one
    axis, where it does not look at positions of several.
    """
    name = re.sub(r"[/\\\0]", "-", image.label_name(label))
    plane = roi.z_position or roi.t_position
    if not plane:
        return name
    if roi.z_position and roi.t_position:
        name = f"{name} t{roi.t_position}"
    numbers = (plane, (roi.top + roi.bottom) // 2, (roi.left + roi.right) // 2)
    digits = max(4, len(str(max(*image.labels.shape))))
    return f"{'-'.join(f'{number:0{digits}}' for number in numbers)} {name}"


def _properties(image: LabelledImage, label: int, keys: Mapping[str, str]) -> str:
    """Return the properties of an outline, a line each: label and class of its object, and its row of the table."""
    name = image.class_of(label)
    known = {} if name == _NO_CLASS else {"class": name}
    cells = {"label": label} | known | image.row(label)
    return "".join(f"{keys[name]}: {_cell(cell)}\n" for name, cell in cells.items())


def _cell(value: Any) -> str:  # noqa: ANN401
    """Return a value as text on one line."""
    return f"{value:.7g}" if isinstance(value, float) else " ".join(str(value).replace("\\", "/").split())
