"""CZI of Zeiss (ZEN), through czifile, which puts mosaics together: each scene is one here, too.

czifile of 2026 needs Python 3.12; what pip finds for earlier ones has another interface.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from biounet.core import InputError, require_extra
from biounet.files.formats.pixel_size import length_um, make_calibration, seconds
from biounet.files.formats.raw import COLOURS, RawImage
from biounet.files.formats.scenes import Scene, choose_scene

CZI_MAGIC = b"ZISRAWFILE"
_NEEDED = (3, 12)  # version of Python
_METRE = Fraction(10**6)  # µm
_AS_OME_TIFF = "save it as OME-TIFF, in ZEN or in Fiji with Bio-Formats"
_OTHER_AXES = {"R": "rotations", "I": "illuminations", "H": "phases", "V": "views", "B": "blocks"}


def list_czi(path: Path) -> tuple[Scene, ...]:
    """Return the scenes of a file, with their names where they have some."""
    with _open(path) as czi:
        return tuple(_scenes(czi, _metadata(czi)))


def read_czi(path: Path, scene: str) -> RawImage:
    """Read the metadata of one scene."""
    with _open(path) as czi:
        metadata = _metadata(czi)
        scenes = _scenes(czi, metadata)
        key = scenes[choose_scene([*scenes], scene, path)]
        image = czi.scenes[key]
        sizes: dict[str, int] = dict(image.sizes)
        for axis, what in _OTHER_AXES.items():
            if axis in sizes:
                raise InputError(f"an image of several {what}, which is not read", path=path, hint=_AS_OME_TIFF)
        calibration = make_calibration(_spacing(metadata))
        samples = sizes.get("S", 1)
        names = tuple(image.channels)
        return RawImage(
            axes="".join(sizes),
            shape=tuple(sizes.values()),
            dtype=np.dtype(image.dtype).newbyteorder("="),
            load=lambda: _load(path, key),
            axes_source="CZI",
            spacing=calibration.spacing_um,
            channel_names=COLOURS if samples in (len(COLOURS), len(COLOURS) + 1) else names,
            alpha=(len(COLOURS),) if samples > len(COLOURS) else (),
            notes=calibration.notes,
            interval=_interval(metadata),
            shares_file=len(scenes) > 1,
        )


def _load(path: Path, key: int) -> NDArray[Any]:
    with _open(path) as czi:
        array = np.asarray(czi.scenes[key].asarray(maxworkers=1))  # files are read in parallel already
    return array.astype(array.dtype.newbyteorder("="), copy=False)


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    _require_czifile(path)
    import czifile

    if not hasattr(czifile.CziFile, "scenes"):
        cause = "CZI (Zeiss) is not read with this version of czifile, which is of before 2026"
        raise InputError(cause, path=path, hint="pip install -U 'biounet[vendor]'")
    with czifile.CziFile(path) as czi:
        yield czi


def _require_czifile(path: Path) -> None:
    try:
        require_extra("vendor", "czifile", "CZI (Zeiss)", path)
    except InputError:
        if sys.version_info >= _NEEDED:
            raise
        here = ".".join(map(str, sys.version_info[:2]))
        hint = f"install 'biounet[vendor]' for Python 3.12, or {_AS_OME_TIFF}"
        cause = f"CZI (Zeiss) is read with Python 3.12 or later, and this is {here}"
        raise InputError(cause, path=path, hint=hint) from None


def _metadata(czi: Any) -> ElementTree.Element:  # noqa: ANN401 - czifile has no types for Python 3.11
    return ElementTree.fromstring(czi.metadata() or "<ImageDocument/>")


def _scenes(czi: Any, metadata: ElementTree.Element) -> dict[Scene, int]:  # noqa: ANN401
    """Return the scenes by what czifile calls them: the numbers in the file, of which some may be absent."""
    names = {
        element.get("Index"): element.get("Name", "")
        for element in metadata.iterfind(".//Information/Image/Dimensions/S/Scenes/Scene")
    }
    return {Scene(str(key), names.get(str(key), "")): key for key in czi.scenes}


def _spacing(metadata: ElementTree.Element) -> dict[str, float | None]:
    """Return the pixel size along each axis in µm; the file states it in metres."""
    sizes = {}
    for distance in metadata.iterfind(".//Scaling/Items/Distance"):
        sizes[distance.get("Id", "")] = length_um(distance.findtext("Value"), _METRE)
    return {axis: sizes.get(axis) for axis in "XYZ"}


def _interval(metadata: ElementTree.Element) -> float | None:
    """Return the mean time between two frames in seconds, as recorded; what was asked for may be another."""
    positions = metadata.find(".//Information/Image/Dimensions/T/Positions")
    if positions is None:
        return None
    try:
        times = [float(time) for time in (positions.findtext("List/Offsets") or "").split()]
    except ValueError:
        return None
    if len(times) > 1:
        return seconds((times[-1] - times[0]) / (len(times) - 1))
    return seconds(positions.findtext("Interval/Increment"))
