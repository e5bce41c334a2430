"""Basins of which not all neighbours are known: what can be decided already, and what has to wait.

`merge_basins` visits the edges of the whole image by falling saddle. Of a part of the image, the outcome of a visit is
known in two cases, whatever the rest is, because peaks of merged parts only rise:

* The saddle is too low for the lower of the two peaks as known. It will be too low for higher ones.
* The saddle is high enough, and the part with the lower peak has no neighbour that is not known yet. Its peak is what
  it is, and that of the other is not lower.

Otherwise the edge is kept, and the other part, whose future depends on it, has an unknown neighbour from here on. Such
a part only takes in lower ones, so that its own peak stays as it was at each of the edges that it keeps. What is left
are the basins at the faces and few others, in confluent tissue too; a part without unknown neighbours is final.
"""

# Compiled functions carry no annotations: numba infers its types from the arrays that it gets.
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: ANN001, ANN201
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from biounet.core import PROBABILITY_MAX, compiled
from biounet.labelling.union_find import find_root, flatten

Ints = NDArray[np.int64]


@compiled
def contract(height, ends, saddle, unknown, share, min_peak):
    """Decide what can be decided along edges, (e, 2), which are sorted as `merge_basins` takes them.

    `unknown` says which basins have neighbours, or borders, that are not known yet; those that come to depend on them
    are added. Return the basin that stands for each one's part, and which edges are kept.
    """
    part = np.arange(len(height))
    kept = np.zeros(len(saddle), np.bool_)
    for e in range(len(saddle)):
        a, b = find_root(part, ends[e, 0]), find_root(part, ends[e, 1])
        if a == b:
            continue
        high, low = (a, b) if (height[a], unknown[a]) >= (height[b], unknown[b]) else (b, a)
        if saddle[e] < share * height[low] and height[low] >= min_peak:
            continue
        if unknown[low]:
            kept[e] = unknown[high] = True
        else:
            part[low] = high
    flatten(part)
    return part, kept


def sum_pairs(pairs: Ints, minima: Ints) -> tuple[Ints, Ints, Ints]:
    """Combine the borders of equal pairs, (e, 2) and (e, 3): return the pairs in order, minima, and one row of each."""
    if pairs.size and pairs.min() >= 0 and pairs.max() < 1 << 31:
        # One number for each pair sorts faster. Places in an image may be larger.
        order = np.argsort(pairs[:, 0] << 32 | pairs[:, 1])
    else:
        order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    pairs, minima = pairs[order], minima[order]
    first = np.flatnonzero(np.diff(pairs, axis=0, prepend=pairs[:1] - 1).any(axis=1))
    if not first.size:
        return pairs, minima, order
    highest = np.maximum.reduceat(minima[:, 0], first)
    sums = np.add.reduceat(minima[:, 1:], first)
    return pairs[first], np.column_stack([highest, sums]), order[first]


def saddles(minima: Ints) -> Ints:
    """Return the saddle of each border: the mean of its highest minimum and of the average one."""
    highest, total, count = minima.T
    return np.asarray((highest * count + total) // (2 * count))


def by_falling_saddle(saddle: Ints) -> Ints:
    """Return the order in which edges that are sorted by their roots are visited."""
    return np.argsort((PROBABILITY_MAX - saddle).astype(np.uint16), kind="stable")
