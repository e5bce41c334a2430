"""The reader of napari: a folder of results, a label image or an OME-Zarr as layers that lie on each other.

Layers are tuples of data, keyword arguments and type, so that nothing of napari is imported. Positions are those of the
image: in the unit of its pixel size or, for NIfTI, the RAS coordinates in mm of its header.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.batch import RunImage, find_run_image, is_run_folder, run_images
from biounet.core import WORLD_AXES, Grid, InputError, Volume, canonical_grid, canonical_transform
from biounet.files import natural_key, read_label_volume
from biounet.plugins.features import table_features
from biounet.plugins.ome_zarr_layers import LayerData, is_ome_zarr, ome_zarr_layers
from biounet.reporting import LABEL_SUFFIXES, label_stem

_MOST_IMAGES = 20  # of a folder that are opened: each is two layers or more, and is read whole
_MOST_PIXELS = 1_000_000  # that contrast limits are taken of
_DARKEST, _BRIGHTEST = 0.5, 99.8  # percentiles of the contrast limits
_COLOURS = ("red", "green", "blue")  # names of channels that are those of a picture
_CHANNEL_COLOURS = ("cyan", "magenta", "yellow", "green", "red", "blue")
_UNITS = {"um": "um", "mm": "mm", None: "pixel"}


def get_reader(path: str | Sequence[str]) -> Callable[[str | Sequence[str]], list[LayerData]] | None:
    """Return what reads a path for napari; None where biounet did not write it.

    Parameters
    ----------
    path
        What a user opens, or several of them.
    """
    paths = _as_list(path)
    return read_layers if paths and all(map(_is_ours, paths)) else None


def read_layers(path: str | Sequence[str]) -> list[LayerData]:
    """Return the layers of folders of results, label images and OME-Zarr: each channel of an image, and its labels.

    Labels have the table of their objects as ``features``, whose column ``index`` is the label. Of a folder with many
    images the first 20 are opened, and one is shown; a warning says so, and where an image is no longer there.

    Raises
    ------
    InputError, MachineError
        If a file is damaged or cannot be read.
    """
    layers: list[LayerData] = []
    for one in _as_list(path):
        if is_ome_zarr(one):
            layers += ome_zarr_layers(one)
            continue
        for image in _images_of(one):
            layers += _layers(image, visible=not layers)
    return layers


def _as_list(path: str | Sequence[str]) -> list[Path]:
    return [Path(one) for one in ([path] if isinstance(path, str | Path) else path)]


def _is_ours(path: Path) -> bool:
    return path.name.endswith(LABEL_SUFFIXES) if path.is_file() else is_run_folder(path) or is_ome_zarr(path)


@dataclass(frozen=True)
class _Source:
    """A label image, and where it is known the image of a run that it is of."""

    label_path: Path
    image: RunImage | None

    @property
    def name(self) -> str:
        """What layers are called."""
        return self.image.name if self.image else label_stem(self.label_path)


def _images_of(path: Path) -> list[_Source]:
    """Return the images of a folder, not more than are opened, or the one that a label image is of."""
    if path.is_file():
        return [_Source(path, find_run_image(path))]
    images = sorted(run_images(path), key=lambda image: natural_key(Path(image.name)))
    if not images:
        raise InputError("no image of this folder of results has labels", path=path)
    if len(images) > _MOST_IMAGES:
        _warn(f"{path}: the first {_MOST_IMAGES} of {len(images)} images; open a label image to see another")
    return [_Source(image.label_path, image) for image in images[:_MOST_IMAGES]]


def _warn(text: str) -> None:
    """Warn in a line, which napari shows as a notification."""
    warnings.warn(f"biounet: {text}", stacklevel=2)


def _layers(source: _Source, visible: bool) -> list[LayerData]:
    image = None
    if source.image is not None:
        try:
            image = source.image.read_image()
        except InputError as error:
            _warn(f"{source.name}: labels without their image: {error}")
    labels = read_label_volume(source.label_path, None if image is None else image.grid.dims)
    grid = labels.grid if image is None else image.grid
    metadata = {"labels": str(source.label_path), "affine": grid.affine}
    shown = {"visible": visible, "metadata": metadata} | _placement(grid, labels)
    layers = [] if image is None else list(_image_layers(image, source.name, shown))
    turned = canonical_transform(grid).apply(labels.array[0])
    table = source.label_path.with_name(f"{label_stem(source.label_path)}_objects.csv")
    features = {"features": table_features(table, source.image.class_names if source.image else ())}
    return [*layers, (turned, {"name": f"{source.name} labels", **shown, **features}, "labels")]


def _placement(grid: Grid, labels: Volume) -> dict[str, Any]:
    """Return where arrays lie that were brought to the canonical order."""
    grid = canonical_grid(grid)
    scale, translate = list(grid.steps), _first_voxel(grid)
    units, axes = [_UNITS[grid.unit]] * grid.dims, [*"zyx"[-grid.dims :]]
    if labels.times:
        scale, translate, axes = [labels.interval or 1.0, *scale], [0.0, *translate], ["t", *axes]
        units = ["s" if labels.interval else "pixel", *units]
    return {"scale": scale, "translate": translate, "units": units, "axis_labels": axes}


def _first_voxel(grid: Grid) -> list[float]:
    """Return the position of the first voxel, of a NIfTI volume in the world.

    napari cuts along the axes of the world, and warns at each slice of a volume that is oblique to them. Such a volume
    is laid along them, with its centre where it is.
    """
    if grid.affine is None or grid.axcodes is None:
        return [0.0] * grid.dims
    affine = np.array(grid.affine)
    middle = np.array([*grid.shape[::-1], 1][:3]) / 2 - 0.5
    centre = affine[:, :3] @ middle + affine[:, 3]
    worlds = [next(n for n, pair in enumerate(WORLD_AXES) if code in pair) for code in reversed(grid.axcodes)]
    edges = zip(worlds, grid.steps, grid.shape, strict=True)
    return [float(centre[world] - step * (n - 1) / 2) for world, step, n in edges]


def _image_layers(image: Volume, name: str, shown: dict[str, Any]) -> Iterator[LayerData]:
    """Yield a layer for each channel; one for a picture in colours."""
    turn = canonical_transform(image.grid)
    if image.channel_names == _COLOURS and image.array.dtype == np.uint8 and not image.measured:
        yield np.moveaxis(turn.apply(image.array), 0, -1), {"name": name, "rgb": True, **shown}, "image"
        return
    names = image.channel_names or tuple(f"channel {number}" for number in range(image.channels))
    channels = [*zip(names, image.array, strict=True), *image.measured.items()]  # two may have one name
    is_stain = image.grid.unit != "mm"  # contrasts of a scanner are looked at one by one
    for number, (channel, array) in enumerate(channels):
        options = dict(shown) | {"name": name if len(channels) == 1 else f"{name} {channel}"}
        options |= {"colormap": "gray"} | _contrast(array)
        if len(channels) > 1 and is_stain:
            options |= {"colormap": _CHANNEL_COLOURS[number % len(_CHANNEL_COLOURS)], "blending": "additive"}
        elif number:
            options["visible"] = False
        yield turn.apply(array), options, "image"


def _contrast(array: NDArray[Any]) -> dict[str, Any]:
    """Return contrast limits that leave out the brightest dust; none for a constant image."""
    step = max(1, round((array.size / _MOST_PIXELS) ** (1 / array.ndim)))
    low, high = np.percentile(array[(slice(None, None, step),) * array.ndim], (_DARKEST, _BRIGHTEST))
    return {"contrast_limits": (float(low), float(high))} if low < high else {}
