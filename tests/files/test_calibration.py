"""Pixel sizes are read where a file states a credible one, and otherwise unknown, never 1."""

from fractions import Fraction

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from biounet.files import ReadOptions, inspect_volume, read_volume

GREY = np.arange(12, dtype=np.uint16).reshape(3, 4)
VOLUME = np.stack([GREY, GREY + 1])
DPI = "pixel size unknown ({} dpi is the resolution of a screen or printer)"


def write(path, array=GREY, **how):
    tifffile.imwrite(path, array, photometric="minisblack", **how)
    return path


def imagej(unit, per_unit, **metadata):
    return {"imagej": True, "resolution": (per_unit, per_unit), "metadata": {"unit": unit, **metadata}}


def tag(per_unit, unit):
    return {"resolution": (per_unit, per_unit), "resolutionunit": unit, "metadata": None}


def ome(size, unit="µm"):
    sizes = {f"PhysicalSize{axis}{end}": value for axis in "XY" for end, value in (("", size), ("Unit", unit))}
    return {"ome": True, "metadata": {"axes": "YX", **sizes}}


KNOWN = {
    "ImageJ um": (imagej("um", (40, 13)), 0.325),
    "ImageJ micron": (imagej("micron", 4), 0.25),
    "ImageJ escaped µm": (imagej("\\u00B5m", 4), 0.25),
    "ImageJ nm": (imagej("nm", (1, 250)), 0.25),
    "ImageJ mm": (imagej("mm", 1000), 1.0),
    "ImageJ inch": (imagej("inch", 25400), 1.0),
    "ImageJ plural": (imagej("Micrometres", 4), 0.25),
    "ImageJ in quotes": (imagej('"um"', 4), 0.25),
    "OME µm": (ome(0.325), 0.325),
    "OME nm": (ome(325, "nm"), 0.325),
    "OME mm": (ome(0.000325, "mm"), 0.325),
    "OME inch": (ome(0.0001, "in"), 2.54),
    "OME Å": (ome(3250, "Å"), 0.325),
    "tag, per cm": (tag((200000, 13), 3), 0.65),
    "tag, per inch": (tag(50800, 2), 0.5),
}
UNKNOWN = {
    "nothing": ({}, "pixel size unknown"),
    "no unit": (tag(5, 1), "pixel size unknown"),
    "72 dpi": (tag(72, 2), DPI.format(72)),
    "300 dpi": (tag(300, 2), DPI.format(300)),
    "96 dpi in cm": (tag((9600, 254), 3), DPI.format(96)),
    "odd dpi": (tag(117, 2), DPI.format(117)),
    "ImageJ 72 dpi": (imagej("inch", 72), DPI.format(72)),
    "ImageJ pixel": (imagej("pixel", 1), "pixel size unknown"),
    "ImageJ strange": (imagej("furlong", 1), "pixel size unknown: x is in 'furlong', which is no unit of length"),
    "ImageJ megametres": (imagej("Mm", 1), "pixel size unknown: x is in 'Mm', which is no unit of length"),
    "OME megametres": (ome(0.5, "Mm"), "pixel size unknown"),
    "OME petametres": (ome(0.5, "Pm"), "pixel size unknown"),
    "zero": (tag((0, 1), 3), "pixel size unknown"),
    "OME 0": (ome(0), "pixel size unknown"),
    "OME NaN": (ome("NaN"), "pixel size unknown"),
    "OME infinite": (ome("inf"), "pixel size unknown"),
    "OME with more digits than memory": (ome("1e99999999"), "pixel size unknown"),
    "OME comma": (ome("0,325"), "pixel size unknown"),
    "OME 2 mm": (ome(2, "mm"), "pixel size unknown"),
    "OME pixel": (ome(1, "pixel"), "pixel size unknown"),
}


@pytest.mark.parametrize("case", KNOWN.values(), ids=KNOWN.keys())
def test_a_stated_pixel_size_is_read_to_the_last_digit(tmp_path, case):
    how, size = case
    path = write(tmp_path / "x.tif", **how)
    volume = read_volume(path)
    assert (volume.grid.spacing, volume.grid.unit) == ((size, size), "um")
    assert not [note for note in volume.notes if "pixel" in note and "constant" not in note]


@pytest.mark.parametrize("case", UNKNOWN.values(), ids=UNKNOWN.keys())
def test_an_invalid_pixel_size_is_unknown_and_noted(tmp_path, case):
    how, note = case
    path = write(tmp_path / "x.tif", **how)
    volume = read_volume(path)
    assert (volume.grid.spacing, volume.grid.unit) == (None, None)
    assert note in volume.notes


@pytest.mark.parametrize("value", [(1, 0), (0, 0), (0, 1)], ids=str)
def test_an_invalid_resolution_tag_is_ignored(tmp_path, value):
    path = write(tmp_path / "x.tif", **tag(20000, 3))
    with tifffile.TiffFile(path, mode="r+b") as tif:
        tif.pages.first.tags["YResolution"].overwrite(value)
    volume = read_volume(path)
    assert volume.grid.spacing is None
    assert "pixel size unknown" in volume.notes


