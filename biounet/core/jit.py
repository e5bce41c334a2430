"""How inner loops are compiled: once for each processor, without the interpreter's lock, kept where there is room."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function that takes and returns arrays and numbers.

    What is compiled is kept beside the package or in the user's cache folder. Where neither can be written to, as in a
    container without a home, it is compiled anew in each process: seconds, but not a failure.
    """
    try:
        kept: Callable[..., Any] = numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:
        kept = numba.njit(nogil=True)(function)
    return kept
