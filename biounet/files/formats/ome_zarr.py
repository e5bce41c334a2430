"""OME-Zarr of versions 0.4 and 0.5, and Zarr arrays without its metadata, in a folder.

The words are those of https://ngff.openmicroscopy.org: an image is a group with ``multiscales``, a list of its levels.
The first level is the image as it was taken, and the one that is read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from biounet.core import InputError, Note, NoteCode, Unit, list_some
from biounet.files.formats.pixel_size import length_um, unit_in_um
from biounet.files.formats.raw import RawImage, format_shape
from biounet.files.formats.scenes import ONE_IMAGE, Scene, choose_scene
from biounet.files.lazy.zarr_chunks import ZarrChunks

_METADATA = ("zarr.json", ".zattrs", ".zgroup", ".zarray")
_NAME = "zarr.json"
_VERSIONS = ("0.4", "0.5")
_MAX_METADATA = 2**26  # bytes
_UNKNOWN = "Q"  # axes without a meaning, in front of y and x
_LETTERS = "tczyx"


def is_zarr(path: Path) -> bool:
    """Whether a path is a folder that is a Zarr group or array."""
    return any((path / name).is_file() for name in _METADATA)


def is_zarr_by(names: Collection[str]) -> bool:
    """Whether a folder that holds files of these names is a Zarr group or array."""
    return not {*_METADATA}.isdisjoint(names)


def list_zarr(path: Path) -> tuple[Scene, ...]:
    """Return the images in a Zarr folder: itself, or those of a plate or a set of series."""
    places = _images(path)
    names = [place if len(places) > 1 else "" for place in places]
    return tuple(Scene(str(number), name) for number, name in enumerate(names)) or (Scene(ONE_IMAGE),)


def read_zarr(path: Path, scene: str = "") -> RawImage:
    """Read the metadata of an image in a Zarr folder; which of several that is about, `scene` says."""
    chosen = choose_scene(list_zarr(path), scene, path)
    image = path / _images(path)[int(chosen.key)]
    if _is_array(image):
        return _raw_of_array(ZarrChunks.open(image), image)
    ome = _read_ome(image)
    multiscale = _only_multiscale(ome, image)
    level = _first_level(multiscale, image)
    stored = ZarrChunks.open(image / level)
    axes = _axes(multiscale, stored.shape, image)
    spacing, unit, notes = _pixel_size(multiscale, image)
    names = _channel_names(ome)
    return _raw(stored, axes, "OME-Zarr", notes, spacing=spacing, unit=unit, channel_names=names)


def label_groups(path: Path) -> tuple[str, ...]:
    """Return the names of the label images of an OME-Zarr, in their folder ``labels``; empty for any other path."""
    if not path.is_dir() or not is_zarr(path) or not is_zarr(path / "labels"):
        return ()
    names = _read_ome(path / "labels").get("labels")
    return tuple(_inside(str(name), path) for name in names) if isinstance(names, list) else ()


def is_label_image(path: Path) -> bool:
    """Whether an OME-Zarr says that its values are labels."""
    return path.is_dir() and is_zarr(path) and "image-label" in _read_ome(path)


def _raw(stored: ZarrChunks, axes: str, source: str, notes: tuple[str, ...], **more: Any) -> RawImage:  # noqa: ANN401
    size = math.prod(stored.shape) * stored.dtype.itemsize
    notes = (*notes, *_absent_note(stored))
    # Of a sparse image, hardly anything is stored: no store is too small for what it declares.
    return RawImage(
        axes, stored.shape, stored.dtype, stored.read_all, source, notes=notes, stored=size, regions=stored, **more
    )


def _raw_of_array(stored: ZarrChunks, path: Path) -> RawImage:
    """Return an array without metadata of OME; its axes may have names."""
    names = _read_json(path / _NAME).get("dimension_names") if (path / _NAME).is_file() else None
    names = names or (_read_json(path / ".zattrs") if (path / ".zattrs").is_file() else {}).get("_ARRAY_DIMENSIONS")
    letters = "".join(map(str, names)).lower() if isinstance(names, list) else ""
    is_known = len(letters) == len(stored.shape) == len({*letters}) and {*"yx"} <= {*letters} <= {*_LETTERS}
    if len(stored.shape) < 2:
        raise InputError(f"an array of shape {format_shape(stored.shape)}, not an image", path=path)
    axes = letters.upper() if is_known else _UNKNOWN * (len(stored.shape) - 2) + "YX"
    notes = (Note("pixel size unknown", NoteCode.VOXEL_SIZE_UNKNOWN),)
    return _raw(stored, axes, "names of dimensions" if is_known else "shape", notes)


def _absent_note(stored: ZarrChunks) -> Iterator[str]:
    absent = stored.find_absent()
    if absent.count:
        shown = list_some(["/".join(map(str, place)) for place in absent.first], len(absent.first))
        more = ", …" if absent.count > len(absent.first) else ""
        text = f"{absent.count} of {absent.total} chunks are absent and read as {stored.fill}: {shown}{more}"
        yield Note(text, NoteCode.CHUNKS_ABSENT, figure=absent.count)


def _images(path: Path) -> list[str]:
    """Return where the images of a folder are below it; of a single image or an array, the folder itself."""
    if _is_array(path):
        return ["."]
    ome = _read_ome(path)
    if "multiscales" in ome:
        return ["."]
    if isinstance(plate := ome.get("plate"), Mapping):
        return [*_fields(path, plate)]
    attributes = _read_attributes(path)
    if "bioformats2raw.layout" in {**attributes, **ome}:
        series = _read_ome(path / "OME").get("series") if is_zarr(path / "OME") else None
        found = [str(name) for name in series] if isinstance(series, list) else _numbered(path)
        return [_inside(name, path) for name in found]
    hint = "name an image or array inside it" if any(is_zarr(one) for one in path.iterdir()) else None
    raise InputError("a Zarr group without 'multiscales', the list of levels of an OME-Zarr", path=path, hint=hint)


def _numbered(path: Path) -> list[str]:
    """Return the groups that are called by numbers from 0."""
    numbers = sorted(int(one.name) for one in path.iterdir() if one.name.isdecimal() and is_zarr(one))
    return [str(number) for number in numbers]


def _fields(path: Path, plate: Mapping[str, Any]) -> Iterator[str]:
    """Yield the fields of all wells of a plate."""
    for well in plate.get("wells", []):
        place = _inside(str(well["path"]), path)
        content = _read_ome(path / place).get("well")
        for image in content["images"] if isinstance(content, Mapping) else ():
            yield _inside(f"{place}/{image['path']}", path)


def _inside(name: str, path: Path) -> str:
    """Return a place below a folder, as metadata name it; raise `InputError` if it lies elsewhere."""
    if ".." in Path(name).parts or Path(name).is_absolute():
        raise InputError(f"damaged: it names '{name}', which lies outside of it", path=path)
    return name


def _is_array(path: Path) -> bool:
    if (path / _NAME).is_file():
        return _read_json(path / _NAME).get("node_type") == "array"
    return (path / ".zarray").is_file()


def _read_json(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _MAX_METADATA:
        raise InputError(f"metadata of {path.stat().st_size} bytes", path=path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"damaged: no JSON ({error})", path=path) from None
    if not isinstance(content, dict):
        raise InputError("damaged: no metadata of Zarr", path=path)
    return content


def _read_attributes(path: Path) -> dict[str, Any]:
    """Return the attributes of a group or array of either version."""
    if (path / _NAME).is_file():
        attributes = _read_json(path / _NAME).get("attributes", {})
    else:
        attributes = _read_json(path / ".zattrs") if (path / ".zattrs").is_file() else {}
    return attributes if isinstance(attributes, dict) else {}


def _read_ome(path: Path) -> dict[str, Any]:
    """Return the metadata of OME of a group: under ``ome`` from version 0.5 on, beside others before."""
    attributes = _read_attributes(path)
    ome = attributes.get("ome", attributes)
    return ome if isinstance(ome, dict) else {}


def _only_multiscale(ome: Mapping[str, Any], path: Path) -> dict[str, Any]:
    found = ome.get("multiscales")
    if not isinstance(found, list) or not found or not isinstance(found[0], dict):
        hint = "name the array of its full resolution, and its axes with --axes"
        raise InputError("damaged: 'multiscales' lists no levels", path=path, hint=hint)
    return dict(found[0])


def _first_level(multiscale: Mapping[str, Any], path: Path) -> str:
    """Return where the array of full resolution is."""
    datasets = multiscale.get("datasets")
    paths = [one.get("path") for one in datasets if isinstance(one, dict)] if isinstance(datasets, list) else []
    if not paths or not isinstance(paths[0], str):
        raise InputError("damaged: 'multiscales' lists no levels", path=path)
    first = _inside(paths[0], path)
    if not is_zarr(path / first):
        there = [one for one in paths[1:] if isinstance(one, str) and is_zarr(path / _inside(one, path))]
        more = f", only smaller levels ({list_some(there, 3)})" if there else ""
        cause = f"its level of full resolution, '{first}', is not there{more}"
        raise InputError(cause, path=path, hint="copy the whole folder again from where it came from")
    return first


def _axes(multiscale: Mapping[str, Any], shape: Sequence[int], path: Path) -> str:
    """Return the letters of the axes; before version 0.4 they had no types, and before 0.3 there were always five."""
    stated = multiscale.get("axes", [*_LETTERS])
    names = [one.get("name") if isinstance(one, dict) else one for one in stated] if isinstance(stated, list) else []
    letters = "".join(str(name).lower() for name in names)
    shown = ", ".join(map(str, names)) or "none"
    if len(names) != len(shape):
        raise InputError(f"damaged: axes {shown}, and an array of shape {format_shape(tuple(shape))}", path=path)
    if len(letters) != len(names) or len({*letters}) < len(letters) or not {*"yx"} <= {*letters} <= {*_LETTERS}:
        cause = f"axes {shown} are not understood: those of images are t, c, z, y and x"
        raise InputError(cause, path=path, hint=f"name the array {path.name}/… itself, and its axes with --axes")
    return letters.upper()


def _pixel_size(multiscale: Mapping[str, Any], path: Path) -> tuple[dict[str, float], Unit, tuple[str, ...]]:
    """Return the lengths of those axes of space that have a unit, the unit of lengths, and remarks."""
    axes = multiscale.get("axes", [])
    units = [str(one.get("unit") or "") if isinstance(one, dict) else "" for one in axes]
    letters = [str(one.get("name") if isinstance(one, dict) else one).lower() for one in axes]
    scales = [*_scales(multiscale["datasets"][0]), *_scales(multiscale)]
    if any(len(scale) != len(axes) for scale in scales):
        raise InputError(f"damaged: a scale of {len(scales[0])} numbers for {len(axes)} axes", path=path)
    unknown = (Note("pixel size unknown", NoteCode.VOXEL_SIZE_UNKNOWN),)
    space = [at for at, letter in enumerate(letters) if letter in "zyx"]
    if not scales or not space:
        return {}, "um", unknown
    unit: Unit = "mm" if all(units[at].lower() == "millimeter" for at in space) else "um"
    sizes = {letters[at].upper(): _length(math.prod(scale[at] for scale in scales), units[at], unit) for at in space}
    found = {axis: size for axis, size in sizes.items() if size is not None}
    return (found, unit, ()) if {"X", "Y"} <= found.keys() else ({}, "um", unknown)


def _length(value: float, stated: str, unit: Unit) -> float | None:
    """Return a length in the unit of an image; None if it is none."""
    if unit == "um":
        return length_um(value, unit_in_um(stated))
    return value if 0 < value < math.inf else None


def _scales(described: Any) -> list[list[float]]:  # noqa: ANN401 - of metadata
    """Return the scales among coordinate transformations."""
    transformations = described.get("coordinateTransformations", []) if isinstance(described, dict) else []
    found = [one.get("scale") for one in transformations if isinstance(one, dict) and one.get("type") == "scale"]
    return [[float(number) for number in scale] for scale in found if isinstance(scale, list)]


def _channel_names(ome: Mapping[str, Any]) -> tuple[str, ...]:
    omero = ome.get("omero")
    channels = omero.get("channels") if isinstance(omero, dict) else None
    if not isinstance(channels, list):
        return ()
    labels = [one.get("label") if isinstance(one, dict) else None for one in channels]
    return tuple(str(label) for label in labels) if all(labels) else ()
