"""Reading in another process: the same volumes and errors, and a crash or a hang costs one file."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Event, Thread, Timer

import imagecodecs
import nibabel
import numpy as np
import pytest
import tifffile

from biounet.core import InputError, MachineError, Stopped, note_record
from biounet.files import FileState, IsolatedReader, ReadOptions, read_volume
from biounet.files.isolation import client
from biounet.files.isolation.messages import Request

GREY = np.random.default_rng(0).integers(0, 60000, (33, 47)).astype(np.uint16)
STACK = np.stack([GREY, GREY + 1, GREY + 2])
# Runs a line of code in place of the reading of a file whose name begins with "bad".
BAD = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from biounet.files.isolation import worker
read = worker.read_volume
def read_volume(paths, options):
    if paths[0].name.startswith("bad"):
        {line}
    return read(paths, options)
worker.read_volume = read_volume
worker.main()
"""


@pytest.fixture(scope="module")
def reader():
    with IsolatedReader() as reader:
        yield reader


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, GREY)
    return path


@pytest.fixture
def bad(image, monkeypatch):
    """Return a reader in whose process a line of code runs for a file, and that file."""
    readers = []
    path = image.with_name("bad.tif")
    path.write_bytes(image.read_bytes())

    def make(line, **limits):
        monkeypatch.setattr(client, "_PROGRAM", BAD.format(line=line))
        readers.append(IsolatedReader(**limits))
        return readers[-1], path

    yield make
    for reader in readers:
        reader.close()


def write_nifti(path, array):
    nibabel.save(
        nibabel.Nifti1Image(array.T, np.array([[0, -2, 0, 5], [0.5, 0, 0, 7], [0, 0, 1.1, 9], [0, 0, 0, 1]])), path
    )


def write_ome(path, array):
    sizes = {"PhysicalSizeX": 0.325, "PhysicalSizeY": 0.65, "PhysicalSizeZ": 2.0}
    tifffile.imwrite(path, array, ome=True, metadata={"axes": "ZYX", **sizes})


CASES = {
    "tiff": (tifffile.imwrite, GREY, "x.tif", {}),
    "one channel": (tifffile.imwrite, GREY[:8, :12].reshape(8, 4, 3).astype("u1"), "x.tif", {"channel": np.int64(1)}),
    "spacing": (tifffile.imwrite, GREY, "x.tif", {"spacing": (np.float32(0.5), 0.25)}),
    "half floats": (tifffile.imwrite, GREY.astype("f2") / 2, "x.tif", {}),
    "volume": (write_ome, STACK, "x.ome.tif", {"dims": 3}),
    "NIfTI": (write_nifti, STACK.astype("i2"), "x.nii.gz", {"dims": 3}),
    "a NIfTI of a stated size": (write_nifti, STACK.astype("i2"), "x.nii.gz", {"dims": 3, "spacing": (3, 2, 1)}),
    "a plane of a NIfTI": (write_nifti, STACK.astype("i2"), "x.nii.gz", {"plane": 1}),
    "PNG": (lambda path, array: path.write_bytes(imagecodecs.png_encode(array)), GREY, "x.png", {}),
    "a name of no letters": (tifffile.imwrite, GREY, os.fsdecode(b"\xff\n\xc3\xa4.tif"), {}),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_the_volume_equals_that_of_read_volume(tmp_path, reader, case):
    write, array, name, options = case
    path = tmp_path / name
    write(path, array)
    for given in (path, str(path), [path]):
        there, here = reader.read(given, ReadOptions(**options)), read_volume(given, ReadOptions(**options))
        assert there.array.dtype == here.array.dtype
        np.testing.assert_array_equal(there.array, here.array)
        assert there.array.flags.writeable
        assert vars(there.grid) == vars(here.grid)
        assert (there.source, there.notes) == (here.source, here.notes)
        assert [*map(note_record, there.notes)] == [*map(note_record, here.notes)]


def test_several_files_are_one_image(tmp_path, reader):
    paths = [tmp_path / "a.tif", tmp_path / "b.tif", tmp_path / "c.tif"]
    for number, path in enumerate(paths):
        tifffile.imwrite(path, GREY + number)
    np.testing.assert_array_equal(reader.read(paths).array, STACK)
    tifffile.imwrite(paths[1], GREY[:5])
    with pytest.raises(InputError) as caught:
        reader.read(paths)
    assert caught.value.path == paths[1]


@pytest.mark.parametrize("content", [None, b"", b"<html>", b"II*\0\x08\0\0\0"])
def test_the_error_equals_that_of_read_volume(tmp_path, reader, content):
    path = tmp_path / "x.tif"
    if content is not None:
        path.write_bytes(content)
    errors = []
    for read in (read_volume, reader.read):
        with pytest.raises(InputError) as caught:
            read(path)
        errors.append((type(caught.value), caught.value.cause, caught.value.path, caught.value.hint))
    assert errors[0] == errors[1]


def test_relative_paths_start_from_the_current_folder(image, reader, monkeypatch):
    monkeypatch.chdir(image.parent)
    assert reader.read(image.name).source == Path(image.name)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL], ids=["F096 signal 11", "F095 signal 9"])