def test_stated_options_have_precedence(tmp_path):
    for how in (imagej("um", 4), tag(72, 2)):
        path = write(tmp_path / "x.tif", **how)
        options = ReadOptions(spacing=(0.5, 0.6))
        assert read_volume(path, options).grid.spacing == (0.5, 0.6)
        assert not [note for note in read_volume(path, options).notes if "pixel" in note]


def test_x_and_y_may_differ(tmp_path):
    path = write(tmp_path / "x.tif", imagej=True, resolution=(2, 4), metadata={"unit": "um"})
    volume = read_volume(path)
    assert volume.grid.spacing == (0.25, 0.5)  # y, x
    assert "pixels are not square: x 0.5 µm, y 0.25 µm" in volume.notes


@pytest.mark.parametrize("z", [2.5, -2.5])
def test_the_plane_distance_may_be_negative(tmp_path, z):
    path = write(tmp_path / "x.tif", VOLUME, **imagej("um", 4, axes="ZYX", spacing=z))
    assert read_volume(path, ReadOptions(dims=3)).grid.spacing == (2.5, 0.25, 0.25)
    assert read_volume(path, ReadOptions(plane=0)).grid.spacing == (0.25, 0.25)


def test_a_volume_without_a_distance_of_planes_is_not_calibrated(tmp_path):
    path = write(tmp_path / "x.tif", VOLUME, **imagej("um", 4, axes="ZYX"))
    volume = read_volume(path, ReadOptions(dims=3))
    assert volume.grid.spacing is None
    assert "pixel size unknown: the distance of the planes is missing" in volume.notes


def test_damaged_ome_xml_is_ignored_and_noted(tmp_path):
    path = write(tmp_path / "x.tif", description='<?xml version="1.0"?><OME><Image', metadata=None)
    assert "OME-XML is damaged and ignored" in read_volume(path).notes


def test_inspection_names_the_axes_and_their_source(tmp_path):
    channels = {"axes": "CYX", "Channel": {"Name": ["DAPI", "actin"]}}
    info = inspect_volume(write(tmp_path / "x.ome.tif", VOLUME, ome=True, metadata=channels))
    assert (info.axes, info.axes_source, info.channels, info.dtype) == ("CYX", "OME-XML", len(VOLUME), "uint16")
    assert inspect_volume(write(tmp_path / "y.tif")).axes_source == "description"
    assert inspect_volume(tmp_path / "y.tif", ReadOptions(axes="xy")).axes_source == "given"


MIXED = {  # what is said beside unit=um, resolution 2 per unit and spacing 500: the voxel size along z, y, x in µm
    "z in nm": ({"zunit": "nm"}, (0.5, 0.5, 0.5)),
    "z in the escaped µm": ({"zunit": "\\u00B5m"}, (500, 0.5, 0.5)),
    "y in mm": ({"yunit": "mm", "zunit": "nm"}, (0.5, 500, 0.5)),
    "the same in other words": ({"yunit": "micron", "zunit": "microns"}, (500, 0.5, 0.5)),
    "z in time": ({"zunit": "sec"}, None),
    "y in pixels": ({"yunit": "pixel", "zunit": "nm"}, None),
    "z in megametres": ({"zunit": "Mm"}, None),
}


@pytest.mark.parametrize("case", MIXED.values(), ids=MIXED.keys())
def test_imagej_may_state_a_unit_for_each_axis(tmp_path, case):
    units, size = case
    path = write(tmp_path / "x.tif", VOLUME, **imagej("um", 2, axes="ZYX", spacing=500.0, **units))
    volume = read_volume(path, ReadOptions(dims=3))
    assert volume.grid.spacing == size
    flat = read_volume(path, ReadOptions(plane=0))
    assert flat.grid.spacing == (size[1:] if size else None if "yunit" in units else (0.5, 0.5))
    if size is None:
        assert any(note.startswith("pixel size unknown: ") and "no unit of length" in note for note in volume.notes)
    assert any("pixel size unknown" in note for note in flat.notes) == (flat.grid.spacing is None)


UNITS = st.sampled_from([("nm", 1), ("um", 1000), ("mm", 10**6), ("angstrom", Fraction(1, 10))])


@given(st.tuples(UNITS, UNITS, UNITS), st.integers(1, 9))
def test_lengths_do_not_depend_on_their_unit(tmp_path_factory, units, steps):
    """A voxel of as many µm is one whichever units its axes are in."""
    x, y, z = (Fraction(1000 * steps) / Fraction(nm) for _, nm in units)
    path = tmp_path_factory.mktemp("units") / "x.tif"
    words = {"unit": units[0][0], "yunit": units[1][0], "zunit": units[2][0]}
    resolution = tuple((length.denominator, length.numerator) for length in (x, y))
    write(path, VOLUME, imagej=True, resolution=resolution, metadata={"axes": "ZYX", "spacing": float(z), **words})
    spacing = read_volume(path, ReadOptions(dims=3)).grid.spacing
    np.testing.assert_allclose(spacing, steps, rtol=1e-6)
