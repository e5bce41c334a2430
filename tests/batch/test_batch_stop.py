"""Signals, and memory that runs out."""

import os
import signal
import subprocess
import sys
from threading import Event

import numpy as np
import pytest
import torch

import biounet.segmentation.memory
from biounet.batch import BatchOptions, segment_batch
from biounet.core import Stopped, is_out_of_memory, signal_exit_code
from biounet.files import find_images
from support.commands import without_notes
from support.images import discs


def test_a_stopped_batch_says_how_far_it_came_and_goes_on_from_there(few, untrained, tmp_path):
    stop, out = Event(), tmp_path / "out"
    with pytest.raises(Stopped, match=r"^1 of 3 images done$"):
        segment_batch(find_images([few]), untrained, out, BatchOptions(jobs=1), lambda row: stop.set(), stop)
    others = {path.name for path in out.iterdir() if not path.name.startswith(("a_", "."))}
    assert others == {"manifest.jsonl", "report_files"}
    assert all(path.name.startswith("a_") for path in (out / "report_files").iterdir())
    assert len(segment_batch(find_images([few]), untrained, out)) == 3


def test_ctrl_c_in_a_program_ends_the_queue(few, untrained, tmp_path):
    seen = []

    def report(row):
        seen.append(row.image)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        segment_batch(find_images([few]), untrained, tmp_path / "out", BatchOptions(jobs=1), report)
    assert seen == ["a.tif"]


TWICE = """
import sys, time
from biounet.cli import commands
def app(**_):
    try:
        print("ready", flush=True)
        time.sleep(100)
    finally:
        print("ending", flush=True)
        time.sleep(100)
commands.app = app
commands.main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_second_signal_ends_a_command_at_once_and_without_a_word(number):
    command = [sys.executable, "-c", TWICE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        for line in ("ready", "ending"):
            assert child.stdout.readline() == f"{line}\n"
            child.send_signal(number)
        out, err = child.communicate(timeout=60)
    assert (child.returncode, out, err) == (signal_exit_code(number), "", "")


@pytest.mark.skipif(sys.platform != "linux", reason="addresses of a process cannot be limited")
@pytest.mark.parametrize("mib", [300, 500, 650])
def test_too_few_addresses_for_the_program_are_said_before_it_aborts(mib, tmp_path):
    import resource

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (mib * 2**20, mib * 2**20))

    command = [sys.executable, "-c", "from biounet.cli import main; main()", "segment", "x.tif"]
    done = subprocess.run(command, cwd=tmp_path, preexec_fn=limit, capture_output=True, text=True, check=False)
    assert done.returncode == 5
    assert done.stderr.startswith("ERROR not enough memory: the program takes 0.78 GiB of addresses")
    assert len(done.stderr.splitlines()) == 1


ASKED = """
import sys
from biounet.core import stop_on_signals
with stop_on_signals() as stop:
    for line in sys.stdin:
        print(stop.number, stop.is_set(), flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_ends(number):
    with subprocess.Popen(
        [sys.executable, "-c", ASKED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:

        def answer() -> str:
            process.stdin.write("?\n")
            return process.stdout.readline()

        assert answer() == "0 False\n"
        process.send_signal(number)
        assert answer() == f"{number:d} True\n"
        process.send_signal(number)
        assert process.wait() == 128 + number


TORCH = "[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"


def test_only_what_says_that_memory_ran_out_is_taken_for_it():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    with pytest.raises(MemoryError) as in_numpy:
        np.empty(2**60, np.uint8)
    assert is_out_of_memory(in_numpy.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


@pytest.mark.parametrize("error", [RuntimeError(TORCH), MemoryError(), torch.OutOfMemoryError("x")])
def test_when_memory_runs_out_blocks_become_smaller_and_labels_stay(error, few, untrained, tmp_path, monkeypatch):
    images, options = find_images([few / "a.tif"]), BatchOptions(jobs=1)
    whole = segment_batch(images, untrained, tmp_path / "whole", options)
    really, tried = biounet.segmentation.memory.segment, []

    def segment(volume, predictor, card, options, **how):
        tried.append(options.block)
        if options.block > 256:
            raise error
        return really(volume, predictor, card, options, **how)

    monkeypatch.setattr(biounet.segmentation.memory, "segment", segment)
    rows = segment_batch(images, untrained, tmp_path / "small", options)
    assert tried == [2048, 512, 256]
    assert rows[0].count == whole[0].count
    assert "in blocks of 256" in rows[0].message
    labels = [(tmp_path / name / "a_labels.tif").read_bytes() for name in ("whole", "small")]
    assert labels[0] == labels[1]


@pytest.mark.parametrize(
    ("error", "words"), [(MemoryError(), "not enough memory"), (RuntimeError("odd"), "RuntimeError: odd")]
)
def test_what_no_block_size_helps_against_is_a_row(error, words, few, untrained, tmp_path, monkeypatch):
    def segment(*_, **__):
        raise error

    monkeypatch.setattr(biounet.segmentation.memory, "segment", segment)
    rows = segment_batch(find_images([few / "a.tif"]), untrained, tmp_path / "out")
    assert (rows[0].status, rows[0].count) == ("failed", None)
    assert rows[0].message.startswith(words)


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGUSR1", 75)])
def test_the_command_stops_on_sigterm_and_the_same_command_continues(untrained, tmp_path, name, code):
    import tifffile

    from biounet.network import save_model

    (tmp_path / "in").mkdir()
    save_model(untrained, tmp_path / "m.safetensors")
    for number in range(60):
        tifffile.imwrite(tmp_path / "in" / f"{number}.tif", discs((64, 64), 4, number)[0])
    command = [sys.executable, "-c", "from biounet.cli import main; main()", "segment", "in", "-m", "m.safetensors"]
    with subprocess.Popen(
        [*command, "--jobs", "1"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline().startswith("0.tif: ")
        process.send_signal(signal.Signals[name])
        _, err = process.communicate()
    assert process.returncode == code
    err = without_notes(err)
    done = int(err.split()[1])
    assert err == f"stopped: {done} of 60 images done; the same command continues\n"
    assert 1 <= done < 60
    assert len((tmp_path / "biounet-out" / "manifest.jsonl").read_text().splitlines()) == done
    rows = segment_batch(find_images([tmp_path / "in"]), untrained, tmp_path / "biounet-out")
    assert [row.status for row in rows].count("failed") == 0
    assert len(rows) == 60
