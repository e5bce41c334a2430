"""Pixel sizes: what ImageJ and the resolution tag of a TIFF say, and when it can be believed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import tifffile

# Fractions, because 325 nm is to be 0.325 µm and a ratio of whole numbers in a tag is to come back as it was.
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
_PLURAL = 5  # letters from which on a word may be one: "ms" is none of metres
_CAPITALS = {"Mm", "Pm"}  # mega and peta, which are not milli and pico
_NO_UNIT = ("", "pixel", "pixels")
_PRINTED = {"inch", "in", "inches", "cm", "centimeter", "centimetre"}  # units of printers and screens
_DPI = {72, 75, 90, 96, 100, 120, 144, 150, 180, 200, 220, 240, 300, 360, 400, 600, 720, 1200, 2400}
_SMALLEST_UM, _LARGEST_UM, _LARGEST_PRINTED_UM = 1e-6, 1000, 20  # outside of these no microscope has pixels


@dataclass(frozen=True)
class Calibration:
    """What a file says about lengths.

    Attributes
    ----------
    spacing_um
        Pixel size in µm by letter of the axis, where there is one that can be believed.
    origin
        Where it stands in the file; empty where nothing can be believed.
    channels
        Names of the channels.
    notes
        Remarks for the user.
    """

    spacing_um: Mapping[str, float] = field(default_factory=dict)
    origin: str = ""
    channels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def micrometres(unit: str) -> Fraction | None:
    """Return how many µm a unit of length is; None where the word is no unit of length, such as ``pixel``."""
    word = _word(unit)
    if word in _CAPITALS:
        return None
    name = word.lower()
    return _UM.get(name) or (_UM.get(name.removesuffix("s")) if len(name) >= _PLURAL else None)


def _word(unit: str) -> str:
    """Return a unit without the blanks and quotation marks that some programs write around it."""
    return unit.strip().strip("\"'").strip()


def calibration(tif: tifffile.TiffFile, page: tifffile.TiffPage) -> Calibration:
    """Read pixel sizes from the most explicit source that a TIFF without OME-XML has.

    Parameters
    ----------
    tif
        The file.
    page
        The first page of the image that is read: others, such as a smaller copy, have sizes of their own.
    """
    if tif.is_imagej and (found := _from_imagej(tif.imagej_metadata or {}, page)) is not None:
        return found
    return _from_resolution(page)


def _from_imagej(metadata: Mapping[str, Any], page: tifffile.TiffPage) -> Calibration | None:
    """Read what ImageJ says: one unit for all axes and, where theirs are others, ``yunit`` and ``zunit``."""
    unit = _word(str(metadata.get("unit") or ""))
    if unit.lower() in _NO_UNIT:
        return None
    units = {axis: _word(str(metadata.get(f"{axis.lower()}unit") or unit)) for axis in "XYZ"}
    units["X"] = unit
    x, y = (
        length_um(_per_pixel(page, tag), micrometres(units[axis]))
        for axis, tag in (("X", "XResolution"), ("Y", "YResolution"))
    )
    if any(units[axis].lower() in _PRINTED and _printed(size) for axis, size in (("X", x), ("Y", y))):
        return _unknown(x)
    z = metadata.get("spacing")  # negative where the stack was acquired downwards
    depth = length_um(abs(z) if isinstance(z, (int, float)) else None, micrometres(units["Z"]))
    found = calibrated({"X": x, "Y": y, "Z": depth}, "ImageJ tags")
    strange = [f"{axis.lower()} is in '{word}'" for axis, word in units.items() if micrometres(word) is None]
    strange = strange[:1] if micrometres(unit) is None else strange  # that of all axes
    if not strange:
        return found
    return replace(found, notes=(f"pixel size unknown: {' and '.join(strange)}, which is no unit of length",))


def _from_resolution(page: tifffile.TiffPage) -> Calibration:
    unit = {2: "inch", 3: "cm"}.get(int(page.tags.valueof("ResolutionUnit", 2)))
    if unit is None:
        return calibrated({}, "")
    x, y = (length_um(_per_pixel(page, tag), micrometres(unit)) for tag in ("XResolution", "YResolution"))
    return _unknown(x) if _printed(x) or _printed(y) else calibrated({"X": x, "Y": y}, "resolution tag")


def _per_pixel(page: tifffile.TiffPage, name: str) -> Fraction | None:
    """Return the length of a pixel in the file's unit, from a resolution tag in pixels per unit."""
    value = page.tags.valueof(name)
    pixels, units = value if isinstance(value, tuple) and len(value) == 2 else (value, 1)
    return Fraction(units) / Fraction(pixels) if pixels and units else None


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
    return size if _SMALLEST_UM <= size <= _LARGEST_UM else None


def _printed(size: float | None) -> bool:
    return size is not None and (round(25400 / size) in _DPI or size > _LARGEST_PRINTED_UM)


def _unknown(size: float | None) -> Calibration:
    dpi = f" ({25400 / size:.0f} dpi is the resolution of a screen or printer)" if size else ""
    return Calibration(notes=(f"pixel size unknown{dpi}",))


def calibrated(sizes: Mapping[str, float | None], origin: str, channels: tuple[str, ...] = ()) -> Calibration:
    """Return what is known of these lengths in µm; without x and y nothing is."""
    spacing = {axis: size for axis, size in sizes.items() if size is not None}
    x, y = spacing.get("X"), spacing.get("Y")
    if x is None or y is None:
        return Calibration(channels=channels, notes=("pixel size unknown",))
    return Calibration(spacing, origin, channels)
