"""The items of a long list in a JSON file, one by one: read whole, each of its coordinates would take 70 bytes."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from biounet.core import InputError

_CHUNK = 1 << 20  # characters read at a time
_NEAR_END = 16  # characters: an error so close to the end of what was read may only be a number or word cut in two
_MAX_VALUE = 1 << 28  # characters of one item, which a compressed file of any size could ask memory for
_SPACE = " \t\r\n"
_MARKS = '{}[]:," \t\r\n'  # that end a number or word
_GZIP, _ZIP = b"\x1f\x8b", b"PK\x03\x04"


@dataclass
class JsonList:
    """A JSON file with a long list: one of the members of an object, or all there is.

    Attributes
    ----------
    path
        May be compressed by gzip, or the only JSON file of a zip.
    key
        Of the list in the object.
    members
        The other members of the object, as far as the file has been read.
    has_list
        Whether the list has been found.
    """

    path: Path
    key: str
    members: dict[str, Any] = field(default_factory=dict)
    has_list: bool = False

    def __iter__(self) -> Iterator[Any]:
        """Give each item of the list; raise `InputError` where the file is no JSON, or cut short."""
        with _open_text(self.path) as file:
            text = _Text(self.path, file)
            start = text.next_mark()
            if start == "[":
                yield from self._items(text)
            elif start == "{":
                yield from self._items_of_member(text)
            else:
                raise text.error("is no JSON file with a list of objects")
            if text.next_mark():
                raise text.error("is not JSON: more text follows its end")

    def _items_of_member(self, text: _Text) -> Iterator[Any]:
        for _ in text.until("}"):
            name = text.value()
            if not isinstance(name, str) or text.next_mark() != ":":
                raise text.error("is not JSON: a name and a colon were expected")
            if name == self.key and text.peek() == "[":
                text.next_mark()
                yield from self._items(text)
            else:
                self.members[name] = text.value()

    def _items(self, text: _Text) -> Iterator[Any]:
        self.has_list = True
        for _ in text.until("]"):
            yield text.value()


class _Text:
    """JSON text that is read as far as it is needed."""

    def __init__(self, path: Path, file: TextIO) -> None:
        self.path, self._file = path, file
        self._decoder = json.JSONDecoder()
        self._text, self._at, self._is_all = "", 0, False

    def peek(self) -> str:
        """Return the next mark that is no space; empty at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read():
                return ""

    def next_mark(self) -> str:
        """Return the next mark and go on behind it."""
        mark = self.peek()
        self._at += 1
        return mark

    def until(self, end: str) -> Iterator[None]:
        """Give each element of a list or object whose opening mark was read, up to its closing mark."""
        if self.peek() == end:
            self.next_mark()
            return
        while True:
            yield
            mark = self.next_mark()
            if mark == end:
                return
            if mark != ",":
                raise self.error(f"is not JSON: a comma or {end} was expected")

    def value(self) -> Any:  # noqa: ANN401 - whatever stands in the file
        """Return the next value, of which more and more is read until it is whole."""
        self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                in_text = error.msg.startswith("Unterminated string")
                is_cut = in_text or error.pos >= len(self._text) - _NEAR_END
                if not (is_cut and self._read(len(self._text))):
                    at = len(self._text) if in_text else error.pos
                    raise self.error(f"is not JSON: {error.msg.lower()}", at) from None
            else:
                if end < len(self._text) or not self._read():  # a number may go on
                    self._at = end
                    return value

    def _read(self, size: int = 0) -> bool:
        """Read more, at least as many characters as `size`; return whether there was more."""
        if self._is_all:
            return False
        if size > _MAX_VALUE:
            raise InputError(f"has an item of more than {_MAX_VALUE} characters", path=self.path)
        more = self._file.read(max(size, _CHUNK))
        self._is_all = not more
        self._text, self._at = self._text[self._at :] + more, 0
        return bool(more)

    def error(self, cause: str, at: int | None = None) -> InputError:
        """Return an error about what stands here, or about the end of the file where there is nothing more."""
        at = max(self._at - 1, 0) if at is None else at
        if self._is_all and not any(mark in self._text[at:].strip() for mark in _MARKS):  # not even a whole word
            return InputError("ends too early", path=self.path, hint="the file is incomplete: save or copy it again")
        shown = " ".join(self._text[at : at + 20].split())
        return InputError(f"{cause}, at '{shown}'", path=self.path, hint="save it again from its program")


@contextmanager
def _open_text(path: Path) -> Iterator[TextIO]:
    """Open a file as text, unpacked where it is compressed."""
    with ExitStack() as stack:
        file: Any = stack.enter_context(path.open("rb"))
        magic = file.read(len(_ZIP))
        file.seek(0)
        if magic.startswith(_GZIP):
            file = stack.enter_context(gzip.open(file))
        elif magic == _ZIP:
            archive = stack.enter_context(zipfile.ZipFile(file))
            file = stack.enter_context(archive.open(_json_member(archive, path)))
        try:
            yield io.TextIOWrapper(file, encoding="utf-8-sig")
        except UnicodeDecodeError:
            raise InputError("is no JSON file: it is no text", path=path) from None
        except (EOFError, zipfile.BadZipFile, gzip.BadGzipFile) as error:
            raise InputError(f"is damaged: {error}", path=path, hint="save or copy it again") from None


def _json_member(archive: zipfile.ZipFile, path: Path) -> str:
    names = [name for name in archive.namelist() if name.lower().endswith((".geojson", ".json"))]
    if len(names) != 1:
        raise InputError(f"holds {len(names)} JSON files, one was expected", path=path)
    return names[0]
