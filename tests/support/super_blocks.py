"""Images cut into super-blocks: what begins in each, and a reader that counts what it is asked for."""

import itertools

import numpy as np

from biounet.core import ArrayImage, Volume
from biounet.measurement import Boxes, OwnedObjects


def lattice(shape, edges):
    """Return the regions of super-blocks of these edges, in scan order."""
    axes = [[slice(i, min(i + e, n)) for i in range(0, n, e)] for n, e in zip(shape, edges, strict=True)]
    return list(itertools.product(*axes))


def objects_of(labels, confidence=None):
    """Return all objects of a label image 1..N, and the index of the first voxel of each."""
    n = int(labels.max())
    places = [np.argwhere(labels == k) for k in range(1, n + 1)]
    low = np.array([place.min(axis=0) for place in places]).reshape(n, labels.ndim)
    high = np.array([place.max(axis=0) for place in places]).reshape(n, labels.ndim)
    size = np.array([len(place) for place in places], np.int64)
    first = np.array([place[0] for place in places]).reshape(n, labels.ndim)
    return OwnedObjects(np.arange(1, n + 1), size, Boxes(low, high), confidence), first


def owned(objects, first, core):
    """Return the objects that begin in a super-block."""
    start, stop = np.array([[part.start, part.stop] for part in core]).T
    return objects.select(((first >= start) & (first < stop)).all(axis=1))


class CountedLabels:
    """A label image as a reader of regions, with the largest number of voxels that it was asked for."""

    def __init__(self, labels):
        self.labels, self.largest = labels, 0

    def __call__(self, region):
        part = self.labels[region].astype(np.int32)
        self.largest = max(self.largest, part.size)
        return part


class StoredLabels:
    """A label image that is read region by region, and stores no background."""

    def __init__(self, labels):
        self.labels = labels

    def read(self, region):
        return self.labels[region]

    def has_labels(self, region):
        return bool(self.labels[region].any())


def lazy(labels, grid, channels, further=None):
    """Return channels on a grid as a lazy image."""
    return ArrayImage.of(Volume(np.asarray(channels), grid, measured=further or {}))
