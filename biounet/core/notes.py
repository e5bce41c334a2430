"""Notes for whoever reads a result: texts with a code, a severity and a figure, for programs that tell them apart."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from typing import Any, Literal, get_args

from biounet.core.arguments import is_number

Figure = int | float | str | None
"""A figure of an image for a table; None: not measured."""

Severity = Literal["information", "warning"]
"""A warning asks the user to look at the image; information only says what was done or is not known."""

Status = Literal["ok", "empty", "flagged", "failed"]
"""What became of an image: see `result_status`; one that could not be worked on has failed."""

UNCODED = "other"  # in place of the code of a text without one


class NoteCode(StrEnum):
    """What a note is about."""

    VOXEL_SIZE_UNKNOWN = "voxel_size_unknown"
    VOXEL_SIZE_CONFLICT = "voxel_size_conflict"
    NOT_SQUARE = "pixels_not_square"
    ORIENTATION_UNKNOWN = "orientation_unknown"
    ORIENTATION_CONFLICT = "orientation_conflict"
    HEADER_DAMAGED = "header_damaged"
    TILES_ABSENT = "tiles_absent"
    CHUNKS_ABSENT = "chunks_absent"
    ALPHA_LEFT_OUT = "alpha_left_out"
    PLANES_ARE_COLOURS = "planes_are_colours"
    WHITE_IS_ZERO = "white_is_zero"
    CONSTANT = "constant"
    READ_AS_GREY = "read_as_grey"
    SMALLER_BLOCKS = "smaller_blocks"
    ONE_BLOCK_AT_A_TIME = "one_block_at_a_time"
    ON_CPU = "on_cpu"
    BLURRED = "blurred"
    COARSE = "coarse"
    NOISY = "noisy"
    BRIGHTNESS = "brightness"
    OBJECT_SIZE = "object_size"
    VOXEL_SIZE = "voxel_size"
    FIELD_OF_VIEW = "field_of_view"
    CONTRAST = "contrast"
    ORIENTATION = "orientation"
    SURROUNDINGS = "surroundings"
    BLANK = "blank"
    SATURATED = "saturated"
    HOT_PIXELS = "hot_pixels"
    AT_BORDER = "at_border"
    MASK = "mask"
    CROSSING = "crossing"
    LOW_CONFIDENCE = "low_confidence"
    COUNTING_FRAME = "counting_frame"
    NOT_LINKED = "not_linked"
    IN_FOCUS = "in_focus"
    DIAMETER_FOUND = "diameter_found"
    DIAMETER_NOT_SOUGHT = "diameter_not_sought"
    COUNT_UNSTABLE = "count_unstable"


_INFORMATION = {
    NoteCode.VOXEL_SIZE_UNKNOWN,
    NoteCode.ORIENTATION_UNKNOWN,
    NoteCode.ALPHA_LEFT_OUT,
    NoteCode.PLANES_ARE_COLOURS,
    NoteCode.READ_AS_GREY,
    NoteCode.WHITE_IS_ZERO,
    NoteCode.CHUNKS_ABSENT,  # how sparse images are stored
    NoteCode.SMALLER_BLOCKS,
    NoteCode.ONE_BLOCK_AT_A_TIME,
    NoteCode.ON_CPU,
    NoteCode.COUNTING_FRAME,
    NoteCode.NOT_LINKED,
    NoteCode.IN_FOCUS,
    NoteCode.DIAMETER_FOUND,
    NoteCode.DIAMETER_NOT_SOUGHT,
}


class Note(str):
    """A text with a code; as text it is like any other, in messages, JSON and comparisons.

    Parameters
    ----------
    severity
        None: that of the code; a text without a code is a warning, so that nothing is overlooked.
    figure
        What was measured, in the unit that the text states.
    """

    code: NoteCode | None
    severity: Severity
    figure: float | None

    def __new__(  # noqa: D102
        cls, text: str, code: NoteCode | None = None, severity: Severity | None = None, figure: float | None = None
    ) -> Note:
        note = super().__new__(cls, text)
        note.code = code
        note.severity = severity or ("information" if code in _INFORMATION else "warning")
        note.figure = None if figure is None else float(figure)
        return note

    def __getnewargs__(self) -> tuple[str, NoteCode | None, Severity, float | None]:  # type: ignore[override]
        """Return what copies are made of."""
        return str(self), self.code, self.severity, self.figure


def note_code(note: str) -> NoteCode | None:
    """Return the code of a note; None for a text without one."""
    return note.code if isinstance(note, Note) else None


def drop_notes(notes: Iterable[str], codes: Collection[NoteCode]) -> tuple[str, ...]:
    """Return the notes whose code is not among `codes`."""
    return tuple(note for note in notes if note_code(note) not in codes)


def find_warnings(notes: Iterable[str]) -> tuple[Note, ...]:
    """Return the notes that ask the user to look at an image."""
    return tuple(note for note in map(_as_note, notes) if note.severity == "warning")


def result_status(notes: Iterable[str], count: int | None) -> Status:
    """Return ``flagged`` with a warning among the notes, else ``empty`` without any object, else ``ok``."""
    return "flagged" if find_warnings(notes) else "empty" if count == 0 else "ok"


def describe_flags(notes: Iterable[str]) -> str | None:
    """Return the codes and figures of the warnings among notes, as ``blurred=7.9;hot_pixels=0.002``; None if none."""
    flags = dict.fromkeys(map(_describe_flag, find_warnings(notes)))
    return ";".join(flags) or None


def note_record(note: str) -> dict[str, Any]:
    """Return the fields of a note for JSON."""
    note = _as_note(note)
    return {"code": note.code or UNCODED, "severity": note.severity, "figure": note.figure, "text": str(note)}


def note_from_record(record: Mapping[str, Any]) -> Note:
    """Return the note whose fields `note_record` returned; raise what invalid fields raise."""
    text, code, severity, figure = (record[name] for name in ("text", "code", "severity", "figure"))
    if severity not in get_args(Severity) or not (figure is None or is_number(figure)):
        raise ValueError(f"not a note: {dict(record)}")
    return Note(str(text), None if code == UNCODED else NoteCode(code), severity, figure)


def _as_note(note: str) -> Note:
    return note if isinstance(note, Note) else Note(note)


def _describe_flag(note: Note) -> str:
    code = str(note.code or UNCODED)
    return code if note.figure is None else f"{code}={note.figure:.3g}"
