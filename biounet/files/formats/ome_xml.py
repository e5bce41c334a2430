"""OME-XML in a TIFF: which of its images are in this file, and what it states about each of them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

from tifffile import TiffFile, TiffPage, TiffPageSeries

from biounet.core import InputError, Note, NoteCode
from biounet.files.formats.pixel_size import Calibration, length_um, make_calibration, seconds, unit_in_um

_MAX_NAMES = 3  # files that a message lists


@dataclass(frozen=True)
class OmeImage:
    """One image of OME-XML: `size` is along y and x, and `planes` counts each sample of a colour."""

    name: str
    size: tuple[int, int]
    first_page: int
    planes: int
    calibration: Calibration
    other_files: tuple[str, ...]


@dataclass(frozen=True)
class OmeMetadata:
    """OME-XML of one file: the images that have planes in it or, if there are none, the files that hold them.

    `xml` is for tifffile: without images of other files, and with the index of each image as its name.
    """

    images: tuple[OmeImage, ...]
    other_files: tuple[str, ...]
    xml: str

    def check_complete(self, tif: TiffFile, pages: int, path: Path) -> None:
        """Check that all planes of the images are in this file of so many pages."""
        others = list(dict.fromkeys(file for image in self.images for file in image.other_files)) or self.other_files
        if others:
            cause = f"a part of an image of several files: {', '.join(others[:_MAX_NAMES])}"
            raise InputError(cause, path=path, hint="save it as one file, in Fiji with Bio-Formats")
        declared = sum(image.planes for image in self.images)
        if declared <= pages:
            return
        needed = 0
        for image in self.images:
            # All pages of an image have as many samples as its first; images in colour and grey may lie side by side.
            first = tif.pages.get(image.first_page) if image.first_page < pages else None
            needed += math.ceil(image.planes / (first.samplesperpixel if isinstance(first, TiffPage) else 1))
        if needed > pages:  # tifffile would make a list of them all
            raise InputError(f"truncated: {declared} planes declared, {pages} pages are there", path=path)

    def matches(self, first: TiffPage) -> bool:
        """Whether the first page has the size of its image."""
        return all(image.size == _size(first) for image in self.images if image.first_page == 0)

    def name_of(self, series: TiffPageSeries) -> str:
        """Return the name of an image that tifffile found."""
        return self.images[int(series.name)].name if series.kind == "ome" else series.name

    def calibration_of(self, series: TiffPageSeries) -> Calibration:
        """Return the calibration of an image that tifffile found, and never that of another one."""
        if series.kind == "ome":
            return self.images[int(series.name)].calibration
        if len(self.images) == 1 and self.images[0].size == _size(series.keyframe):
            return self.images[0].calibration
        why = "does not say which of its images this is"  # tifffile has put the pages together itself
        if len(self.images) == 1:
            why = f"is about an image of {' x '.join(map(str, self.images[0].size[::-1]))} pixels"
        return Calibration(notes=(Note(f"pixel size unknown: OME-XML {why}", NoteCode.VOXEL_SIZE_UNKNOWN),))


def parse_ome(xml: str, file: str) -> OmeMetadata:
    """Parse the OME-XML in a file of this name; it lists the images of all files of a set."""
    root = ElementTree.fromstring(xml)  # expat refuses entity bombs and entities outside the document
    uuids = _own_uuids(root, file)
    # Without any TiffData, an image has its pages in this file.
    has_data = root.find(".//{*}TiffData") is not None
    parsed = [(element, _parse_image(element, uuids, has_data=has_data)) for element in root.iterfind("{*}Image")]
    here = [(element, image) for element, image in parsed if image is not None]
    other_files = [str(element.get("MetadataFile") or "another file") for element in root.iterfind("{*}BinaryOnly")]
    if not here:
        other_files += _file_names(root.iterfind(".//{*}UUID"))
    for number, (element, _) in enumerate(here):
        element.set("Name", str(number))
        for data in element.iterfind("{*}Pixels/{*}TiffData"):
            for uuid in data.findall("{*}UUID"):
                data.remove(uuid)
    elsewhere = {id(element) for element, image in parsed if image is None}
    root[:] = [child for child in root if id(child) not in elsewhere]  # `remove` would take quadratic time
    images = tuple(image for _, image in here)
    return OmeMetadata(images, tuple(other_files), ElementTree.tostring(root, "unicode", short_empty_elements=False))


def _size(page: TiffPage) -> tuple[int, int]:
    return int(page.imagelength), int(page.imagewidth)


def _identity(uuid: ElementTree.Element) -> str:
    return (uuid.text or "").strip() or uuid.get("FileName", "")


def _file_names(uuids: Iterable[ElementTree.Element]) -> list[str]:
    return sorted({uuid.get("FileName") or _identity(uuid) for uuid in uuids})


def _own_uuids(root: ElementTree.Element, file: str) -> set[str]:
    """Return the identifiers of this file: the one it declares, or that of its name, or the only one."""
    by_name: dict[str, set[str]] = {}
    for uuid in root.iterfind(".//{*}UUID"):
        name = uuid.get("FileName", "").replace("\\", "/").rpartition("/")[2]
        by_name.setdefault(name.casefold(), set()).add(_identity(uuid))
    every = set().union(*by_name.values())
    declared = root.get("UUID", "").strip()
    if declared in every:
        return {declared}
    return by_name.get(file.casefold(), every if len(every) == 1 and not declared else set())


def _parse_image(element: ElementTree.Element, uuids: set[str], *, has_data: bool) -> OmeImage | None:
    """Return an image; None if none of its planes is in this file."""
    pixels = element.find("{*}Pixels")
    if pixels is None:
        return None
    data = pixels.findall("{*}TiffData")
    others = [one for one in data if any(_identity(uuid) not in uuids for uuid in one.iterfind("{*}UUID"))]
    if len(others) == len(data) and (has_data or pixels.find("{*}BinData") is not None):
        return None
    sizes = {
        axis: length_um(pixels.get(f"PhysicalSize{axis}"), unit_in_um(pixels.get(f"PhysicalSize{axis}Unit", "µm")))
        for axis in "XYZ"
    }
    channels = enumerate(pixels.iterfind("{*}Channel"))
    names = tuple(channel.get("Name") or channel.get("Fluor") or f"channel_{n}" for n, channel in channels)
    return OmeImage(
        name=element.get("Name", ""),
        size=(int(pixels.get("SizeY", 0)), int(pixels.get("SizeX", 0))),
        first_page=min((int(one.get("IFD", 0)) for one in data if one not in others), default=0),
        planes=math.prod(int(pixels.get(f"Size{letter}", 1)) for letter in "ZCT"),
        calibration=replace(
            make_calibration(sizes, names),
            interval=seconds(pixels.get("TimeIncrement"), pixels.get("TimeIncrementUnit")),
        ),
        other_files=tuple(_file_names(uuid for one in others for uuid in one.iterfind("{*}UUID"))),
    )
