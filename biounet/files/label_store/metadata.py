"""What a label store says of itself beside its labels: written when it is made, read when it is opened again."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from biounet.core import Grid, InputError, ResultKind, Unit
from biounet.files.exports.ome_metadata import UNITS, VERSION, ZSTD_LEVEL, OmeImage, label_colours, multiscales
from biounet.files.formats.raw import format_shape, translate_errors
from biounet.files.label_store.layout import StoreLevel

if TYPE_CHECKING:
    import zarr
    from zarr.abc.store import Store

_OWN = "biounet"  # the attributes that OME-Zarr has no word for
_LAYOUT = 1  # version of these attributes, and of what stands in the shards


@dataclass(frozen=True)
class StoreOptions:
    """How a label store is made, beside the grid of its labels.

    Attributes
    ----------
    shard
        Voxels along each axis ``([z,] y, x)`` that are one file, and have one writer at a time.
    dtype
        Of the labels.
    kind
        What the values are.
    title
        What the image is called.
    class_names
        By their values, where the labels are classes.
    source
        Path of the image, if that is an OME-Zarr, from the store; empty where it is another.
    pinned
        What the labels are made with, such as the hashes of model and settings: whoever continues has the same.
    """

    shard: tuple[int, ...]
    dtype: str = "int32"
    kind: ResultKind = "objects"
    title: str = "labels"
    class_names: Mapping[int, str] = field(default_factory=dict)
    source: str = ""
    pinned: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StoreContent:
    """What a label store holds.

    Attributes
    ----------
    grid
        Of the labels.
    levels
        The labels themselves, and those of lower resolution.
    dtype
        Of the labels.
    kind
        What the values are; None where it does not say.
    pinned
        As in `StoreOptions`; empty in a store of another program.
    """

    grid: Grid
    levels: tuple[StoreLevel, ...]
    dtype: np.dtype[Any]
    kind: ResultKind | None = None
    pinned: Mapping[str, str] = field(default_factory=dict)


def write_metadata(path: Path, content: StoreContent, options: StoreOptions) -> None:
    """Write a store without labels to a folder that is not there; equal input gives equal bytes."""
    import zarr  # slow to import
    from zarr.storage import LocalStore

    files = LocalStore(path)
    image = OmeImage(options.title, content.grid)
    described = {"source": {"image": options.source}} if options.source else {}
    ome = {
        "version": VERSION,
        "multiscales": multiscales(image, [level.factors for level in content.levels], "mode"),
        "image-label": _describe_classes(options.class_names) | described,
    }
    own = {
        "layout": _LAYOUT,
        "values": options.kind,
        "pinned": dict(options.pinned),
        **_describe_grid(content.grid),
    }
    zarr.create_group(files, zarr_format=3, attributes={"ome": ome, _OWN: own})
    for level in content.levels:
        create_array(files, level, content.dtype, level.shape, level.name)


def create_array(
    files: Store, level: StoreLevel, dtype: np.dtype[Any], shape: Sequence[int], name: str = ""
) -> zarr.Array[Any]:
    """Return a new array with the shards of a level.

    They are packed by zstd without a shuffle of bytes, which takes twice the time and space for labels of nuclei;
    its checksum shows a damaged chunk.
    """
    import zarr  # slow to import
    from zarr.codecs import ZstdCodec

    return zarr.create_array(
        files,
        name=name or None,
        shape=tuple(shape),
        shards=level.shard,
        chunks=level.chunk,
        dtype=dtype,
        compressors=ZstdCodec(level=ZSTD_LEVEL, checksum=True),
        fill_value=0,
        dimension_names=list("zyx"[-len(level.shape) :]),
    )


def _describe_classes(names: Mapping[int, str]) -> dict[str, Any]:
    if not names:
        return {}
    properties = [{"label-value": value, "class": name} for value, name in names.items()]
    return {"colors": label_colours(list(names)), "properties": properties}


def _describe_grid(grid: Grid) -> dict[str, Any]:
    """Return what OME-Zarr cannot say of a volume: its affine and its NIfTI header."""
    if grid.affine is None:
        return {}
    header = {} if grid.header is None else {"nifti_header": base64.b64encode(grid.header).decode()}
    return {"affine": [list(row) for row in grid.affine], "frame": grid.frame, **header}


def grid_difference(one: StoreContent, wanted: StoreContent) -> str:
    """Return in what the voxels of two stores differ, in words, whatever stands in them; empty if they do not."""
    if one.grid.shape != wanted.grid.shape:
        return f"is {format_shape(one.grid.shape)}, not {format_shape(wanted.grid.shape)}"
    if one.grid != wanted.grid:
        return "lies on another grid: its voxel size or position is another"
    return "" if one.dtype == wanted.dtype else f"holds {one.dtype}, not {wanted.dtype}"


def metadata_difference(path: Path, other: Path) -> str:
    """Return in what a store differs from another, in words; empty if their metadata are the same."""
    one, wanted = read_content(path), read_content(other)
    if difference := grid_difference(one, wanted):
        return difference
    if one.levels != wanted.levels:
        shards = f"{format_shape(one.levels[0].shard)}, not {format_shape(wanted.levels[0].shard)}"
        return f"has shards of {shards}"
    changed = [name for name in {**one.pinned, **wanted.pinned} if one.pinned.get(name) != wanted.pinned.get(name)]
    if changed:
        return f"was made with another {', another '.join(changed)}"
    arrays = [f"{level.name}/zarr.json" for level in one.levels]
    is_same = all(_compared(path / name) == _compared(other / name) for name in ("zarr.json", *arrays))
    return "" if is_same else "was written by another version"


def _compared(path: Path) -> dict[str, Any]:
    """Return what decides how shards are read; versions of zarr may add words of their own."""
    found = _read_json(path)
    return {
        name: found.get(name) for name in ("attributes", "shape", "data_type", "chunk_grid", "codecs", "fill_value")
    }


@translate_errors
def read_content(path: Path) -> StoreContent:
    """Return what a store holds, of biounet or another program.

    Raises
    ------
    InputError
        If it is no OME-Zarr 0.5 of labels alone, or a level is missing.
    """
    attributes = _read_json(path / "zarr.json").get("attributes", {}) if (path / "zarr.json").is_file() else {}
    scales = attributes.get("ome", {}).get("multiscales")
    if not scales:
        raise InputError("no OME-Zarr 0.5: it has no multiscales", path=path)
    axes, datasets = scales[0]["axes"], scales[0]["datasets"]
    names = "".join(axis["name"] for axis in axes)
    if names not in ("yx", "zyx"):
        raise InputError(f"axes {names}, labels have yx or zyx", path=path)
    scale = [_scale_of(dataset) for dataset in datasets]
    arrays = [_open_array(path, dataset["path"]) for dataset in datasets]
    if any(array.dtype.kind not in "iu" for array in arrays):
        raise InputError(f"pixels of type {arrays[0].dtype}, labels are integers", path=path)
    levels = tuple(
        StoreLevel(
            dataset["path"],
            tuple(round(now / first) for now, first in zip(step, scale[0], strict=True)),
            array.shape,
            array.shards or array.chunks,
            array.chunks,
        )
        for dataset, step, array in zip(datasets, scale, arrays, strict=True)
    )
    own = attributes.get(_OWN, {})
    if own.get("layout", _LAYOUT) != _LAYOUT:
        cause = f"a label store of layout {own['layout']}, and this version of biounet knows {_LAYOUT}"
        raise InputError(cause, path=path, hint="open it with the version that wrote it, or segment again")
    kind = own.get("values")
    return StoreContent(
        grid=_read_grid(arrays[0].shape, scale[0], axes, own),
        levels=levels,
        dtype=arrays[0].dtype,
        kind=kind if kind in get_args(ResultKind) else None,
        pinned=own.get("pinned", {}),
    )


def stored_kind(path: Path) -> str:
    """Return what the values of a store are, as it was made; empty where it does not say."""
    return str(_read_json(path / "zarr.json").get("attributes", {}).get(_OWN, {}).get("values", ""))


def _open_array(path: Path, name: str) -> zarr.Array[Any]:
    import zarr  # slow to import
    from zarr.storage import LocalStore

    if not (path / name / "zarr.json").is_file():
        raise InputError(f"level {name} is missing", path=path, hint="copy the whole folder")
    return zarr.open_array(LocalStore(path, read_only=True), path=name, mode="r")


def _scale_of(dataset: Mapping[str, Any]) -> list[float]:
    return next(list(map(float, one["scale"])) for one in dataset["coordinateTransformations"] if "scale" in one)


def _read_grid(
    shape: tuple[int, ...], scale: Sequence[float], axes: Sequence[Mapping[str, Any]], own: Mapping[str, Any]
) -> Grid:
    units: dict[Any, Unit] = {word: unit for unit, word in UNITS.items()}  # type: ignore[misc]
    unit = units.get(axes[0].get("unit"))
    affine = tuple(tuple(map(float, row)) for row in own["affine"]) if "affine" in own else None
    header = base64.b64decode(own["nifti_header"]) if "nifti_header" in own else None
    spacing = None if unit is None else tuple(scale)
    return Grid(shape, spacing, unit, affine, header, frame=str(own.get("frame", "")))


def _read_json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