def test_a_file_that_kills_the_process_is_one_error(image, bad, number):
    reader, path = bad(f"os.kill(os.getpid(), {int(number)})")
    with pytest.raises(InputError, match=rf"crashed twice \(signal {int(number)}\)") as caught:
        reader.read(path)
    assert caught.value.path == path
    np.testing.assert_array_equal(reader.read(image).array[0], GREY)


def test_a_file_that_hangs_is_one_error_F097(image, bad):
    reader, path = bad("time.sleep(1000)", timeout=0.2)
    with pytest.raises(InputError, match="could not be read in 0 s"):
        reader.read(path)
    reader._timeout = 60
    np.testing.assert_array_equal(reader.read(image).array[0], GREY)


def test_a_killed_process_is_replaced_and_the_file_is_read_F095(image):
    with IsolatedReader() as reader:
        for _ in range(2):
            reader.read(image)
            os.kill(reader._child.pid, signal.SIGKILL)
        np.testing.assert_array_equal(reader.read(image).array[0], GREY)
        killed = reader._child.pid
        reader.start()  # a process that runs stays
        assert reader._child.pid == killed


@pytest.mark.skipif(sys.platform != "linux", reason="memory of a process cannot be limited")
def test_a_codec_that_asks_for_all_memory_is_refused_F012(image, bad):
    reader, path = bad("bytearray(2**32)")
    with pytest.raises(InputError, match="does not fit in memory"):
        reader.read(path, ReadOptions(limit=2**20))
    np.testing.assert_array_equal(reader.read(image).array[0], GREY)


def test_output_of_libraries_does_not_reach_the_pipe(bad):
    noise = 'os.write(1, b"x" * 10**6), os.write(2, b"x" * 10**6), sys.stdin.read(), print("noise")'
    reader, path = bad(noise)
    np.testing.assert_array_equal(reader.read(path).array[0], GREY)


GRID = {"shape": [2, 2], "spacing": None, "unit": None, "affine": None, "header": None, "axcodes": None, "frame": ""}
NOTE = {"text": "odd", "code": "other", "severity": "warning", "figure": None}
CHANNELS = {"channel_names": [], "measured": []}
VOLUME = {"dtype": "<u2", "shape": [1, 2, 2], "grid": GRID, "notes": [], "sha256": ["0" * 64], **CHANNELS}
HOSTILE = {
    "objects": VOLUME | {"dtype": "|O"},
    "no type": VOLUME | {"dtype": 7},
    "more than the limit": VOLUME | {"shape": [2**40, 2, 2]},
    "another shape": VOLUME | {"shape": [1, 2, 3]},
    "no channels": VOLUME | {"shape": [0, 2, 2]},
    "fractions": VOLUME | {"grid": GRID | {"shape": [2, 2.0]}},
    "a header of no bytes": VOLUME | {"grid": GRID | {"header": "xy"}},
    "another unit": VOLUME | {"grid": GRID | {"unit": "m", "spacing": [1, 1]}},
    "an affine that is none": VOLUME | {"grid": GRID | {"affine": [[0.0] * 4] * 3}},
    "a direction that is none": VOLUME | {"grid": GRID | {"axcodes": "RL"}},
    "a frame that is none": VOLUME | {"grid": GRID | {"frame": 3}},
    "another error": {"error": "SystemExit", "cause": "", "path": None, "hint": None},
    "a file that nobody asked for": {"error": "InputError", "cause": "", "path": 3, "hint": None},
    "numbers without end": VOLUME | {"grid": GRID | {"unit": "um", "spacing": [10**400, 1]}},
    "a note of no kind": VOLUME | {"notes": [NOTE | {"code": "no code"}]},
    "a note of no severity": VOLUME | {"notes": [NOTE | {"severity": "fatal"}]},
    "no hash": VOLUME | {"sha256": []},
    "names of other channels": VOLUME | {"channel_names": ["DAPI", "GFP"]},
    "a name of two lines": VOLUME | {"channel_names": ["DAPI\nGFP"]},
    "a name without end": VOLUME | {"channel_names": ["a" * 10**5]},
    "a name that is none": VOLUME | {"channel_names": [7]},
    "a channel twice": VOLUME | {"measured": [["GFP", "<u2"], ["GFP", "<u2"]]},
    "a channel of objects": VOLUME | {"measured": [["GFP", "|O"]]},
    "more channels than the limit": VOLUME | {"measured": [[str(n), "<f8"] for n in range(10**4)]},
    "a hash that is none": VOLUME | {"sha256": ["../x"]},
    "no mapping": [1],
    "nothing": {},
}


