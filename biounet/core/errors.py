"""Errors, each one line: path, cause and hint.

Each class is also a builtin exception, which callers can catch without knowing biounet, and has an exit code.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import partial
from os import PathLike

_JOINERS = "\u200c\u200d"  # invisible, and part of words of some languages


def printable(text: str) -> str:
    """Return text as one line that is safe to print, such as the name of any file.

    Control characters, line ends and marks of the direction of writing are escaped as in Python.
    """
    if text.isascii() and text.isprintable():
        return text
    controls = {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")} - {*_JOINERS}
    return "".join(repr(character)[1:-1] if character in controls else character for character in text)


def list_some(items: Sequence[str], most: int, separator: str = ", ") -> str:
    """Return the first items as text, and how many more there are: ``a, b, c and 5 more``."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return f"{separator.join(items[:most])}{more}"


class BiounetError(Exception):
    """Base of all errors that biounet raises on purpose.

    `cause` says what was found and what was expected, in one sentence without a full stop; `hint`, what to do.
    """

    exit_code = 5

    def __init__(self, cause: str, *, path: str | PathLike[str] | None = None, hint: str | None = None) -> None:
        super().__init__(cause)
        self.cause = cause
        self.path = path
        self.hint = hint

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path is not None else ""
        hint = f" (hint: {self.hint})" if self.hint else ""
        return printable(where) + printable(" ".join(f"{self.cause}{hint}".split("\n")))

    def __reduce__(self) -> tuple[object, ...]:
        # Errors are sent between processes, and default pickling drops keyword-only arguments.
        return (partial(type(self), path=self.path, hint=self.hint), (self.cause,))


class SettingsError(BiounetError, ValueError):
    """A recipe, an option or a combination of options cannot be used."""

    exit_code = 2


class InputError(BiounetError, ValueError):
    """An image or annotation cannot be used; the rest of a batch goes on."""

    exit_code = 4


class WorkerDiedError(InputError):
    """The process of one image was ended from outside; the rest of a batch goes on."""


class ModelError(BiounetError, ValueError):
    """A model file is damaged, foreign, or does not fit the image."""


class MachineError(BiounetError, OSError):
    """Disk, device or memory do not suffice."""


class TrainingError(BiounetError, ArithmeticError):
    """Training cannot continue, for example because the loss is NaN."""

    exit_code = 4


class Stopped(BiounetError):
    """Work was stopped on request; finished results are kept."""

    exit_code = 130


def failure_exit_code(failed: int, total: int) -> int:
    """Return the exit code for a number of failures: 0 for none, 4 for all, 3 in between."""
    return 0 if not failed else 4 if failed == total else 3
