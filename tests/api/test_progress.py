"""How far work is: a line for each tenth in a log, a bar on a terminal, nothing where nobody asked."""

import io
import re
import sys
import types

from biounet.api import Segmenter, progress, show_batch
from biounet.api.progress import show_progress
from biounet.batch import PartsDone, Plan, Row
from biounet.cli import segmenting
from biounet.core import format_seconds
from support.images import discs

IMAGE, _ = discs((40, 48), 4, 1)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def as_terminal(monkeypatch):
    """Let standard error be a terminal; in the test itself, since pytest sets it again after the fixtures."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm-256color")
    return screen


def test_a_log_has_a_line_for_each_tenth_of_work_that_lasts(monkeypatch):
    lines = []
    for lasting, expected in ((0, 10), (1000, 0)):
        lines.clear()
        monkeypatch.setattr(progress, "_LASTING", lasting)
        with show_progress(200, log=lines.append) as advance:
            for _ in range(200):
                advance()
        assert len(lines) == expected
        assert all(re.fullmatch(r"\d+ of 200 images, [\d.]+ images/s(, [\d.]+ s left)?", line) for line in lines)


def test_what_was_done_before_says_nothing_of_the_speed(monkeypatch):
    lines, now = [], [100.0]
    monkeypatch.setattr(progress, "working_time", lambda: now[0])
    with show_progress(10, already=5, shown=True, log=lines.append) as advance:
        for is_new in (False, False, True, False, False, False, True):
            now[0] += 4 if is_new else 0
            advance(is_new)
    assert lines[1] == "2 of 10 images"
    assert lines[2] == "3 of 10 images, 4.0 s per image, 16 s left"
    assert lines[-1] == "7 of 10 images, 4.0 s per image, 12 s left"


def test_a_terminal_has_a_bar_and_rows_above_it(monkeypatch):
    terminal = as_terminal(monkeypatch)
    with show_batch(Plan(2, frozenset({"a.tif"})), lambda row: sys.stderr.write(f"{row.image}\n")) as report:
        for name in ("a.tif", "b.tif"):
            report(Row(name, "ok", 1, 0.1, ""))
    shown = terminal.getvalue()
    assert "of 2 images" in shown
    assert re.search(r"a\.tif *\n", shown)
    assert shown.endswith("\x1b[2K")  # and is gone at the end


def parts(done):
    return PartsDone("slide.tif", "predicting", done, 20, done / 20, 5.0)


def test_a_large_image_has_a_bar_of_its_own_even_alone(monkeypatch):
    terminal = as_terminal(monkeypatch)
    with show_batch(Plan(1, frozenset()), lambda row: None) as report:
        assert terminal.getvalue() == ""
        for done in range(20):
            report.parts(parts(done))
        report(Row("slide.tif", "ok", 1, 0.1, ""))
    assert "slide.tif: predicting, 0 of 20 parts, about 5.0 s left" in terminal.getvalue()


def test_a_log_has_a_line_for_each_tenth_of_a_large_image(monkeypatch):
    monkeypatch.setattr(progress, "_LASTING", 0)
    lines = []
    with show_batch(Plan(2, frozenset()), lambda row: None, log=lines.append) as report:
        for done in range(21):
            report.parts(parts(done))
    assert len(lines) == 10
    assert lines[0] == "slide.tif: predicting, 2 of 20 parts, about 5.0 s left"
    with show_batch(Plan(2, frozenset()), lambda row: None, shown=False) as report:
        report.parts(parts(1))
    assert len(lines) == 10


def test_a_notebook_has_a_bar_that_needs_no_widgets(monkeypatch):
    shown = []
    monkeypatch.setattr(progress, "in_notebook", lambda: True)
    monkeypatch.setattr(progress, "_PAUSE", -1)
    handle = types.SimpleNamespace(update=shown.append)
    display = types.SimpleNamespace(HTML=str, display=lambda page, display_id: shown.append(page) or handle)
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(display=display))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    with show_progress(2) as advance:
        advance()
        advance()
    with show_batch(Plan(1, frozenset()), lambda row: None) as report:
        report.parts(parts(5))
    assert shown.pop().startswith('<progress value="0.25" max="1"></progress> slide.tif: predicting')
    assert [page.partition("</progress>")[0] for page in shown] == [
        f'<progress value="{done}" max="2">' for done in range(3)
    ]
    assert re.search(r" 2 of 2 images, [\d.]+ images/s$", shown[-1])


def test_nothing_is_shown_of_a_single_image_or_where_nobody_looks(untrained, monkeypatch, capsys):
    model = Segmenter(untrained)
    model([IMAGE, IMAGE])
    assert capsys.readouterr() == ("", "")
    terminal = as_terminal(monkeypatch)
    model(IMAGE)
    model([IMAGE, IMAGE], progress=False)
    assert terminal.getvalue() == ""
    model([IMAGE, IMAGE])
    assert "of 2 images" in terminal.getvalue()


def test_a_rerun_says_what_is_done_already(biounet, few, untrained, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(segmenting, "echo_note", said.append)
    Segmenter(untrained).save(tmp_path / "m.safetensors")
    command = ("segment", few, "-m", tmp_path / "m.safetensors", "-o", tmp_path / "out")
    biounet(*command)
    assert said == []
    (few / "new.tif").write_bytes((few / "a.tif").read_bytes())
    (tmp_path / "out" / "b_labels.tif").unlink()
    with (few / "deep" / "c.tif").open("ab") as file:
        file.write(b"more")
    biounet(*command, "--quiet")
    (tmp_path / "out" / "b_labels.tif").unlink()
    biounet(*command)
    biounet(*command, "--overwrite", "--min-size", "5px")
    assert said == ["3 already done, 1 to do"]


def test_times_are_said_as_people_do():
    seconds = (0.04, 5.12, 41.7, 200, 7800)
    assert [format_seconds(one) for one in seconds] == ["0.0 s", "5.1 s", "42 s", "3 min", "2 h 10 min"]
