"""Pixel sizes: what OME-XML, ImageJ and the resolution tag of a TIFF say, and when it can be believed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from xml.etree import ElementTree

import tifffile

# Fractions, because 325 nm is to be 0.325 µm and a ratio of whole numbers in a tag is to come back as it was.
_UM: dict[str, Fraction] = {
    name: Fraction(size)
    for size, names in {
        "1e6": ("m", "meter", "metre"),
        "1e4": ("cm", "centimeter", "centimetre"),
        "1e3": ("mm", "millimeter", "millimetre"),
        "1": ("um", "µm", "μm", "\\u00b5m", "micron", "microns", "micrometer", "micrometre", "micrometers"),
        "1e-3": ("nm", "nanometer", "nanometre"),
        "1e-4": ("å", "angstrom", "\\u00c5"),
        "1e-6": ("pm", "picometer", "picometre"),
        "25400": ("inch", "in", "inches"),
        "25.4": ("thou", "mil"),
    }.items()
    for name in names
}
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
    elsewhere
        Files that hold other parts of the image.
    planes
        How many planes OME-XML declares, each sample of a colour counted as one; 0 where there is none.
    notes
        Remarks for the user.
    """

    spacing_um: Mapping[str, float] = field(default_factory=dict)
    origin: str = ""
    channels: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()
    planes: int = 0
    notes: tuple[str, ...] = ()


def micrometres(unit: str) -> Fraction | None:
    """Return how many µm a unit of length is; None where the word is no unit of length, such as ``pixel``."""
    return _UM.get(unit.strip().lower())


def calibration(tif: tifffile.TiffFile) -> Calibration:
    """Read pixel sizes from the most explicit source that the file has."""
    if tif.is_ome and tif.ome_metadata:
        return from_ome(tif.ome_metadata)
    if tif.is_imagej and (found := _from_imagej(tif)) is not None:
        return found
    return _from_resolution(tif)


def from_ome(xml: str) -> Calibration:
    """Read the pixel size, names of channels and names of other files of the first image in OME-XML."""
    root = ElementTree.fromstring(xml)  # expat refuses entity bombs and entities outside the document
    own, others = root.get("UUID"), set()
    for element in root.iter():
        match element.tag.rpartition("}")[2]:
            case "UUID" if own is not None and element.text != own:
                others.add(element.get("FileName") or str(element.text))
            case "BinaryOnly":
                others.add(element.get("MetadataFile") or "another file")
    pixels = next((element for element in root.iter() if element.tag.endswith("Pixels")), None)
    if pixels is None:
        return replace(_result({}, ""), elsewhere=tuple(sorted(others)))
    sizes = {
        axis: _micrometres(pixels.get(f"PhysicalSize{axis}"), micrometres(pixels.get(f"PhysicalSize{axis}Unit", "µm")))
        for axis in "XYZ"
    }
    channels = [element for element in pixels if element.tag.endswith("Channel")]
    names = tuple(element.get("Name") or f"channel_{n}" for n, element in enumerate(channels))
    planes = sum(_planes(element) for element in root.iter() if element.tag.endswith("Pixels"))
    return replace(_result(sizes, "OME-XML", names), elsewhere=tuple(sorted(others)), planes=planes)


def _planes(pixels: ElementTree.Element) -> int:
    return math.prod(int(pixels.get(f"Size{letter}", 1)) for letter in "ZCT")


def _from_imagej(tif: tifffile.TiffFile) -> Calibration | None:
    metadata = tif.imagej_metadata or {}
    unit = str(metadata.get("unit") or "pixel").strip().lower()
    length = micrometres(unit)
    if length is None:
        return None
    x, y = (_micrometres(_per_pixel(tif, tag), length) for tag in ("XResolution", "YResolution"))
    if unit in _PRINTED and _printed(x):
        return _unknown(x)
    z = metadata.get("spacing")  # negative where the stack was acquired downwards
    depth = _micrometres(abs(z) if isinstance(z, (int, float)) else None, length)
    return _result({"X": x, "Y": y, "Z": depth}, "ImageJ tags")


def _from_resolution(tif: tifffile.TiffFile) -> Calibration:
    tags = tif.pages.first.tags
    unit = {2: "inch", 3: "cm"}.get(int(tags.valueof("ResolutionUnit", 2)))
    if unit is None:
        return _result({}, "")
    x, y = (_micrometres(_per_pixel(tif, tag), micrometres(unit)) for tag in ("XResolution", "YResolution"))
    return _unknown(x) if _printed(x) or _printed(y) else _result({"X": x, "Y": y}, "resolution tag")


def _per_pixel(tif: tifffile.TiffFile, name: str) -> Fraction | None:
    """Return the length of a pixel in the file's unit, from a resolution tag in pixels per unit."""
    value = tif.pages.first.tags.valueof(name)
    pixels, units = value if isinstance(value, tuple) and len(value) == 2 else (value, 1)
    return Fraction(units) / Fraction(pixels) if pixels and units else None


def _micrometres(value: float | str | Fraction | None, unit: Fraction | None) -> float | None:
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


def _result(sizes: Mapping[str, float | None], origin: str, channels: tuple[str, ...] = ()) -> Calibration:
    spacing = {axis: size for axis, size in sizes.items() if size is not None}
    x, y = spacing.get("X"), spacing.get("Y")
    if x is None or y is None:
        return Calibration(channels=channels, notes=("pixel size unknown",))
    notes = (f"pixels are not square: x {x:.6g} µm, y {y:.6g} µm",) if abs(x - y) > 1e-3 * x else ()
    return Calibration(spacing, origin, channels, notes=notes)
