"""Pixel sizes in the descriptions of ImageJ and of slides, and in tags of a TIFF, and which of them are credible."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from tifffile import TiffFile, TiffPage

from biounet.core import Note, NoteCode

# As fractions, 325 nm is 0.325 µm exactly, and the ratio of integers in a tag is written again as it was read.
_UM: dict[str, Fraction] = {
    name: Fraction(size)
    for size, names in {
        "1e6": ("m", "meter", "metre"),
        "1e4": ("cm", "centimeter", "centimetre"),
        "1e3": ("mm", "millimeter", "millimetre"),
        "1": ("um", "µm", "μm", "\\u00b5m", "micron", "micrometer", "micrometre"),
        "1e-3": ("nm", "nanometer", "nanometre"),
        "1e-4": ("å", "angstrom", "\\u00c5"),
        "1e-6": ("pm", "picometer", "picometre"),
        "25400": ("inch", "in", "inches"),
        "25.4": ("thou", "mil"),
    }.items()
    for name in names
}
_SECONDS: dict[str, float] = {
    name: seconds
    for seconds, names in {
        1e-6: ("us", "µs", "usec"),
        1e-3: ("ms", "msec"),
        1.0: ("s", "sec", "second", "seconds"),
        60.0: ("min", "minute", "minutes"),
        3600.0: ("h", "hr", "hour", "hours"),
    }.items()
    for name in names
}
_MIN_PLURAL = 5  # letters of a word that may be a plural: "ms" is not metres
_CASE_SENSITIVE = {"Mm", "Pm"}  # mega- and petametres, not milli- and picometres
_APERIO = "Aperio "  # that descriptions of SVS begin with, also of those that other programs write
_PIXEL_UNITS = ("", "pixel", "pixels")
_PRINT_UNITS = {"inch", "in", "inches", "cm", "centimeter", "centimetre"}  # of printers and screens
_DPI = {72, 75, 90, 96, 100, 120, 144, 150, 180, 200, 220, 240, 300, 360, 400, 600, 720, 1200, 2400}
_MIN_UM, _MAX_UM = 1e-6, 1000  # pixels of microscopes
_MAX_UM_IN_PRINT_UNIT = 20


@dataclass(frozen=True)
class Calibration:
    """What a file states about lengths: credible pixel sizes in µm by axis, and remarks for the user.

    `interval` is the time between two frames in seconds.
    """

    spacing_um: Mapping[str, float] = field(default_factory=dict)
    channel_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    interval: float | None = None


def unit_in_um(unit: str) -> Fraction | None:
    """Return the length of a unit in µm; None where the word is no unit of length, such as ``pixel``."""
    word = _strip_quotes(unit)
    if word in _CASE_SENSITIVE:
        return None
    name = word.lower()
    return _UM.get(name) or (_UM.get(name.removesuffix("s")) if len(name) >= _MIN_PLURAL else None)


def _strip_quotes(unit: str) -> str:
    return unit.strip().strip("\"'").strip()  # some programs write blanks and quotation marks around it


def read_calibration(tif: TiffFile, page: TiffPage) -> Calibration:
    """Read the pixel size of the image that begins with `page` from the best source in a TIFF without OME-XML."""
    if tif.is_imagej:
        metadata = tif.imagej_metadata or {}
        found = _from_imagej(metadata, page) or _from_tags(page)
        return replace(found, interval=seconds(metadata.get("finterval"), metadata.get("tunit")))
    return _from_slide(page) or _from_tags(page)


def _from_slide(page: TiffPage) -> Calibration | None:
    """Read the description that Aperio writes, ``…|AppMag = 40|MPP = 0.2520|…``: micrometres per pixel."""
    if not page.description.startswith(_APERIO):
        return None
    entries = (entry.partition("=") for entry in page.description.split("|"))
    stated = {key.strip(): value.strip() for key, _, value in entries}
    size = length_um(stated.get("MPP"), unit_in_um("um"))
    return None if size is None else make_calibration({"X": size, "Y": size})


def _from_tags(page: TiffPage) -> Calibration:
    unit = {2: "inch", 3: "cm"}.get(int(page.tags.valueof("ResolutionUnit", 2)))
    if unit is None:
        return make_calibration({})
    x, y = (_pixel_um(page, axis, unit) for axis in "XY")
    return _uncalibrated(x) if _is_of_print(x) or _is_of_print(y) else make_calibration({"X": x, "Y": y})


def _from_imagej(metadata: Mapping[str, Any], page: TiffPage) -> Calibration | None:
    """Read the ImageJ description: ``unit`` for all axes, unless ``yunit`` and ``zunit`` say otherwise."""
    unit = _strip_quotes(str(metadata.get("unit") or ""))
    if unit.lower() in _PIXEL_UNITS:
        return None
    units = {axis: _strip_quotes(str(metadata.get(f"{axis.lower()}unit") or unit)) for axis in "XYZ"} | {"X": unit}
    x, y = (_pixel_um(page, axis, units[axis]) for axis in "XY")
    if any(units[axis].lower() in _PRINT_UNITS and _is_of_print(size) for axis, size in (("X", x), ("Y", y))):
        return _uncalibrated(x)
    z = metadata.get("spacing")  # negative where the stack was acquired downwards
    depth = length_um(abs(z) if isinstance(z, (int, float)) else None, unit_in_um(units["Z"]))
    found = make_calibration({"X": x, "Y": y, "Z": depth})
    unknown = [f"{axis.lower()} is in '{word}'" for axis, word in units.items() if unit_in_um(word) is None]
    if not unknown:
        return found
    shown = unknown[0] if unit_in_um(unit) is None else " and ".join(unknown)  # the unit of all axes is said once
    text = f"pixel size unknown: {shown}, which is no unit of length"
    return replace(found, notes=(Note(text, NoteCode.VOXEL_SIZE_UNKNOWN),))


def _pixel_um(page: TiffPage, axis: str, unit: str) -> float | None:
    """Return the length of a pixel in µm; the tag holds pixels per unit."""
    value = page.tags.valueof(f"{axis}Resolution")
    pixels, units = value if isinstance(value, tuple) and len(value) == 2 else (value, 1)
    return length_um(Fraction(units) / Fraction(pixels) if pixels and units else None, unit_in_um(unit))


def length_um(value: float | str | Fraction | None, unit: Fraction | None) -> float | None:
    """Return a length in µm; None where it is missing, 0, not a number, or of a size that no microscope has."""
    if value is None or unit is None:
        return None
    try:
        if not math.isfinite(float(value)) or not float(value):
            return None  # as a fraction, 1e99999999 would have as many digits
        size = float(Fraction(value) * unit)
    except (ValueError, OverflowError, ZeroDivisionError):  # "0,325", NaN, infinite
        return None
    return size if _MIN_UM <= size <= _MAX_UM else None


def seconds(value: object, unit: object = "s") -> float | None:
    """Return a time in seconds; None where it is missing, 0, not a number, or in an unknown unit."""
    factor = _SECONDS.get(str(unit or "s").strip().lower())
    try:
        time = float(str(value)) * (factor or 0)
    except ValueError:
        return None
    return time if 0 < time < math.inf else None


def _is_of_print(size: float | None) -> bool:
    return size is not None and (round(25400 / size) in _DPI or size > _MAX_UM_IN_PRINT_UNIT)


def _uncalibrated(size: float | None) -> Calibration:
    dpi = f" ({25400 / size:.0f} dpi is the resolution of a screen or printer)" if size else ""
    return Calibration(notes=(Note(f"pixel size unknown{dpi}", NoteCode.VOXEL_SIZE_UNKNOWN),))


def make_calibration(sizes: Mapping[str, float | None], channel_names: tuple[str, ...] = ()) -> Calibration:
    """Return a calibration from lengths in µm by axis; without x and y there is none."""
    spacing = {axis: size for axis, size in sizes.items() if size is not None}
    found = Calibration(spacing) if {"X", "Y"} <= spacing.keys() else _uncalibrated(None)
    return replace(found, channel_names=channel_names)