@pytest.mark.parametrize("answer", HOSTILE.values(), ids=HOSTILE.keys())
def test_an_invalid_answer_is_an_error(tmp_path, image, monkeypatch, answer):
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\nprint('{}', flush=True)\n"
        f"for _ in sys.stdin: print({json.dumps(json.dumps(answer))}, flush=True)"
    )
    monkeypatch.setattr(client, "_PROGRAM", f"import runpy; runpy.run_path({str(program)!r})")
    with IsolatedReader() as reader, pytest.raises(InputError) as caught:
        reader.read(image)
    assert caught.value.path == image


def test_a_process_that_does_not_start_is_an_error(image, monkeypatch):
    monkeypatch.setattr(client, "_PROGRAM", "raise SystemExit(1)")
    with IsolatedReader() as reader, pytest.raises(MachineError, match="does not start"):
        reader.read(image)


def test_code_in_the_current_folder_is_not_run(image, monkeypatch):
    (image.parent / "numpy.py").write_text("raise SystemExit(1)")
    monkeypatch.chdir(image.parent)
    with IsolatedReader() as reader:
        np.testing.assert_array_equal(reader.read(image).array[0], GREY)


def test_the_process_imports_no_heavy_package(bad):
    reader, path = bad('raise ValueError(sorted({"torch", "monai", "scipy", "pandas"} & set(sys.modules)))')
    with pytest.raises(InputError, match=r"\[\]"):
        reader.read(path)


def test_the_process_ends_with_its_input_and_not_with_ctrl_c():
    code = "from biounet.files.isolation.worker import main; main()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert json.loads(child.stdout.readline()) == {"ready": True}
        child.send_signal(signal.SIGINT)
        out, _ = child.communicate(timeout=60)
        assert (out, child.returncode) == (b"", 0)


def test_threads_of_a_program_without_a_main_guard_F102(image):
    code = (
        "import sys\nfrom concurrent.futures import ThreadPoolExecutor\nfrom biounet.files import IsolatedReader\n"
        "def read(path):\n  with IsolatedReader() as reader: return reader.read(path).array.sum()\n"
        "with ThreadPoolExecutor(2) as pool: print(*pool.map(read, sys.argv[1:]))"
    )
    done = subprocess.run([sys.executable, "-", image, image], input=code.encode(), capture_output=True, check=True)
    assert done.stdout.split() == [str(GREY.sum()).encode()] * 2


def test_another_thread_can_end_a_read(bad):
    reader, path = bad("time.sleep(1000)")
    caught = []

    def read():
        with pytest.raises(InputError) as error:
            reader.read(path)
        caught.append(error.value.cause)

    thread = Thread(target=read)
    thread.start()
    reader.close()
    thread.join()
    assert caught == ["reading was stopped"]
    reader.close()


def test_a_file_that_is_being_written_is_read_when_complete_F025(image):
    whole = image.read_bytes()
    image.write_bytes(whole[:1000])
    with IsolatedReader(pause=0) as reader:
        original = reader._try_twice

        def then_written(paths, options):
            result = original(paths, options)
            image.write_bytes(whole)
            reader._try_twice = original
            return result

        reader._try_twice = then_written
        np.testing.assert_array_equal(reader.read(image).array[0], GREY)


def test_a_file_that_keeps_changing_is_an_error_F025(image):
    with IsolatedReader(pause=0) as reader:
        original = reader._try_twice

        def then_longer(paths, options):
            result = original(paths, options)
            with image.open("ab") as file:
                file.write(b"\0")
            return result

        reader._try_twice = then_longer
        with pytest.raises(InputError, match="changes while it is read") as caught:
            reader.read(image)
    assert caught.value.path == image


