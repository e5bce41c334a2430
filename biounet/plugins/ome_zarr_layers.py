"""Layers of napari from an OME-Zarr 0.5, its labels on its image; pixels are read when they are shown.

The words are those of https://ngff.openmicroscopy.org/0.5.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from biounet.core import InputError
from biounet.plugins.features import table_features

LayerData = tuple[Any, dict[str, Any], Literal["image", "labels"]]

_METADATA = "zarr.json"
_WHITE = "FFFFFF"


def is_ome_zarr(path: Path) -> bool:
    """Whether a path is a folder that holds an image, or labels, as OME-Zarr 0.5."""
    return path.is_dir() and "multiscales" in _read_ome(path)


def ome_zarr_layers(path: Path) -> list[LayerData]:
    """Return a layer for each channel of the image, and one for each of its labels.

    Labels have what the file says of each as ``features``, whose column ``index`` is the label, or else the table
    beside the store.

    Raises
    ------
    InputError
        If it is none that this version understands.
    """
    try:
        ome, stem = _read_ome(path), path.name.removesuffix(".ome.zarr")
        if "image-label" in ome:
            return [_label_layer(path, f"{stem} labels", path)]
        labels = [str(name) for name in _read_ome(path / "labels").get("labels", [])]
        if any(".." in Path(name).parts or Path(name).is_absolute() for name in labels):
            raise ValueError("labels outside of it")
        layers = [*_image_layers(path, ome)]
        return [*layers, *(_label_layer(path / "labels" / name, f"{stem} {name}", path) for name in labels)]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        cause = f"no OME-Zarr of version 0.5 as biounet writes it: {type(error).__name__} {error}"
        raise InputError(cause, path=path) from error


def _read_ome(group: Path) -> Mapping[str, Any]:
    """Return the metadata of OME of a group; empty where there is none."""
    try:
        found = json.loads((group / _METADATA).read_text(encoding="utf-8"))["attributes"]["ome"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _image_layers(path: Path, ome: Mapping[str, Any]) -> Iterator[LayerData]:
    name, (levels, axes, placement) = path.name.removesuffix(".ome.zarr"), _open(path, ome)
    described = ome.get("omero", {}).get("channels", [{}])
    at = axes.index("c") if "c" in axes else None
    for number, channel in enumerate(described):
        data = levels if at is None else [level[(slice(None),) * at + (number,)] for level in levels]
        label = f"{name} {channel['label']}" if len(described) > 1 else name
        options = {"name": label, **placement} | _colours(channel, several=len(described) > 1)
        yield _one_or_all(data), options, "image"


def _colours(channel: Mapping[str, Any], *, several: bool) -> dict[str, Any]:
    colour, window = channel.get("color", _WHITE), channel.get("window", {})
    options: dict[str, Any] = {"colormap": "gray" if colour == _WHITE else f"#{colour}"}
    if window and window["start"] < window["end"]:
        options["contrast_limits"] = (window["start"], window["end"])
    return options | ({"blending": "additive"} if several else {})


def _label_layer(path: Path, name: str, store: Path) -> LayerData:
    ome = _read_ome(path)
    levels, _, placement = _open(path, ome)
    rows = ome["image-label"].get("properties", [])
    names = list(dict.fromkeys(name for row in rows for name in row if name not in ("label", "label-value")))
    features: Mapping[str, Any] = {name: [row.get(name) for row in rows] for name in names}
    features = {"index": [row["label-value"] for row in rows], **features}
    if not rows:  # of very many objects, the columns are in the table only
        stem = store.name.removesuffix(".ome.zarr").removesuffix("_labels")
        features = table_features(store.with_name(f"{stem}_objects.csv"))
    return _one_or_all(levels), {"name": name, "features": features, **placement}, "labels"


def _open(path: Path, ome: Mapping[str, Any]) -> tuple[list[Any], list[str], dict[str, Any]]:
    """Return the levels of a pyramid, the names of its axes, and where it lies, without the channel."""
    import dask.array as da  # which napari brings along
    import zarr

    (multiscale,) = ome["multiscales"]
    axes, first = multiscale["axes"], multiscale["datasets"][0]
    group = zarr.open_group(path, mode="r", zarr_format=3)
    levels = [da.from_array(group[level["path"]]) for level in multiscale["datasets"]]  # type: ignore[no-untyped-call]
    given = {one["type"]: one[one["type"]] for one in first["coordinateTransformations"]}
    shift = given.get("translation", [0.0] * len(axes))
    kept = [number for number, axis in enumerate(axes) if axis["name"] != "c"]
    placement = {
        "scale": [given["scale"][number] for number in kept],
        "translate": [shift[number] for number in kept],
        "units": [axes[number].get("unit", "pixel") for number in kept],
        "axis_labels": [axes[number]["name"] for number in kept],
        "metadata": {"path": str(path)},
    }
    return levels, [axis["name"] for axis in axes], placement


def _one_or_all(levels: list[Any]) -> Any:  # noqa: ANN401 - a lazy array, or several
    return levels if len(levels) > 1 else levels[0]
