import copy
import json
import pickle

import pytest

from biounet.core import Note, NoteCode, describe_flags, find_warnings, note_from_record, note_record

BLURRED = Note("blurred: edges of 7.9 pixels", NoteCode.BLURRED, figure=7.94)
ALPHA = Note("the alpha channel is left out", NoteCode.ALPHA_LEFT_OUT)


def test_severity_is_that_of_the_code_unless_stated():
    assert (ALPHA.severity, BLURRED.severity) == ("information", "warning")
    assert Note("brought to RAS", NoteCode.ORIENTATION_UNKNOWN, "warning").severity == "warning"


def test_texts_without_a_code_are_warnings_so_that_nothing_is_overlooked():
    assert find_warnings((ALPHA, "something odd")) == ("something odd",)
    assert describe_flags(["something odd"]) == "other"


def test_flags_are_codes_and_figures_of_warnings():
    assert describe_flags((ALPHA, BLURRED, Note("constant", NoteCode.CONSTANT))) == "blurred=7.94;constant"
    assert describe_flags((ALPHA,)) is None


@pytest.mark.parametrize("note", [BLURRED, ALPHA, Note("a"), Note("b", None, "information", 3)])
@pytest.mark.parametrize(
    "copied",
    [
        copy.deepcopy,
        lambda note: pickle.loads(pickle.dumps(note)),
        lambda note: note_from_record(json.loads(json.dumps(note_record(note)))),
    ],
)
def test_copies_of_notes_have_all_of_them(note, copied):
    assert note_record(copied(note)) == note_record(note)


@pytest.mark.parametrize("change", [{"code": "no code"}, {"severity": "fatal"}, {"figure": "7"}])
def test_records_of_no_note_are_refused(change):
    with pytest.raises(ValueError, match="not a"):
        note_from_record(note_record(BLURRED) | change)
