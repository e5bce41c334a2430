"""What can go wrong, in the words of the person it happens to.

Every error is one line: the path, the cause, and a hint. Each kind is also a builtin exception, so that a caller who
does not know biounet can still catch it, and carries the exit code that the command line returns for it.
"""

from __future__ import annotations

import unicodedata
from os import PathLike

_JOINERS = "\u200c\u200d"  # invisible, and part of words of some languages


def printable(text: str) -> str:
    """Return text of one line that does to a terminal what it looks like, whatever a file is called.

    Control characters, line ends and what turns the direction of writing are escaped as in Python.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(repr(character)[1:-1] if _is_unseen(character) else character for character in text)


def _is_unseen(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in _JOINERS


class BiounetError(Exception):
    """Base of all errors that biounet raises on purpose.

    Parameters
    ----------
    cause
        What came and what was expected, in one sentence without a final full stop.
    path
        The file that the error is about, if it is about a file.
    hint
        What the user can do, if there is something.
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
        # Keyword-only arguments do not survive the default pickling, and errors cross process borders.
        return (_rebuild, (type(self), self.cause, self.path, self.hint))


def _rebuild(kind: type[BiounetError], cause: str, path: str | None, hint: str | None) -> BiounetError:
    return kind(cause, path=path, hint=hint)


class SettingsError(BiounetError, ValueError):
    """A recipe, an option or a combination of options cannot be used."""

    exit_code = 2


class InputError(BiounetError, ValueError):
    """One image or annotation cannot be used; the others of a batch can."""

    exit_code = 4


class WorkerDiedError(InputError):
    """The process that worked on one image was ended from outside; others go on."""


class ModelError(BiounetError, ValueError):
    """A model file is damaged, foreign, or does not fit the image."""

    exit_code = 5


class MachineError(BiounetError, OSError):
    """The disk, the device or the memory does not allow what was asked."""

    exit_code = 5


class TrainingError(BiounetError, ArithmeticError):
    """Training cannot go on, for example because the loss is not a number."""

    exit_code = 4


class Stopped(BiounetError):
    """Work ended before its end because somebody asked for it; what was done is kept."""

    exit_code = 130
