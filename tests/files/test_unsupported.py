"""Unsupported formats: one line that names the format and the way to a supported one."""

import gzip

import pytest

from biounet.cli import commands
from biounet.core import DataSettings, InputError, stopping
from biounet.evaluation import evaluate
from biounet.files import find_images, find_pairs, read_labels, read_volume
from support.commands import without_notes

FILES = {
    "a.nrrd": (b"NRRD0004\ntype: float\n", "NRRD", "Slicer"),
    "a.mha": (b"ObjectType = Image\nNDims = 3\n", "MetaImage", "Slicer"),
    "a.mhd": (b"Comment = x\nNDims = 3\n", "MetaImage", "Slicer"),
    "a.mgz": (gzip.compress(b"\x00\x00\x00\x01" + bytes(400)), "MGH", "mri_convert"),
    "a.xlef": (b'<?xml version="1.0"?><LMSDataContainerHeader/>', "Leica", ".lof"),
    "a.oib": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(40), "OIB", "Bio-Formats"),
    "a.ims": (b"\x89HDF\r\n\x1a\n" + bytes(40), "HDF5", "TIFF"),
    "renamed.tif": (b"OLYMPUSRAWFORMAT" + bytes(40), "OIR", "Bio-Formats"),
}


@pytest.mark.parametrize("name", FILES)
def test_the_error_names_the_format(tmp_path, name):
    content, known, way = FILES[name]
    (tmp_path / name).write_bytes(content)
    for read in (read_volume, read_labels):
        with pytest.raises(InputError) as caught:
            read(tmp_path / name)
        text = str(caught.value)
        assert known in text
        assert way in text
        assert "\n" not in text


@pytest.mark.parametrize("name", [name for name in FILES if name != "renamed.tif"])
def test_a_folder_of_unsupported_files_names_their_format(tmp_path, name):
    content, known, way = FILES[name]
    (tmp_path / "case" / "series").mkdir(parents=True)
    (tmp_path / "case" / "series" / name).write_bytes(content)
    (tmp_path / "case" / "notes.txt").write_text("notes")
    (tmp_path / "labels").mkdir()
    inputs = [[tmp_path], [str(tmp_path / "case" / "series" / "*")]]
    finds = [lambda one=one: find_images(one) for one in inputs]
    for find in (*finds, lambda: find_pairs(tmp_path / "case", tmp_path / "labels")):
        with pytest.raises(InputError) as caught:
            find()
        assert known in str(caught.value)
        assert way in str(caught.value)


def test_unsupported_annotations_are_named(tmp_path):
    for name in ("out", "truth"):
        (tmp_path / name).mkdir()
    (tmp_path / "truth" / "a.nrrd").write_bytes(b"NRRD0004\n")
    with pytest.raises(InputError, match="NRRD"):
        evaluate(tmp_path / "out", tmp_path / "truth", DataSettings())


def test_a_folder_of_n5_is_recognised(tmp_path):
    store = tmp_path / "in" / "a.n5"
    store.mkdir(parents=True)
    (store / "attributes.json").write_text("{}")
    for path in (store, store.parent):
        with pytest.raises(InputError, match="N5"):
            find_images([path])


def test_the_command_says_so_in_one_line(tmp_path, capsys, monkeypatch):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.nrrd").write_bytes(FILES["a.nrrd"][0])
    monkeypatch.setattr(stopping.signal, "signal", lambda *_: None)
    for what in (tmp_path / "in", tmp_path / "in" / "a.nrrd"):
        monkeypatch.setattr("sys.argv", ["biounet", "segment", str(what), "-m", "nuclei", "-o", str(tmp_path / "out")])
        with pytest.raises(SystemExit) as stop:
            commands.main()
        (line,) = without_notes(capsys.readouterr().err).splitlines()
        assert stop.value.code == 4
        assert "NRRD" in line
        assert "Slicer" in line


def test_other_files_are_not_recognised(tmp_path):
    (tmp_path / "notes.txt").write_text("notes")
    with pytest.raises(InputError, match="no image found"):
        find_images([tmp_path])
