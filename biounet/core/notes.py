"""Notes for whoever reads a result: texts, some with a code for programs that tell them apart."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import StrEnum

Figure = int | float | str | None
"""A figure of an image for a table; None: not measured."""


class NoteCode(StrEnum):
    """What a note is about."""

    VOXEL_SIZE_UNKNOWN = "voxel size unknown"
    VOXEL_SIZE_CONFLICT = "voxel size conflict"
    NOT_SQUARE = "pixels not square"
    CONSTANT = "constant"
    READ_AS_GREY = "colours read as grey"
    ORIENTATION_UNKNOWN = "orientation unknown"
    TEXTURE = "texture unlike training"
    BRIGHTNESS = "brightness unlike training"
    OBJECT_SIZE = "object size unlike training"
    VOXEL_SIZE = "voxel size unlike training"
    FIELD_OF_VIEW = "field of view unlike training"
    CONTRAST = "contrast unlike training"
    BLANK = "blank"
    SATURATED = "saturated"
    HOT_PIXELS = "hot pixels"
    AT_BORDER = "objects at the border"
    LOW_CONFIDENCE = "low confidence"


class Note(str):
    """A text with a code; as text it is like any other, in messages, JSON and comparisons."""

    code: NoteCode | None

    def __new__(cls, text: str, code: NoteCode | None = None) -> Note:  # noqa: D102
        note = super().__new__(cls, text)
        note.code = code
        return note


def note_code(note: str) -> NoteCode | None:
    """Return the code of a note; None for a text without one."""
    return note.code if isinstance(note, Note) else None


def drop_notes(notes: Iterable[str], codes: Collection[NoteCode]) -> tuple[str, ...]:
    """Return the notes whose code is not among `codes`."""
    return tuple(note for note in notes if note_code(note) not in codes)
