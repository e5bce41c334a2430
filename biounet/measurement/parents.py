"""Which object of one label image lies in which object of another: nuclei in cells, spots in nuclei."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_CROSSING = 0.1  # share of an object in a second parent, below which two outlines of one edge merely differ
_HALF = 0.5


class Parents(NamedTuple):
    """Where each object lies; arrays (n,).

    Attributes
    ----------
    parent
        The parent that holds most of the voxels of the object, and the first of several that hold equally many; 0 if
        more than half of its voxels lie in no parent.
    shared
        Its voxels that lie in this parent; 0 without one.
    size
        Its voxels.
    crosses
        Whether a tenth of its voxels or more lie in another parent.
    """

    parent: NDArray[np.int64]
    shared: NDArray[np.int64]
    size: NDArray[np.integer[Any]]
    crosses: NDArray[np.bool_]

    @property
    def fraction(self) -> NDArray[np.float64]:
        """Share of its voxels that lie in this parent; 0 without one."""
        return np.asarray(self.shared / self.size)


def find_parents(objects: NDArray[np.integer[Any]], parents: NDArray[np.integer[Any]]) -> Parents:
    """Return in which parent each object lies.

    Parameters
    ----------
    objects, parents
        Labels of equal shape: 0 is background, objects are 1..n and parents 1..m without gaps.
    """
    from scipy import sparse  # slow to import

    size = np.bincount(objects.reshape(-1))[1:]
    both = (objects > 0) & (parents > 0)
    pairs = (objects[both].astype(np.int64) - 1, parents[both].astype(np.int64))
    shape = (len(size), int(parents.max(initial=0)) + 1)
    shared = sparse.coo_matrix((np.ones(len(pairs[0]), np.int64), pairs), shape).tocsr().tocoo()
    return choose_parents(shared.row, shared.col, shared.data, size)


def choose_parents(
    row: NDArray[np.integer[Any]],
    column: NDArray[np.integer[Any]],
    count: NDArray[np.integer[Any]],
    size: NDArray[np.integer[Any]],
) -> Parents:
    """Return in which parent each object lies, from how many voxels they share.

    Parameters
    ----------
    row, column, count
        Number from 0 of an object, that of a parent, and their common voxels (p,), each pair once.
    size
        (n,) voxels of the objects.
    """
    order = np.lexsort((column, -count, row))
    row, column, count = row[order], column[order], count[order]
    is_first = np.append(True, row[1:] != row[:-1])[: len(row)]
    is_second = np.append(False, is_first[:-1] & ~is_first[1:])[: len(row)]
    inside = np.bincount(row, count, minlength=len(size)) >= _HALF * size
    parent, shared = np.zeros((2, len(size)), np.int64)
    crosses = np.zeros(len(size), np.bool_)
    parent[row[is_first]] = column[is_first]
    shared[row[is_first]] = count[is_first]
    second = row[is_second]
    crosses[second] = count[is_second] >= _CROSSING * size[second]
    return Parents(parent * inside, shared * inside, size, crosses)
