"""Outlines from COCO JSON, which may hold those of many images: polygons and run-length masks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import InputError, list_some
from biounet.files.dataset_index.names import normalise_unicode, stem_of
from biounet.files.formats.raw import translate_errors
from biounet.files.outlines.coco_masks import decode_lengths, masked_pixels
from biounet.files.outlines.json_stream import JsonList
from biounet.files.outlines.outline import UNLABELLED_CLASS, Outline, Plane, Ring
from biounet.files.outlines.trace import trace

_KEPT = ("id", "category_id", "iscrowd", "bbox", "track_id", "segmentation")  # of each annotation
_MAX_NAMES = 3  # that a message lists
_Entry = Mapping[str, Any]


@dataclass(frozen=True)
class CocoImage:
    """An image of a file, or one plane of it: `name` as the file says, which may have folders; size in pixels."""

    number: int
    name: PurePosixPath
    height: int
    width: int
    plane: Plane | None = None


@dataclass(frozen=True)
class CocoFile:
    """What a file holds: images, the annotations of each by its number, and the names of categories."""

    path: Path
    images: tuple[CocoImage, ...]
    annotations: Mapping[int, Sequence[_Entry]]
    categories: Mapping[int, str]

    @cached_property
    def planes(self) -> Mapping[PurePosixPath, Sequence[CocoImage]]:
        """The planes of each image by its name."""
        planes = defaultdict(list)
        for image in self.images:
            planes[image.name].append(image)
        return planes

    @cached_property
    def _by_stem(self) -> Mapping[str, Sequence[PurePosixPath]]:
        names = defaultdict(list)
        for name in self.planes:
            names[_folded(stem_of(Path(name.name)))].append(name)
        return names

    def find(self, image: Path | None) -> Sequence[CocoImage]:
        """Return the planes of an image, found by its name; of a file that holds one image, these."""
        names = [*self.planes]
        fitting = names if image is None or len(names) == 1 else self._fitting(image)
        if len(fitting) != 1:
            held = list_some([str(name) for name in fitting or names], _MAX_NAMES)
            cause = f"holds {len(names)} images, and {'none' if not fitting else 'several'} that could be"
            cause = f"{cause} {'this one' if image is None else image.name}: {held}"
            raise InputError(cause, path=self.path, hint="the file_name of an image in it decides")
        return self.planes[fitting[0]]

    def _fitting(self, image: Path) -> Sequence[PurePosixPath]:
        """Return the names that an image may have: the whole of it before its stem, then as many folders as agree."""
        stems = dict.fromkeys((_folded(stem_of(image)), _folded(image.name)))
        names = [name for stem in stems for name in self._by_stem.get(stem, ())]
        names = [name for name in names if _folded(name.name) == _folded(image.name)] or names
        folders = [_folded(part) for part in reversed(image.absolute().parent.parts)]
        agreeing = [_count_same(folders, [_folded(part) for part in reversed(name.parent.parts)]) for name in names]
        return [name for name, count in zip(names, agreeing, strict=True) if count == max(agreeing)]


def _folded(text: str) -> str:
    return normalise_unicode(text).casefold()


def _count_same(these: Sequence[str], those: Sequence[str]) -> int:
    """Return how many items two sequences begin with in common."""
    return next((n for n, (a, b) in enumerate(zip(these, those, strict=False)) if a != b), min(len(these), len(those)))


def load_coco(path: Path) -> CocoFile:
    """Read a file; that of many images is read once, as long as it does not change.

    Raises
    ------
    InputError
        If it is no COCO JSON, or cut short.
    """
    state = path.stat()
    return _load(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=1)  # a file of a whole folder would else be parsed again for each of its images
def _load(path: Path, _modified: int, _size: int) -> CocoFile:
    annotations: dict[int, list[_Entry]] = defaultdict(list)
    items = JsonList(path, "annotations")
    try:
        for one in items:
            annotations[_whole(one["image_id"])].append(_compact(one))
        if not items.has_list:
            raise KeyError("annotations")
        named = [(_whole(one["id"]), str(one["name"])) for one in items.members.get("categories") or ()]
        images = tuple(map(_image, items.members["images"]))
        _check_unique(path, "images", [image.number for image in images])
        _check_unique(path, "categories", [number for number, _ in dict.fromkeys(named)])
        return CocoFile(path, images, annotations, dict(named))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        cause = f"is no COCO JSON: images and annotations need id, file_name, height, width and image_id ({error!r})"
        raise InputError(cause, path=path) from error
    except RecursionError as error:
        raise InputError("is no COCO JSON: nested too deeply", path=path) from error


def _check_unique(path: Path, what: str, numbers: Sequence[int]) -> None:
    """Raise `InputError` if two have one number, as in files that were joined: whose annotations are meant is open."""
    number, count = next(iter(Counter(numbers).most_common(1)), (0, 0))
    if count > 1:
        cause = f"holds {count} {what} with the id {number}: of which one annotations are, it does not say"
        raise InputError(cause, path=path, hint="give each an id of its own, as when files are merged")


def _whole(value: Any) -> int:  # noqa: ANN401 - whatever stands in the file
    """Return a whole number; raise `ValueError` if it is a fraction, which `int` would cut."""
    number = int(value)
    if isinstance(value, float) and number != value:
        raise ValueError(value)
    return number


def _compact(entry: dict[str, Any]) -> _Entry:
    """Return what is needed of an annotation; numbers of polygons as an array, which is a tenth of the memory."""
    kept = {name: entry[name] for name in _KEPT if name in entry}
    if isinstance(shape := entry.get("segmentation"), list):
        with suppress(ValueError, TypeError):  # `_polygon_rings` says which one is wrong
            kept["segmentation"] = [np.array(polygon, np.float64) for polygon in shape if polygon]
    return kept


def _image(entry: _Entry) -> CocoImage:
    plane = Plane(*(None if entry.get(axis) is None else _whole(entry[axis]) for axis in "zt"))
    name = PurePosixPath(str(entry["file_name"]).replace("\\", "/"))
    has_plane = plane != Plane()
    number, height, width = (_whole(entry[key]) for key in ("id", "height", "width"))
    return CocoImage(number, name, height, width, plane if has_plane else None)


@translate_errors
def read_coco(
    path: str | Path, shape: tuple[int, ...], image: Path | None = None, *, are_objects: bool = True
) -> tuple[list[Outline], tuple[str, ...]]:
    """Read the outlines of an image from COCO JSON.

    Each polygon of an annotation is an outline of its own, since polygons of one object may overlap; outlines of one
    object have the same ``object_number``. Crowds, which are no single objects, and boxes without an outline become
    regions of class `UNLABELLED_CLASS`.

    Parameters
    ----------
    shape
        Of the image, ``([z,] y, x)``, which that in the file must equal.
    image
        Its name decides which image of the file it is; None: the only one.
    are_objects
        Whether single objects are wanted; if not, a crowd is a region of its class.

    Returns
    -------
    The outlines, in the order of the file, and notes on what is not one.

    Raises
    ------
    InputError
        If the file is no COCO JSON, holds no such image or one of another size, no annotation of it, or only boxes; or
        if a mask or polygon is damaged.
    """
    coco = load_coco(Path(path))
    reading = _Reading(coco, are_objects)
    for plane in coco.find(image):
        if (plane.height, plane.width) != shape[-2:]:
            cause = f"outlines of an image of {plane.width} x {plane.height} pixels, not {shape[-1]} x {shape[-2]}"
            raise InputError(cause, path=path, hint="are they those of another image, or of one of another size?")
        for entry in coco.annotations.get(plane.number, ()):
            reading.add(entry, plane)
        reading.trace_masks(plane)
    if not reading.count:
        raise InputError("no object is drawn in it", path=path, hint="leave out images that nobody annotated")
    if reading.boxes == reading.count:
        cause = f"holds boxes only ({reading.boxes}), which do not say which pixels are of an object"
        raise InputError(cause, path=path, hint="export polygons or masks")
    return reading.outlines, tuple(reading.notes())


class _Reading:
    """Annotations of one image, while they are read."""

    def __init__(self, coco: CocoFile, are_objects: bool) -> None:
        self.coco, self.are_objects = coco, are_objects
        self.outlines: list[Outline] = []
        self.count = self.boxes = self.crowds = 0
        # Pixels of the masks of the present plane, by the place of the outline
        self._masks: dict[int, NDArray[np.int64]] = {}

    def add(self, entry: _Entry, image: CocoImage) -> None:
        self.count += 1
        class_name = self._class_name(entry)
        shape = entry.get("segmentation")
        is_crowd = bool(shape and entry.get("iscrowd") and self.are_objects)
        self.crowds += is_crowd
        self.boxes += not shape
        try:
            if isinstance(shape, Mapping):
                self._masks[len(self.outlines)] = _mask_pixels(shape, image)
                parts: list[tuple[Ring, ...]] = [()]
            else:
                parts = [(ring,) for ring in _polygon_rings(shape)] if shape else [(_box_ring(entry["bbox"]),)]
            number = self.count if len(parts) > 1 else None
            number = number if image.plane is None else entry.get("track_id")
            number = None if number is None else int(number)
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            cause = f"annotation {entry.get('id', self.count)} has no valid polygon or mask"
            raise InputError(cause, path=self.coco.path, hint="draw it again, or remove it") from error
        class_name = class_name if shape and not is_crowd else UNLABELLED_CLASS
        name = str(entry.get("id", ""))
        self.outlines += [Outline(rings, class_name, image.plane, name, object_number=number) for rings in parts]

    def trace_masks(self, image: CocoImage) -> None:
        """Give the outlines of masks their rings: of masks that share no pixel, all at once."""
        layer = np.zeros((image.height, image.width) if self._masks else (0, 0), np.int32)
        places = [*self._masks]
        for number, (place, pixels) in enumerate(self._masks.items(), 1):
            if layer.reshape(-1)[pixels].any():
                self._set_rings(place, _trace_pixels(pixels, image.width))
            else:
                layer.reshape(-1)[pixels] = number
        for number, polygons in trace(layer) if places else ():
            self._set_rings(places[number - 1], [ring for polygon in polygons for ring in polygon])
        self._masks.clear()

    def _set_rings(self, place: int, rings: Sequence[NDArray[Any]]) -> None:
        drawn = tuple(np.asarray(ring, np.float64) for ring in rings)
        self.outlines[place] = replace(self.outlines[place], rings=drawn)

    def _class_name(self, entry: _Entry) -> str:
        number = entry.get("category_id")
        return "" if number is None else self.coco.categories.get(int(number), f"category {number}")

    def notes(self) -> Iterator[str]:
        for count, what in ((self.boxes, "box without an outline"), (self.crowds, "crowd of objects")):
            if count:
                plural = what if count == 1 else what.replace("box", "boxes").replace("crowd", "crowds")
                yield f"{count} {plural}: unlabelled there"


def _polygon_rings(polygons: Sequence[Sequence[float] | Ring]) -> Iterator[Ring]:
    """Yield the rings of polygons, each a list of x and y in turn."""
    for polygon in polygons:
        points = np.array(polygon, np.float64)
        if points.ndim != 1 or len(points) % 2 or not np.isfinite(points).all():
            raise ValueError
        yield points.reshape(-1, 2)[:, ::-1]


def _box_ring(box: Sequence[float]) -> Ring:
    x, y, width, height = map(float, box)
    ring = np.array([(y, x), (y, x + width), (y + height, x + width), (y + height, x)])
    if not np.isfinite(ring).all():
        raise ValueError
    return ring


def _mask_pixels(mask: _Entry, image: CocoImage) -> NDArray[np.int64]:
    """Return the flat indices of the pixels of a mask."""
    size, counts = (image.height, image.width), mask["counts"]
    if tuple(map(int, mask["size"])) != size:
        raise ValueError
    return masked_pixels(decode_lengths(counts) if isinstance(counts, str) else counts, size)


def _trace_pixels(pixels: NDArray[np.int64], width: int) -> tuple[Ring, ...]:
    """Return the outline of a mask along the corners of its pixels."""
    if not pixels.size:
        return ()
    y, x = np.divmod(pixels, width)
    top, left = y.min(), x.min()
    crop = np.zeros((y.max() + 1 - top, x.max() + 1 - left), np.int32)
    crop[y - top, x - left] = 1
    corner = np.array([top, left], np.float64)
    return tuple(np.asarray(ring + corner) for polygon in trace(crop).polygons(1) for ring in polygon)
