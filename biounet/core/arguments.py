"""Arguments of public functions that are of no use, refused in the words that a user knows them by."""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from biounet.core.errors import InputError, SettingsError


def as_path(value: object, name: str) -> Path:
    """Return a path that a user gave.

    Parameters
    ----------
    value
        What came.
    name
        Of the argument.

    Raises
    ------
    SettingsError
        If it is no path, or empty.
    InputError
        If it holds a zero byte, which no file system takes.
    """
    if not isinstance(value, str | os.PathLike) or isinstance(text := os.fspath(value), bytes):
        raise SettingsError(f"{name} is a path, not {type(value).__name__}")
    if not text:
        raise SettingsError(f"{name} is an empty path")
    if "\0" in text:
        raise InputError("no file has a zero byte in its name", path=text)
    return Path(value)


def as_paths(value: object, name: str) -> list[Path]:
    """Return the paths of one, or of a sequence of them; errors as of `as_path`, and for an empty sequence."""
    if isinstance(value, str | os.PathLike) or not isinstance(value, Sequence):
        return [as_path(value, name)]
    if not value:
        raise SettingsError(f"{name} is an empty list")
    return [as_path(one, name) for one in value]


def as_spacing(value: Any, dims: int) -> tuple[float, ...]:  # noqa: ANN401
    """Return a positive, finite length along each of `dims` axes; one number stands for all of them.

    Raises
    ------
    SettingsError
        If there are as many as neither, or one is no such number.
    """
    given = (value,) * dims if is_number(value) or getattr(value, "shape", None) == () else value
    what = f"spacing {value!r}"
    try:
        lengths = tuple(float(length) for length in (() if isinstance(given, str) else given))
    except (TypeError, ValueError, OverflowError):
        lengths = ()
    if len(lengths) != dims:
        raise SettingsError(f"{what}: one number for each of {'ZYX'[-dims:]}")
    if not all(math.isfinite(length) and length > 0 for length in lengths):
        raise SettingsError(f"{what}: positive numbers")
    return lengths


def as_number(value: object, name: str) -> float:
    """Return a number that a user gave; `SettingsError` if it is none."""
    try:
        return float(value if is_number(value) else "")  # type: ignore[arg-type]
    except (ValueError, OverflowError):
        raise SettingsError(f"{name} is a number, not {value!r}") from None


def is_number(value: object) -> bool:
    """Whether a value is a real number; a truth value is none."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_integer(value: object) -> bool:
    """Whether a value is a whole number, of Python or of NumPy."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)
