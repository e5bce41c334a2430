"""OME-XML in a TIFF: which of its images are in this file, and what it states about each of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from tifffile import TiffPage, TiffPageSeries

from biounet.core import InputError, Note, NoteCode
from biounet.files.formats.pixel_size import Calibration, length_um, make_calibration, unit_in_um

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

    def check_complete(self, path: Path, pages: int, samples: Callable[[int], int]) -> None:
        """Check that all planes of the images are in this file of so many pages.

        `samples` gives the number of planes in a page, one per colour.

        Raises
        ------
        InputError
            If planes are in other files, or missing.
        """
        others = list(dict.fromkeys(file for image in self.images for file in image.other_files)) or self.other_files
        if others:
            cause = f"a part of an image of several files: {', '.join(others[:_MAX_NAMES])}"
            raise InputError(cause, path=path, hint="save it as one file, in Fiji with Bio-Formats")
        declared = sum(image.planes for image in self.images)
        if declared <= pages:
            return
        # All pages of an image have as many samples as its first; images in colour and in grey may lie side by side.
        each = [samples(image.first_page) if image.first_page < pages else 1 for image in self.images]
        needed = sum(math.ceil(image.planes / count) for image, count in zip(self.images, each, strict=True))
        if needed > pages:  # tifffile would make a list of them all
            raise InputError(f"truncated: {declared} planes declared, {pages} pages are there", path=path)

    def matches(self, first: TiffPage) -> bool:
        """Whether the first page has the size of its image."""
        return all(image.size == _size(first) for image in self.images if image.first_page == 0)

    def name_of(self, series: TiffPageSeries) -> str:
        """Return the name of an image that tifffile found."""
        return self.images[int(series.name)].name if series.kind == "ome" else str(series.name)

    def calibration_of(self, series: TiffPageSeries) -> Calibration:
        """Return the calibration of an image that tifffile found, and never that of another one."""
        if series.kind == "ome":
            return self.images[int(series.name)].calibration
        if len(self.images) != 1:  # tifffile has put the pages together itself
            return _unknown("does not say which of its images this is")
        image = self.images[0]
        if image.size == _size(series.keyframe):
            return image.calibration
        shown = " x ".join(map(str, image.size[::-1]))
        return _unknown(f"is about an image of {shown} pixels")


def _unknown(why: str) -> Calibration:
    return Calibration(notes=(Note(f"pixel size unknown: OME-XML {why}", NoteCode.VOXEL_SIZE_UNKNOWN),))


def parse_ome(xml: str, file: str) -> OmeMetadata:
    """Parse the OME-XML in a file of this name; it lists the images of all files of a set."""
    root = ElementTree.fromstring(xml)  # expat refuses entity bombs and entities outside the document
    uuids = _own_uuids(root, file)
    # Without any TiffData, an image has its pages in this file.
    has_data = any(element.tag.endswith("TiffData") for element in root.iter())
    parsed = [(element, _parse_image(element, uuids, has_data=has_data)) for element in _children(root, "Image")]
    here = [(element, image) for element, image in parsed if image is not None]
    other_files = [str(element.get("MetadataFile") or "another file") for element in _children(root, "BinaryOnly")]
    if not here:
        other_files += _file_names(_uuids(root))
    for number, (element, _) in enumerate(here):
        element.set("Name", str(number))
        for data in (data for pixels in _children(element, "Pixels") for data in _children(pixels, "TiffData")):
            for uuid in list(_children(data, "UUID")):
                data.remove(uuid)
    elsewhere = {id(element) for element, image in parsed if image is None}
    root[:] = [child for child in root if id(child) not in elsewhere]  # `remove` would take quadratic time
    images = tuple(image for _, image in here)
    return OmeMetadata(images, tuple(other_files), ElementTree.tostring(root, "unicode", short_empty_elements=False))


def _size(page: TiffPage) -> tuple[int, int]:
    return int(page.imagelength), int(page.imagewidth)


def _children(element: ElementTree.Element, tag: str) -> Iterator[ElementTree.Element]:
    return (child for child in element if child.tag.rpartition("}")[2] == tag)


def _uuids(element: ElementTree.Element) -> list[ElementTree.Element]:
    return [child for child in element.iter() if child.tag.rpartition("}")[2] == "UUID"]


def _identity(uuid: ElementTree.Element) -> str:
    return (uuid.text or "").strip() or uuid.get("FileName", "")


def _file_names(uuids: Iterable[ElementTree.Element]) -> list[str]:
    return sorted({uuid.get("FileName") or _identity(uuid) for uuid in uuids})


def _own_uuids(root: ElementTree.Element, file: str) -> set[str]:
    """Return the identifiers of this file: the one it declares, or that of its name, or the only one."""
    by_name: dict[str, set[str]] = {}
    for uuid in _uuids(root):
        name = uuid.get("FileName", "").replace("\\", "/").rpartition("/")[2]
        by_name.setdefault(name.casefold(), set()).add(_identity(uuid))
    every = set().union(*by_name.values())
    declared = root.get("UUID", "").strip()
    if declared in every:
        return {declared}
    return by_name.get(file.casefold(), every if len(every) == 1 and not declared else set())


def _parse_image(element: ElementTree.Element, uuids: set[str], *, has_data: bool) -> OmeImage | None:
    """Return an image; None if none of its planes is in this file."""
    pixels = next(_children(element, "Pixels"), None)
    if pixels is None:
        return None
    data = list(_children(pixels, "TiffData"))
    others = [one for one in data if any(_identity(uuid) not in uuids for uuid in _children(one, "UUID"))]
    if len(others) == len(data) and (has_data or list(_children(pixels, "BinData"))):
        return None
    sizes = {
        axis: length_um(pixels.get(f"PhysicalSize{axis}"), unit_in_um(pixels.get(f"PhysicalSize{axis}Unit", "µm")))
        for axis in "XYZ"
    }
    names = tuple(channel.get("Name") or f"channel_{n}" for n, channel in enumerate(_children(pixels, "Channel")))
    return OmeImage(
        name=element.get("Name", ""),
        size=(int(pixels.get("SizeY", 0)), int(pixels.get("SizeX", 0))),
        first_page=min((int(one.get("IFD", 0)) for one in data if one not in others), default=0),
        planes=math.prod(int(pixels.get(f"Size{letter}", 1)) for letter in "ZCT"),
        calibration=make_calibration(sizes, names),
        other_files=tuple(_file_names(uuid for one in others for uuid in _children(one, "UUID"))),
    )
