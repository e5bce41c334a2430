"""What a format module gives: the array as stored, and what the file says about its axes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from biounet.errors import BiounetError, InputError

LIMIT = 16 * 2**30
"""Bytes that one image may take in memory: a damaged header can ask for any number."""

P = ParamSpec("P")
R = TypeVar("R")

_UM = {
    "": 1.0,
    "m": 1e6,
    "cm": 1e4,
    "centimeter": 1e4,
    "mm": 1e3,
    "millimeter": 1e3,
    "um": 1.0,
    "µm": 1.0,
    "μm": 1.0,
    "\\u00b5m": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "micrometre": 1.0,
    "nm": 1e-3,
    "nanometer": 1e-3,
    "pm": 1e-6,
    "å": 1e-4,
    "inch": 25400.0,
    "in": 25400.0,
}


@dataclass(frozen=True)
class RawImage:
    """An image as its file has it.

    Attributes
    ----------
    axes
        One letter for each axis: X Y Z, C channel, S colour sample, T time; Q or I where the file does not say.
    shape, dtype
        Of the array.
    load
        Reads the array, in native byte order.
    spacing_um
        Pixel size in µm of the axes for which the file states one.
    channels
        Names of the channels, where the file has them.
    notes
        Remarks for the user.
    """

    axes: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    load: Callable[[], NDArray[Any]]
    spacing_um: dict[str, float] = field(default_factory=dict)
    channels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def micrometres(unit: str) -> float | None:
    """Return how many µm a unit of length is; None where the word is no unit of length, such as ``pixel``."""
    return _UM.get(unit.strip().lower())


def refuse_size(shape: tuple[int, ...], dtype: np.dtype[Any], path: Path, limit: int = LIMIT) -> None:
    """Refuse, before any memory is taken, an image that declares more than the limit."""
    needed = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if needed > limit:
        cause = f"declares {' x '.join(map(str, shape))} {dtype}, {needed / 2**30:.1f} GiB; the limit is"
        raise InputError(f"{cause} {limit / 2**30:.0f} GiB", path=path)


def own_errors(read: Callable[P, R]) -> Callable[P, R]:
    """Turn whatever a format library raises into an `InputError` that names the file, its first argument."""

    @functools.wraps(read)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        path = Path(str(args[0]))
        try:
            return read(*args, **kwargs)
        except BiounetError:
            raise
        except FileNotFoundError:
            raise InputError("no such file", path=path) from None
        except PermissionError:
            raise InputError("no permission to read it", path=path) from None
        except MemoryError as error:
            raise InputError("does not fit in memory", path=path) from error
        # Damaged files raise more than twenty kinds of exceptions out of the libraries, TypeError among them.
        except Exception as error:  # noqa: BLE001
            raise InputError(f"cannot be read: {_words(error)}", path=path) from error

    return guarded


def _words(error: Exception) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
