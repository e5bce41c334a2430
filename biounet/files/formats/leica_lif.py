"""LIF and LOF of Leica (LAS X), through liffile: each image of a project is a scene."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import InputError, list_some, require_extra
from biounet.files.formats.pixel_size import length_um, make_calibration, seconds, unit_in_um
from biounet.files.formats.raw import COLOURS, RawImage
from biounet.files.formats.scenes import Scene, choose_scene

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from liffile import LifFile
    from liffile.liffile import LifImageABC

LIF_MAGIC = b"p\0\0\0"
_HEAD = 13  # bytes, whose last 4 are the number of characters of the XML behind them
_SHOWN = 8  # names in a message
_DESCRIPTION = "./Data/Image/ImageDescription"
_DIMENSIONS = {"1": "X", "2": "Y", "3": "Z", "4": "T"}  # of the attribute DimID
_AS_OME_TIFF = "save it as OME-TIFF, in LAS X or in Fiji with Bio-Formats"
# What liffile calls axes that no image of a stack has
_OTHER_AXES = {
    "M": "a tile scan whose tiles are not merged",
    "A": "a series of angles",
    "N": "a series of lines",
    "Q": "a series of lines",
    "L": "a loop",
    "H": "fluorescence lifetimes",
}
_SPECTRUM = ("λ", "Λ")  # bands of emission and of excitation


def list_lif(path: Path) -> tuple[Scene, ...]:
    """Return the images of a project, with their names and those of their folders in it."""
    with _open(path) as lif:
        return _scenes(lif, path)


def read_lif(path: Path, scene: str) -> RawImage:
    """Read the metadata of one image; its pixels must all be in the file."""
    with _open(path) as lif:
        scenes = _scenes(lif, path)
        number = scenes.index(choose_scene(scenes, scene, path))
        image = lif.images[number]
        _check_readable(image, path)
        sizes = {_letter(axis, image): length for axis, length in image.sizes.items()}
        spacing, interval = _spacing(image.xml_element)
        calibration = make_calibration(spacing)
        return RawImage(
            axes="".join(sizes),
            shape=tuple(sizes.values()),
            dtype=image.dtype.newbyteorder("="),
            load=lambda: _load(path, number),
            axes_source="LIF",
            spacing=calibration.spacing_um,
            channel_names=COLOURS if sizes.get("S") == len(COLOURS) else _channel_names(image, sizes.get("C", 1)),
            notes=calibration.notes,
            interval=interval,
            shares_file=len(scenes) > 1,
        )


def _load(path: Path, number: int) -> NDArray[Any]:
    with _open(path) as lif:
        array = np.asarray(lif.images[number].asarray())
    return array.astype(array.dtype.newbyteorder("="), copy=False)


@contextmanager
def _open(path: Path) -> Iterator[LifFile]:
    require_extra("vendor", "liffile", "LIF (Leica)", path)
    from liffile import LifFile

    with path.open("rb") as file:
        head = file.read(_HEAD)
    needed, size = _HEAD + 2 * int.from_bytes(head[-4:], "little"), path.stat().st_size
    if needed > size:
        raise InputError(f"truncated: the header needs {needed} bytes, the file has {size}", path=path)
    with LifFile(path) as lif:
        yield lif


def _scenes(lif: LifFile, path: Path) -> tuple[Scene, ...]:
    stored = sum(element.find("./Data/Image") is not None for element in lif.xml_element.iter("Element"))
    if stored > len(lif.images):  # the package keeps the last one of a name
        names = list_some([image.path for image in lif.images], _SHOWN)
        cause = f"{stored} images, and {len(lif.images)} name{'' if len(lif.images) == 1 else 's'}: {names}"
        raise InputError(cause, path=path, hint="give each image a name of its own in LAS X")
    return tuple(Scene(str(number), image.path) for number, image in enumerate(lif.images))


def _check_readable(image: LifImageABC, path: Path) -> None:
    """Raise `InputError` for kinds of images that are not read, and for pixels that are not there."""
    if image.is_flim:
        raise InputError(f"image '{image.name}' holds fluorescence lifetimes, which are not read", path=path)
    for axis in image.sizes:
        if axis not in (*"XYZTCS", *_SPECTRUM):
            what = _OTHER_AXES.get(axis, f"an axis {axis}")
            hint = "merge them in LAS X, and save the result" if axis == "M" else _AS_OME_TIFF
            raise InputError(f"image '{image.name}' is {what}, which is not read", path=path, hint=hint)
    try:
        block = image.memory_block
    except KeyError:
        raise InputError(f"truncated: the pixels of image '{image.name}' are not there", path=path) from None
    size = path.stat().st_size
    if block.offset + block.size > size:
        cause = f"truncated: image '{image.name}' needs {block.offset + block.size} bytes, the file has {size}"
        raise InputError(cause, path=path)


def _letter(axis: str, image: LifImageABC) -> str:
    """Return the letter of an axis in `RawImage`: the bands of a spectrum are channels, if there are no others."""
    others = [other for other in image.sizes if other in ("C", *_SPECTRUM)]
    return ("C" if len(others) == 1 else "Q") if axis in _SPECTRUM else axis


def _spacing(element: Element) -> tuple[dict[str, float | None], float | None]:
    """Return the distance of pixels along each axis in µm, and of times in seconds.

    The file states the length from the first to the last element.
    """
    spacing: dict[str, float | None] = {}
    interval = None
    for dimension in element.iterfind(f"{_DESCRIPTION}/Dimensions/DimensionDescription"):
        axis = _DIMENSIONS.get(dimension.get("DimID", ""))
        steps = int(dimension.get("NumberOfElements", 1)) - 1
        length, unit = dimension.get("Length", ""), dimension.get("Unit", "")
        if axis is None or steps < 1:
            continue
        if axis == "T":
            interval = seconds(length, unit)
            interval = None if interval is None else interval / steps
        else:
            whole = length_um(_fraction(length, steps), unit_in_um(unit))
            spacing[axis] = whole
    return spacing, interval


def _fraction(text: str, steps: int) -> Fraction | None:
    try:
        return abs(Fraction(text)) / steps  # negative where the stage moved backwards
    except ValueError:
        return None


def _channel_names(image: LifImageABC, count: int) -> tuple[str, ...]:
    """Return the dyes of channels, or else the colours in which LAS X shows them; empty if these are not `count`."""
    if any(axis in _SPECTRUM for axis in image.sizes):
        bands = [coordinates for axis, coordinates in image.coords.items() if axis in _SPECTRUM]
        return tuple(f"{band * 1e9:.0f} nm" for band in bands[0]) if len(bands) == 1 else ()
    channels = image.xml_element.findall(f"{_DESCRIPTION}/Channels/ChannelDescription")
    channels.sort(key=lambda channel: int(channel.get("BytesInc", 0)))
    dyes = [_property(channel, "DyeName") for channel in channels]
    names = dyes if all(dyes) else [channel.get("LUTName", "") for channel in channels]
    return tuple(names) if all(names) and len(names) == count else ()


def _property(channel: Element, key: str) -> str:
    for entry in channel.iterfind("ChannelProperty"):
        if entry.findtext("Key") == key:
            return (entry.findtext("Value") or "").strip()
    return ""
