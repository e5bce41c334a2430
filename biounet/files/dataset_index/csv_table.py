"""Tables that name images and their annotations, as spreadsheets of any country and system write them."""

from __future__ import annotations

import codecs
import csv
import io
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath

from biounet.core import InputError

_SEPARATORS = ",;\t|"
_LABEL = "label"
_LIKELY = ("mask", "label", "annotation", "segmentation", "seg", "truth", "label_path", "mask_path")
_BEGIN = 64  # characters in which a file that is no text has a zero byte


def read_table(path: Path, channels: Sequence[str]) -> tuple[list[tuple[Path, ...]], list[str]]:
    """Read a table with the columns ``image``, or one for each channel, and ``label``.

    Separators are commas, semicolons, tabs or bars; capitals and blanks around names do not matter; paths are relative
    to the table and may be written with backslashes.

    Parameters
    ----------
    path
        The table, text in UTF-8, UTF-16 or the code page of Windows.
    channels
        Names of the channels.

    Returns
    -------
    The files of each row, the annotation last, without rows of files that do not exist; and a sentence for each of
    these.

    Raises
    ------
    InputError
        If it is no table, or lacks a column or an entry: it names what is there and what is expected; if it names an
        image twice.
    """
    header, rows = _parse(_text_of(path), path, (*channels, "image", _LABEL))
    several = len(channels) > 1 and bool({name.casefold() for name in channels} & set(header))
    wanted = [*(channels if several else ["image"]), _LABEL]
    missing = [name for name in wanted if name.casefold() not in header]
    if missing:
        raise _lacks(header, wanted, path)
    twice = [name for name in wanted if header.count(name.casefold()) > 1]
    if twice:
        raise InputError(f"two columns are called {twice[0]}", path=path)
    places = [header.index(name.casefold()) for name in wanted]
    files: list[tuple[Path, ...]] = []
    lines: dict[tuple[Path, ...], int] = {}
    for number, row in rows:
        entries = [row[place] if place < len(row) else "" for place in places]
        if not all(entries):
            raise InputError(f"line {number} lacks an image or a label", path=path)
        files.append(tuple(_file(path.parent, entry) for entry in entries))
        first = lines.setdefault(files[-1][:-1], number)
        if first != number:
            raise InputError(f"line {number} names {entries[0]} again, as line {first} does", path=path)
    absent = {file: _absent(file) for row in files for file in row if not _is_file(file)}
    return [row for row in files if not absent.keys() & {*row}], list(absent.values())


def _lacks(header: Sequence[str], wanted: Sequence[str], path: Path) -> InputError:
    shown = ", ".join(name or "(none)" for name in header) or "nothing"
    cause = f"expected a CSV with the columns {', '.join(wanted[:-1])} and {_LABEL}; its first line has: {shown}"
    likely = [name for name in header if name.rstrip("s") in _LIKELY]
    hint = (
        f"call the column of the annotation '{_LABEL}', not '{likely[0]}'" if likely and _LABEL not in header else None
    )
    return InputError(cause, path=path, hint=hint)


def _text_of(path: Path) -> str:
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
        if "\0" not in text[:_BEGIN]:
            return text
    workbook = content.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0"))
    hint = "save it as CSV in the spreadsheet" if workbook else "or name the annotation too"
    raise InputError("not a CSV table of text", path=path, hint=hint)


def _parse(text: str, path: Path, known: Sequence[str]) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the names of the columns in small letters, and the rows with the numbers of their lines."""
    skipped = 0
    separators = _SEPARATORS
    first, _, rest = text.partition("\n")
    if first.strip().lower().startswith("sep=") and first.strip()[4:]:  # Excel's own word for it
        separators, text, skipped = first.strip()[4], rest, 1
    names = {name.casefold() for name in known}
    begin = text.lstrip(f"\r\n {separators}").partition("\n")[0]
    separator = max(separators, key=lambda one: len(names & set(_header(_split(begin, one, path)))))
    rows = _split(text, separator, path)
    numbered = [(number + skipped, row) for number, row in enumerate(rows, 1) if any(row)]
    return _header(rows), numbered[1:]


def _header(rows: Sequence[Sequence[str]]) -> list[str]:
    return [name.casefold() for name in next((row for row in rows if any(row)), [])]


def _split(text: str, separator: str, path: Path) -> list[list[str]]:
    try:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
        return [[entry.strip() for entry in row] for row in rows]
    except csv.Error as error:
        raise InputError(f"not a CSV table: {error}", path=path, hint="or name the annotation too") from error


def _file(folder: Path, entry: str) -> Path:
    """Return a file as the table names it; with slashes for backslashes, or umlauts otherwise, where there is that."""
    slashed = entry if PureWindowsPath(entry).drive else entry.replace("\\", "/")
    tries = [folder / entry, folder / slashed]
    tries += [folder / unicodedata.normalize(form, slashed) for form in ("NFC", "NFD")]
    return next((file for file in tries if _is_file(file)), tries[1])


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _absent(path: Path) -> str:
    drive = PureWindowsPath(path.name).drive
    return f"{path} does not exist" + (" (a path of Windows, on another machine)" if drive else "")