def test_the_hash_is_that_of_the_content_read(tmp_path, reader):
    paths = [tmp_path / "a.tif", tmp_path / "b.tif"]
    for number, path in enumerate(paths):
        tifffile.imwrite(path, GREY + number)
    volume, states = reader.read_hashed(paths)
    np.testing.assert_array_equal(volume.array, STACK[:2])
    for path, state in zip(paths, states, strict=True):
        content = path.read_bytes()
        assert state == FileState(len(content), path.stat().st_mtime_ns, hashlib.sha256(content).hexdigest())
        assert reader.hash_file(path) == state.sha256


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_the_header_equals_the_volume_without_pixels(tmp_path, reader, case):
    write, array, name, options = case
    path = tmp_path / name
    write(path, array)
    header, _ = reader.read_header(path, ReadOptions(**options))
    volume = reader.read(path, ReadOptions(**options))
    assert (header.array.shape, header.array.dtype, header.grid) == (
        volume.array.shape,
        volume.array.dtype,
        volume.grid,
    )
    assert header.array.strides == (0,) * header.array.ndim
    assert set(header.notes) <= set(volume.notes)


@pytest.mark.parametrize("content", [None, b"", b"<html>", b"II*\0\x08\0\0\0"])
def test_errors_of_headers_equal_those_of_reading(tmp_path, reader, content):
    path = tmp_path / "x.tif"
    if content is not None:
        path.write_bytes(content)
    errors = []
    for ask in (reader.read_header, reader.read):
        with pytest.raises(InputError) as caught:
            ask(path)
        errors.append((caught.value.cause, caught.value.path, caught.value.hint))
    assert errors[0] == errors[1]


def test_a_file_of_zeros_is_refused_before_it_is_read(tmp_path, reader):
    path = tmp_path / "zeros.tif"
    with path.open("wb") as file:
        file.truncate(2**40)  # takes no place on the disk
    with pytest.raises(InputError, match="not a TIFF"):
        reader.read_header(path)


def test_a_small_image_in_a_huge_file_is_refused_by_its_header(tmp_path, reader):
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, GREY[:4, :4])
    with path.open("r+b") as file:
        file.truncate(2**40)
    with pytest.raises(InputError, match=r"declares 4 x 4 uint16, .* in a file of 1\.1e\+03 GB"):
        reader.read_header(path)


def test_a_hash_that_hangs_is_one_error_F097(image, bad):
    reader, path = bad("pass", timeout=0.3)
    client._PROGRAM = client._PROGRAM.replace(
        "worker.main()", "worker.hash_image = lambda *_: time.sleep(1000)\nworker.main()"
    )
    for ask in (reader.hash_file, reader.read):
        with pytest.raises(InputError, match="could not be read in 0 s"):
            ask(path)


def test_a_process_that_cannot_be_killed_is_abandoned(image, bad, monkeypatch):
    reader, path = bad("time.sleep(1000)", timeout=0.3)
    monkeypatch.setattr(client, "_KILL_TIMEOUT", 0.1)
    reader.start()
    stuck = reader._child
    stuck.kill, really = (lambda: None), stuck.kill
    try:
        with pytest.raises(InputError, match="could not be read in 0 s"):
            reader.read(path)
        reader._timeout = 60
        np.testing.assert_array_equal(reader.read(image).array[0], GREY)
        assert reader._child is not stuck
    finally:
        really()
        while not stuck.stdout.closed:
            time.sleep(0.01)


@pytest.mark.parametrize("ask", ["read_hashed", "read_header", "hash_file"])
def test_reading_ends_when_stop_is_set(image, bad, ask):
    reader, path = bad("time.sleep(1000)")
    client._PROGRAM = client._PROGRAM.replace(
        "worker.main()",
        "worker.hash_image = worker.read_header = lambda *_: time.sleep(99)\nworker.main()",
    )
    stop = Event()
    timer = Timer(1.0, stop.set)
    timer.start()
    with pytest.raises(Stopped):
        getattr(reader, ask)(path, stop=stop)
    timer.join()


def test_a_name_that_no_file_can_have_costs_no_process(reader):
    with pytest.raises(InputError, match="no file can have this name"):
        reader.read(Path("a\ud800.tif"))


def test_what_cannot_be_read_is_not_hashed_and_what_can_is_after_it(image, tmp_path, monkeypatch):
    from biounet.files.isolation import worker

    (tmp_path / "damaged.tif").write_bytes(image.read_bytes()[:50])
    happened = []
    for name in ("read_volume", "hash_image"):
        really = getattr(worker, name)
        monkeypatch.setattr(
            worker, name, lambda *args, really=really, name=name: happened.append(name) or really(*args)
        )
    worker._hash_once.cache_clear()
    with pytest.raises(InputError):
        worker._run_task(tmp_path / "damaged.tif", Request("read", [tmp_path / "damaged.tif"], ReadOptions(), 1, ""))
    assert happened == ["read_volume"]
    fields, _ = worker._run_task(image, Request("read", [image], ReadOptions(), 1, ""))
    assert happened[1:] == ["read_volume", "hash_image"]
    assert fields["sha256"] == [hashlib.sha256(image.read_bytes()).hexdigest()]
