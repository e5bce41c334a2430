"""Compilation of inner loops with numba.

What takes numba long to compile is left out of them, since the first run on a machine waits for it: assignments of
arrays to slices (0.5 s each, for the text of an error), growing arrays with ``np.concatenate``, and calls of other
compiled functions, which are compiled once for each combination of literals and types that inference passes through.
Small helpers are therefore `inlined`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function of arrays and numbers, without the interpreter lock.

    The result is cached beside the package or in the user's cache folder. Where neither can be written to, as in a
    container without a home, each process compiles anew, which takes seconds.
    """
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:
        return numba.njit(nogil=True)(function)


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Insert a function into each compiled function that calls it, before types are inferred."""
    return numba.njit(inline="always")(function)
