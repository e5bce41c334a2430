"""Disjoint sets in compiled functions: an array in which each item points to another of its set, a root to itself."""

# Compiled functions carry no annotations: numba infers its types from the arrays that it gets.
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: ANN001, ANN201
from __future__ import annotations

from biounet.core import inlined


@inlined
def find_root(parents, item):
    """Return the root of an item, and halve the path to it."""
    while parents[item] != item:
        parents[item] = parents[parents[item]]
        item = parents[item]
    return item


@inlined
def flatten(parents):
    """Let each item point to its root."""
    for item in range(len(parents)):
        parents[item] = find_root(parents, item)
