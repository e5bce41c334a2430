"""Validation of arguments of public functions."""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from biounet.core.errors import InputError, SettingsError

_FINEST = 1e-9  # of a pixel size, in µm or mm; the coarsest is as far from 1


def as_path(value: object, name: str) -> Path:
    """Return an argument as a path; `name` is for the message.

    Raise `SettingsError` if it is no path or empty, and `InputError` for a zero byte, which no file system allows.
    """
    if not isinstance(value, str | os.PathLike) or isinstance(text := os.fspath(value), bytes):
        raise SettingsError(f"{name} is a path, not {type(value).__name__}")
    if not text:
        raise SettingsError(f"{name} is an empty path")
    if "\0" in text:
        raise InputError("no file has a zero byte in its name", path=text)
    return Path(value)


def as_paths(value: object, name: str) -> list[Path]:
    """Return one path or a sequence of paths as a list; raises as `as_path`, and for an empty sequence."""
    if isinstance(value, str | os.PathLike) or not isinstance(value, Sequence):
        return [as_path(value, name)]
    if not value:
        raise SettingsError(f"{name} is an empty list")
    return [as_path(path, name) for path in value]


def as_spacing(value: Any, dims: int) -> tuple[float, ...]:  # noqa: ANN401
    """Return a spacing as one number for each of `dims` axes; a single number is used for all.

    Raise `SettingsError` if it has another length, or a number is not positive and finite.
    """
    sizes = (value,) * dims if is_number(value) or getattr(value, "shape", None) == () else value
    try:
        spacing = tuple(float(size) for size in (() if isinstance(sizes, str) else sizes))
    except (TypeError, ValueError, OverflowError):
        spacing = ()
    if len(spacing) != dims:
        raise SettingsError(f"spacing {value!r}: one number for each of {'ZYX'[-dims:]}")
    if not all(math.isfinite(size) and size > 0 for size in spacing):
        raise SettingsError(f"spacing {value!r}: positive numbers")
    if not all(_FINEST <= size <= 1 / _FINEST for size in spacing):  # whose squares and products have no end
        raise SettingsError(f"spacing {value!r}: no pixel is that small or large")
    return spacing


def as_number(value: object, name: str) -> float:
    """Return an argument as a float; `name` is for the message of the `SettingsError`."""
    try:
        return float(value if is_number(value) else "")  # type: ignore[arg-type]
    except (ValueError, OverflowError):
        raise SettingsError(f"{name} is a number, not {value!r}") from None


def is_number(value: object) -> bool:
    """Whether a value is a real number and not a bool."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_integer(value: object) -> bool:
    """Whether a value is an integer, of Python or NumPy, and not a bool."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def require_extra(extra: str, package: str, what: str, path: str | os.PathLike[str] | None = None) -> None:
    """Raise if a package of an extra of biounet is not installed; `what` needs it, such as ``"DICOM"``.

    The error is an `InputError` about the file at `path`, or a `SettingsError` without one.
    """
    if _is_installed(package):
        return
    cause = f"{what} needs {package}, which is not installed"
    hint = f"pip install 'biounet[{extra}]'"
    if path is not None:
        raise InputError(cause, path=path, hint=hint)
    raise SettingsError(cause, hint=hint)


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # of the package that it is a part of
        return False
