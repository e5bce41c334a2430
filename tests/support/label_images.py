"""Small label images and their tables."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from biounet.core import Grid
from biounet.measurement import measure_objects


def without_gaps(labels):
    return np.unique(np.append(0, labels), return_inverse=True)[1][1:].reshape(labels.shape).astype(np.int32)


def label_images(dims=2, longest=9):
    shapes = hnp.array_shapes(min_dims=dims, max_dims=dims, max_side=longest)
    return hnp.arrays(np.int32, shapes, elements=st.sampled_from([0, 0, 1, 1, 2, 3])).map(without_gaps)


def picture(text):
    """Return a label image from rows of digits; dots are background."""
    return np.array([[int(c.replace(".", "0")) for c in line] for line in text.split()], np.int32)


def pixels(shape, channels=2, dtype=np.uint16):
    return np.random.default_rng(0).integers(0, 100, (channels, *shape)).astype(dtype)


def table(labels, grid=None, image=None, confidence=None):
    image = pixels(labels.shape) if image is None else image
    return measure_objects(labels, image, grid or Grid(labels.shape), confidence, "abc"[: len(image)]).columns


def row(text, grid=None):
    """Return the measurements of the only object of a label image."""
    return {name: column.item() for name, column in table(picture(text), grid).items()}


def blobs(size=200, objects=60):
    """Return overlapping ellipses, some of them cut to crescents and disconnected parts."""
    rng = np.random.default_rng(1)
    labels = np.zeros((size, size), np.int32)
    y, x = np.ogrid[:size, :size]
    for k, (cy, cx, ry, rx) in enumerate(rng.uniform((0, 0, 2, 2), (size, size, 20, 20), (objects, 4)), start=1):
        labels[((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1] = k
    return without_gaps(labels)
