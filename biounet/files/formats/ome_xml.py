"""OME-XML in a TIFF: which of its images are in this file, and what it says about each of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from tifffile import TiffPage, TiffPageSeries

from biounet.core import InputError
from biounet.files.formats.pixel_size import Calibration, calibrated, length_um, micrometres

_SHOWN = 3  # names of files that a message lists


@dataclass(frozen=True)
class OmeImage:
    """One image of OME-XML.

    Attributes
    ----------
    name
        What it is called.
    size
        Pixels along y and x.
    page
        Number of its first page in the file.
    planes
        How many there are, each sample of a colour counted as one.
    said
        Its pixel size and the names of its channels.
    elsewhere
        Other files that hold planes of it.
    """

    name: str
    size: tuple[int, int]
    page: int
    planes: int
    said: Calibration
    elsewhere: tuple[str, ...]


@dataclass(frozen=True)
class Ome:
    """What OME-XML says about this file.

    Attributes
    ----------
    images
        Those that have planes in this file.
    elsewhere
        Other files, where this one has no image of its own.
    xml
        For tifffile: the same without images of other files, each image named by its number.
    """

    images: tuple[OmeImage, ...]
    elsewhere: tuple[str, ...]
    xml: str

    def refuse_parts(self, path: Path, pages: int, samples: Callable[[int], int]) -> None:
        """Refuse a file that lacks planes of an image of its own.

        Parameters
        ----------
        path
            The file.
        pages
            How many are there.
        samples
            Gives how many planes, one for each colour, a page holds.

        Raises
        ------
        InputError
            If the planes are in other files, or not there.
        """
        others = list(dict.fromkeys(file for image in self.images for file in image.elsewhere)) or self.elsewhere
        if others:
            cause = f"a part of an image of several files: {', '.join(others[:_SHOWN])}"
            raise InputError(cause, path=path, hint="save it as one file, in Fiji with Bio-Formats")
        declared = sum(image.planes for image in self.images)
        if declared <= pages:
            return
        # Those of one image have as many samples as its first, but a picture in colour may lie beside one in grey.
        each = [samples(image.page) if image.page < pages else 1 for image in self.images]
        needed = sum(math.ceil(image.planes / count) for image, count in zip(self.images, each, strict=True))
        if needed > pages:  # tifffile would make a list of them all
            raise InputError(f"truncated: {declared} planes declared, {pages} pages are there", path=path)

    def describes(self, first: TiffPage) -> bool:
        """Whether the first page has the size of the image that it is said to belong to."""
        return all(image.size == _size(first) for image in self.images if image.page == 0)

    def name_of(self, series: TiffPageSeries) -> str:
        """Return what an image that tifffile found is called."""
        return self.images[int(series.name)].name if series.kind == "ome" else str(series.name)

    def about(self, series: TiffPageSeries) -> Calibration:
        """Return what is said about an image that tifffile found, and nothing that is said about another."""
        if series.kind == "ome":
            return self.images[int(series.name)].said
        if len(self.images) != 1:  # tifffile has put the pages together itself
            return Calibration(notes=("pixel size unknown: OME-XML does not say which of its images this is",))
        image = self.images[0]
        if image.size == _size(series.keyframe):
            return image.said
        shown = " x ".join(map(str, image.size[::-1]))
        return Calibration(notes=(f"pixel size unknown: OME-XML is about an image of {shown} pixels",))


def read_ome(xml: str, file: str) -> Ome:
    """Read OME-XML.

    Parameters
    ----------
    xml
        The text; of images of several files it lists all.
    file
        Name of the file that it stands in.
    """
    root = ElementTree.fromstring(xml)  # expat refuses entity bombs and entities outside the document
    own = _own_uuids(root, file)
    # An image whose pages are not told is that of a file that tells them of none.
    told = any(element.tag.endswith("TiffData") for element in root.iter())
    everything = [(element, _read_image(element, own, told=told)) for element in _children(root, "Image")]
    here = [(element, image) for element, image in everything if image is not None]
    elsewhere = [str(element.get("MetadataFile") or "another file") for element in _children(root, "BinaryOnly")]
    if not here:
        elsewhere += _files(_uuids(root))
    for number, (element, _) in enumerate(here):
        element.set("Name", str(number))
        for data in (data for pixels in _children(element, "Pixels") for data in _children(pixels, "TiffData")):
            for uuid in list(_children(data, "UUID")):
                data.remove(uuid)
    away = {id(element) for element, image in everything if image is None}
    root[:] = [child for child in root if id(child) not in away]  # to remove them one by one takes the square of them
    images = tuple(image for _, image in here)
    return Ome(images, tuple(elsewhere), ElementTree.tostring(root, "unicode", short_empty_elements=False))


def _size(page: TiffPage) -> tuple[int, int]:
    return int(page.imagelength), int(page.imagewidth)


def _children(element: ElementTree.Element, tag: str) -> Iterator[ElementTree.Element]:
    return (child for child in element if child.tag.rpartition("}")[2] == tag)


def _uuids(element: ElementTree.Element) -> list[ElementTree.Element]:
    return [child for child in element.iter() if child.tag.rpartition("}")[2] == "UUID"]


def _identity(uuid: ElementTree.Element) -> str:
    return (uuid.text or "").strip() or uuid.get("FileName", "")


def _files(uuids: Iterable[ElementTree.Element]) -> list[str]:
    return sorted({uuid.get("FileName") or _identity(uuid) for uuid in uuids})


def _own_uuids(root: ElementTree.Element, file: str) -> set[str]:
    """Return the identifiers of this file: the one it calls its own, or that of its name, or the only one."""
    named: dict[str, set[str]] = {}
    for uuid in _uuids(root):
        name = uuid.get("FileName", "").replace("\\", "/").rpartition("/")[2]
        named.setdefault(name.casefold(), set()).add(_identity(uuid))
    every = set().union(*named.values())
    own = root.get("UUID", "").strip()
    if own in every:
        return {own}
    alone = every if len(every) == 1 and not own else set()
    return named.get(file.casefold(), alone)


def _read_image(element: ElementTree.Element, own: set[str], *, told: bool) -> OmeImage | None:
    """Return an image; None where none of its planes is in this file."""
    pixels = next(_children(element, "Pixels"), None)
    if pixels is None:
        return None
    data = list(_children(pixels, "TiffData"))
    others = [one for one in data if any(_identity(uuid) not in own for uuid in _children(one, "UUID"))]
    if len(others) == len(data) and (told or list(_children(pixels, "BinData"))):
        return None
    sizes = {
        axis: length_um(pixels.get(f"PhysicalSize{axis}"), micrometres(pixels.get(f"PhysicalSize{axis}Unit", "µm")))
        for axis in "XYZ"
    }
    names = tuple(channel.get("Name") or f"channel_{n}" for n, channel in enumerate(_children(pixels, "Channel")))
    return OmeImage(
        name=element.get("Name", ""),
        size=(int(pixels.get("SizeY", 0)), int(pixels.get("SizeX", 0))),
        page=min((int(one.get("IFD", 0)) for one in data if one not in others), default=0),
        planes=math.prod(int(pixels.get(f"Size{letter}", 1)) for letter in "ZCT"),
        said=calibrated(sizes, "OME-XML", names),
        elsewhere=tuple(_files(uuid for one in others for uuid in _children(one, "UUID"))),
    )
