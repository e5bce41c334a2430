"""Results as exports get them: labels, table and image of small scenes."""

from dataclasses import replace

import numpy as np

from biounet.core import Grid, Volume
from biounet.files import LabelledImage
from biounet.measurement import measure_classes, measure_objects

STACK = (3, 20, 30)


def squares(shape, size=4, step=6):
    """Return labels of squares (of a stack: bricks) of `size` pixels, a `step` apart."""
    labels = np.zeros(shape, np.int32)
    places = [range(1, length - size + 1, step) if length > size else [0] for length in shape[-2:]]
    for number, (y, x) in enumerate(((y, x) for y in places[0] for x in places[1]), 1):
        labels[..., y : y + size, x : x + size] = number
    return labels


def labelled_image(labels, spacing=None, unit=None, **changes):
    """Return labels with their table and an image of one 16-bit channel, brighter in objects of larger labels."""
    grid = changes.pop("grid", None) or Grid(labels.shape, spacing, unit)
    pixels = (labels.astype(np.uint16) % 60_000 + 7)[None]
    image = changes.pop("image", Volume(pixels, grid, channel_names=("DAPI",)))
    if changes.get("kind") == "classes":
        columns = measure_classes(labels, list(changes["class_names"].values()), grid).columns
    else:
        changes.setdefault("kind", "objects")
        columns = measure_objects(labels, pixels, grid, None, ("DAPI",)).columns
    return LabelledImage(**{"name": "a", "labels": labels, "grid": grid, "columns": columns, "image": image} | changes)


def time_series(frames=3, interval=None, spacing=None, unit=None):
    """Return a series of fields whose objects have labels that are unique over all frames."""
    single = squares((20, 30))
    count = int(single.max())
    labels = np.stack([np.where(single > 0, single + t * count, 0) for t in range(frames)])
    grid = Grid(single.shape, spacing, unit)
    frame = measure_objects(single, (single[None] + 7).astype(np.uint16), grid, None, ("DAPI",)).columns
    columns = {"t": np.repeat(np.arange(frames), count)} | {name: np.tile(one, frames) for name, one in frame.items()}
    columns["label"] = np.arange(1, frames * count + 1)
    image = Volume((labels[None] + 7).astype(np.uint16), grid, times=tuple(range(frames)), interval=interval)
    return LabelledImage(
        "a", labels, grid, "objects", columns, times=tuple(range(frames)), interval=interval, image=image
    )


def without_image(image):
    return replace(image, image=None)
