"""Faults of the machine that no other test states: file systems that fail or refuse, and whose name gets about."""

import builtins
import errno
import io
import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

import biounet
from biounet.batch import BatchOptions, segment_batch
from biounet.batch.replay import verify
from biounet.core import InputError
from biounet.files import find_images, hash_file, read_volume
from biounet.files.retry import retry_on_io_error
from biounet.network import save_model

DAC = ["setpriv", "--inh-caps=-dac_override,-dac_read_search", "--bounding-set=-dac_override,-dac_read_search"]


@pytest.fixture
def no_pause(monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def failing(times: int, number: int):
    """A function that fails `times` times and gives the number of its calls."""
    calls = []

    def read() -> int:
        calls.append(None)
        if len(calls) <= times:
            raise OSError(number, os.strerror(number))
        return len(calls)

    return read


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_what_may_be_gone_in_a_moment_is_tried_three_times_F103(no_pause, number):
    assert retry_on_io_error(failing(2, number)) == 3
    with pytest.raises(OSError, match=os.strerror(number)):
        retry_on_io_error(failing(3, number))


def test_what_stays_is_not_tried_again_F103(no_pause):
    read = failing(1, errno.ENOENT)
    with pytest.raises(FileNotFoundError):
        retry_on_io_error(read)
    assert read() == 2


def test_a_drive_that_fails_once_fails_no_file_F103(few, no_pause, monkeypatch):
    path = few / "a.tif"
    expected, digest = read_volume(path).array, hash_file(path)
    really, failures = io.open, [errno.EIO, errno.ESTALE]

    def flaky(file, *args, **kwargs):
        if Path(str(file)) == path and failures:
            number = failures.pop()
            raise OSError(number, os.strerror(number))
        return really(file, *args, **kwargs)

    monkeypatch.setattr(io, "open", flaky)
    monkeypatch.setattr(builtins, "open", flaky)
    assert (read_volume(path).array == expected).all()
    failures[:] = [errno.EIO]
    assert hash_file(path) == digest
    failures[:] = [errno.EIO] * 10
    with pytest.raises(InputError, match=r"cannot be read: .*Input/output error"):
        read_volume(path)


def test_results_name_no_user_and_are_verified_from_anywhere_F086(few, untrained, tmp_path, monkeypatch):
    home = tmp_path / "home" / "anna"
    shutil.copytree(few, home / "images")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(sys, "argv", ["biounet", "segment", str(home / "images")])
    save_model(untrained, home / "model.safetensors")
    for out in (home / "out", tmp_path / "drive" / "out"):
        segment_batch(find_images([home / "images"]), untrained, out, BatchOptions(jobs=1))
        texts = [path.read_bytes() for path in [*out.rglob("*"), home / "model.safetensors"] if path.is_file()]
        assert len(texts) > 10
        assert not any(b"anna" in text for text in texts)
        monkeypatch.chdir(tmp_path)
        assert {checked.status for checked in verify(out, untrained)} == {"same"}


@pytest.mark.skipif(not (hasattr(os, "getuid") and (os.getuid() or shutil.which("setpriv"))), reason="needs setpriv")
def test_input_home_and_package_may_be_read_only_F094(few, untrained, tmp_path):
    package, home, out = tmp_path / "site" / "biounet", tmp_path / "home", tmp_path / "out"
    shutil.copytree(Path(biounet.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    save_model(untrained, few / "model.safetensors")
    home.mkdir()
    out.mkdir()
    closed = [path for top in (package.parent, home, few) for path in (top, *top.rglob("*"))]
    for path in closed:
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    command = [sys.executable, "-c", "from biounet.cli import main; main()", "segment", few, "-o", out]
    command = [*(DAC if os.getuid() == 0 else []), *command, "-m", few / "model.safetensors"]
    environment = {**os.environ, "HOME": str(home), "XDG_CACHE_HOME": "", "PYTHONPATH": str(package.parent)}
    environment |= {"NUMBA_OPT": "0"}  # nothing can be kept, and compiling takes most of the time
    try:
        ran = subprocess.run(list(map(str, command)), cwd=home, env=environment, capture_output=True, text=True)
    finally:
        for path in closed:
            path.chmod(path.stat().st_mode | stat.S_IWUSR)
    assert ran.returncode == 0, ran.stderr
    assert len(list(out.rglob("*_labels.tif"))) == 3
    assert not list(package.rglob("__pycache__"))
