"""Tables of images and annotations, as spreadsheets of any country and system write them."""

from __future__ import annotations

import codecs
import csv
import io
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from biounet.core import InputError

_SEPARATORS = ",;\t|"
_LABEL = "label"
_SCENE = "scene"
_LIKELY = ("mask", "label", "annotation", "segmentation", "seg", "truth", "label_path", "mask_path")
_START = 64  # characters, among which a binary file has a zero byte
_HINT = "or name the annotation too"  # if the file is an image, and no table

_is_file = os.path.isfile  # unlike that of Path, it is False for names that no file can have


@dataclass(frozen=True)
class TableRow:
    """The files of a row, the annotation last, and which of several images in a file it is about."""

    files: tuple[Path, ...]
    scene: str = ""


def read_table(path: Path, channels: Sequence[str]) -> tuple[list[TableRow], list[str]]:
    """Read a table with the columns ``image``, or one for each channel, and ``label``; and ``scene``, if there is one.

    Separators are commas, semicolons, tabs or bars; capitals and blanks around names do not matter; paths are relative
    to the table and may be written with backslashes; the text is UTF-8, UTF-16 or in the code page of Windows.

    Returns
    -------
    The rows without those of missing files; and a sentence for each of these.

    Raises
    ------
    InputError
        If it is no table, lacks a column or an entry, or names an image twice.
    """
    header, rows = _parse(_read_text(path), path, (*channels, "image", _LABEL))
    several = len(channels) > 1 and bool({name.casefold() for name in channels} & set(header))
    wanted = [*(channels if several else ["image"]), _LABEL]
    if any(name.casefold() not in header for name in wanted):
        raise _missing_column(header, wanted, path)
    if twice := [name for name in wanted if header.count(name.casefold()) > 1]:
        raise InputError(f"two columns are called {twice[0]}", path=path)
    columns = [header.index(name.casefold()) for name in wanted]
    scene = header.index(_SCENE) if _SCENE in header else len(header)
    found: list[TableRow] = []
    lines: dict[tuple[tuple[Path, ...], str], int] = {}
    for line, row in rows:
        entries = [row[column] if column < len(row) else "" for column in columns]
        if not all(entries):
            raise InputError(f"line {line} lacks an image or a label", path=path)
        files = tuple(_find_file(path.parent, entry) for entry in entries)
        found.append(TableRow(files, row[scene] if scene < len(row) else ""))
        first = lines.setdefault((files[:-1], found[-1].scene), line)
        if first != line:
            raise InputError(f"line {line} names {entries[0]} again, as line {first} does", path=path)
    missing = {file: _describe_missing(file) for row in found for file in row.files if not _is_file(file)}
    return [row for row in found if not missing.keys() & {*row.files}], list(missing.values())


def read_columns(path: Path, required: Sequence[str]) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Read a table of texts, written as `read_table` allows.

    Returns
    -------
    The names of the columns, those of `required` in that spelling; and the rows with their line numbers, empty texts
    where a row ends early.

    Raises
    ------
    InputError
        If it is no table, lacks a column, or has two of one name.
    """
    names, rows = _parse_rows(_read_text(path), path, required)
    spelling = {name.casefold(): name for name in required}
    names = [spelling.get(name.casefold(), name) for name in names]
    while names and not names[-1]:  # of a separator at the end of each line
        names.pop()
    if missing := [name for name in required if name not in names]:
        has = ", ".join(name or "(none)" for name in names) or "nothing"
        raise InputError(f"expected a CSV with a column {missing[0]}; its first line has: {has}", path=path)
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"two columns are called {twice[0] or '(none)'}", path=path)
    return names, [(line, dict(zip(names, [*row, *[""] * len(names)], strict=False))) for line, row in rows]


def _missing_column(header: Sequence[str], wanted: Sequence[str], path: Path) -> InputError:
    names = ", ".join(name or "(none)" for name in header) or "nothing"
    cause = f"expected a CSV with the columns {', '.join(wanted[:-1])} and {_LABEL}; its first line has: {names}"
    likely = [name for name in header if name.rstrip("s") in _LIKELY]
    hint = f"call the column of the annotation '{_LABEL}', not '{likely[0]}'" if likely else None
    return InputError(cause, path=path, hint=None if _LABEL in header else hint)


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path=path) from error
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    for encoding in ("utf-16",) if wide else ("utf-8-sig", "cp1252"):
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text[:_START]:
            return text
    workbook = content.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0"))
    hint = "save it as CSV in the spreadsheet" if workbook else _HINT
    raise InputError("not a CSV table of text", path=path, hint=hint)


def _parse(text: str, path: Path, names: Sequence[str]) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the names of the columns in small letters, and the rows that are not empty with their line numbers."""
    header, rows = _parse_rows(text, path, names)
    return [name.casefold() for name in header], rows


def _parse_rows(text: str, path: Path, names: Sequence[str]) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the names of the columns, and the rows that are not empty with their line numbers."""
    line, separators = 1, _SEPARATORS
    first, _, rest = text.partition("\n")
    if first.strip().lower().startswith("sep=") and first.strip()[4:]:  # Excel's way to name the separator
        line, separators, text = 2, first.strip()[4], rest
    wanted = {name.casefold() for name in names}
    start = text.lstrip(f"\r\n {separators}").partition("\n")[0]
    separator = max(separators, key=lambda one: len(wanted & _names(_split(start, one, path))))
    rows = [(number, row) for number, row in enumerate(_split(text, separator, path), line) if any(row)]
    return rows[0][1] if rows else [], rows[1:]


def _names(rows: Sequence[Sequence[str]]) -> set[str]:
    return {name.casefold() for name in next(filter(any, rows), [])}


def _split(text: str, separator: str, path: Path) -> list[list[str]]:
    try:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
        return [[entry.strip() for entry in row] for row in rows]
    except csv.Error as error:
        raise InputError(f"not a CSV table: {error}", path=path, hint=_HINT) from error


def _find_file(folder: Path, entry: str) -> Path:
    """Return the file of an entry as it is, or with slashes for backslashes, or with umlauts composed otherwise."""
    slashed = entry if PureWindowsPath(entry).drive else entry.replace("\\", "/")
    paths = [folder / entry, folder / slashed]
    paths += [folder / unicodedata.normalize(form, slashed) for form in ("NFC", "NFD")]
    return next(filter(_is_file, paths), paths[1])


def _describe_missing(path: Path) -> str:
    drive = PureWindowsPath(path.name).drive
    return f"{path} does not exist" + (" (a path of Windows, on another machine)" if drive else "")
