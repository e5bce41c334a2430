"""Compilation of inner loops with numba."""

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
