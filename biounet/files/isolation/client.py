"""Read in another process: a codec that crashes, or a disk that never answers, costs one file and not the batch."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from io import BufferedReader, BufferedWriter
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from biounet.core import BiounetError, InputError, MachineError, Stopped, Volume
from biounet.files.axes import Paths, ReadOptions, split_scenes
from biounet.files.formats.scenes import Scene
from biounet.files.isolation.messages import Request, Task, decode_error, decode_hashes, decode_scenes, decode_volume
from biounet.files.isolation.process import main_program, start_process
from biounet.files.retry import run_in_thread
from biounet.files.states import image_state

T = TypeVar("T")

_TIMEOUT = 60.0  # seconds for a file, and one more for each 10 MB
_BYTES_PER_SECOND = 10e6  # of a slow disk
_START_TIMEOUT = 300.0  # seconds, as a busy machine may take to start Python
_MAX_STARTS = 4
_RETRY_PAUSE = 2.0  # seconds until a file that changed while it was read is read again
_MAX_HEADER = 2**20  # bytes
_POLL = 0.1  # seconds between checks whether to stop
_KILL_TIMEOUT = 2.0  # seconds until a killed process that waits for a disk is abandoned
_PROGRAM = main_program("biounet.files.isolation.worker")


@dataclass(frozen=True)
class FileState:
    """Size in bytes, time of the last change and content hash of a file when it was read."""

    size: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True)
class _Answer:
    volume: Volume | None
    hashes: tuple[str, ...]
    axes: tuple[str, str] = ("", "")
    scenes: tuple[Scene, ...] = ()


class IsolatedReader:
    """Read images in a process of its own, which serves many files and is replaced when a file ends it.

    For one thread; others may call `close`. A file may take `timeout` seconds, and one more for each 10 MB of it; one
    that changed while it was read is read again after `pause` seconds.

    The methods raise `Stopped` if `stop` is set, `MachineError` if no process can be started, and `InputError` as
    `biounet.files.read_volume`; also if a file ends the process twice, takes too long, or does not stop changing.
    """

    def __init__(self, timeout: float = _TIMEOUT, pause: float = _RETRY_PAUSE) -> None:
        self._timeout, self._pause = timeout, pause
        self._child: subprocess.Popen[bytes] | None = None
        self._is_ready = self._is_busy = False
        self._closed, self._lock = Event(), Lock()

    def __enter__(self) -> IsolatedReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the process without waiting for it, so that it is ready for the first file."""
        with self._lock:
            if self._child is None and not self._closed.is_set():
                environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # each thread takes memory for nothing
                self._child = start_process(_PROGRAM, "to read images in", subprocess.PIPE, environment)
                self._is_ready = False

    def close(self) -> None:
        """End the process; a read in another thread ends with an error."""
        self._closed.set()
        with self._lock:
            child, is_busy = self._child, self._is_busy
        if child is not None and is_busy:
            child.kill()  # the thread that waits for its answer does the rest
        else:
            self._end()

    def read(self, path: Paths, options: ReadOptions | None = None) -> Volume:
        """Read an image, as `biounet.files.read_volume` does."""
        return self.read_hashed(path, options)[0]

    def read_hashed(
        self, path: Paths, options: ReadOptions | None = None, stop: Event | None = None
    ) -> tuple[Volume, tuple[FileState, ...]]:
        """Read an image, and return with it the state of each of its files."""
        answer, stats = self._ask("read", path, options, stop)
        return cast(Volume, answer.volume), tuple(map(FileState, *zip(*stats, strict=True), answer.hashes))

    def read_header(
        self, path: Paths, options: ReadOptions | None = None, stop: Event | None = None
    ) -> tuple[Volume, tuple[str, str]]:
        """Return what `read` would, with pixels that are all 0, and the axes of the first file with their source."""
        answer = self._ask("header", path, options, stop)[0]
        return cast(Volume, answer.volume), answer.axes

    def list_scenes(self, path: str | Path, stop: Event | None = None) -> tuple[Scene, ...]:
        """Return the images that a path holds, as their headers say."""
        return self._ask("scenes", path, stop=stop)[0].scenes

    def hash_file(self, path: str | Path, stop: Event | None = None, scene: str = "") -> str:
        """Return the SHA-256 of a file, or of a series in a folder, whose scene is that of `ReadOptions`."""
        return self._ask("hash", path, ReadOptions(scene=scene), stop)[0].hashes[0]

    def _ask(
        self, task: Task, path: Paths, options: ReadOptions | None = None, stop: Event | None = None
    ) -> tuple[_Answer, list[tuple[int, int]]]:
        """Return the answer about files that did not change meanwhile, and their sizes and times."""
        paths = [Path(path)] if isinstance(path, str | Path) else [Path(file) for file in path]
        stop, options = stop or Event(), options or ReadOptions()
        parts = [*zip(paths, split_scenes(options.scene, len(paths)), strict=True)]
        folder = "" if all(file.is_absolute() for file in paths) else str(Path.cwd())
        for pause in (self._pause, 0):
            before = [_stat(*part) for part in parts]
            seconds = self._timeout + sum(stat[0] for stat in before if stat) / _BYTES_PER_SECOND
            result = self._try_twice(Request(task, paths, options, seconds, folder), stop)
            changed = [part[0] for part, stat in zip(parts, before, strict=True) if _stat(*part) != stat]
            if not changed:
                if isinstance(result, BiounetError):
                    raise result
                return result, [stat or (0, 0) for stat in before]
            stop.wait(pause)
        raise InputError("it changes while it is read", path=changed[0], hint="try again when it is written")

    def _try_twice(self, request: Request, stop: Event) -> _Answer | BiounetError:
        """Return what the process answers or, if it was lost in the second attempt as well, how."""
        path = next(iter(request.paths), None)
        try:
            line = request.encode()
        except UnicodeEncodeError:
            return InputError("no file can have this name", path=path)
        for _ in range(2):
            child = self._ready_child(path, stop)
            try:
                return self._run_within(request.seconds, stop, partial(_exchange, child, request, line))
            except TimeoutError:
                hint = "the disk does not answer, or the file needs more time than its size allows"
                return InputError(f"could not be read in {request.seconds:.0f} s", path=path, hint=hint)
            except (OSError, EOFError):
                code = child.poll() or 0
                reason = f"signal {-code}" if code < 0 else f"exit code {code}"
                cause = f"its reader crashed twice ({reason})"
            except (ValueError, LookupError, TypeError, ArithmeticError, RecursionError):
                cause = "its reader gave an answer that is none"
            except MemoryError:
                return InputError("does not fit in memory", path=path)
        return InputError(cause, path=path, hint="the file is damaged, or needs more memory or time than there is")

    def _ready_child(self, path: Path | None, stop: Event) -> subprocess.Popen[bytes]:
        """Return the process once it waits for requests; the path is for an error."""
        for _ in range(_MAX_STARTS):
            self.start()
            child = self._child
            if child is None:
                raise InputError("reading was stopped", path=path)
            if self._is_ready:
                return child
            with suppress(OSError, EOFError, ValueError):
                self._run_within(_START_TIMEOUT, stop, partial(_read_line, child))
                self._is_ready = True
        hint = "python -m biounet.files.isolation.worker shows why"
        raise MachineError("the process that reads images does not start", hint=hint)

    def _run_within(self, seconds: float, stop: Event, talk: Callable[[], T]) -> T:
        """Return the result of `talk`; end the process if that fails, as half an answer may be left."""
        self._is_busy = True
        future, thread = run_in_thread(talk)
        deadline = time.monotonic() + seconds
        try:
            while not wait([future], min(_POLL, max(0.0, deadline - time.monotonic()))).done:
                if stop.is_set():
                    raise Stopped("reading was stopped")
                if self._closed.is_set():
                    raise EOFError
                if time.monotonic() >= deadline:
                    raise TimeoutError
            return future.result()
        except BaseException:
            self._end(thread)
            raise
        finally:
            self._is_busy = False

    def _end(self, thread: Thread | None = None) -> None:
        """End the process, and close its pipes when no thread reads from them."""
        with self._lock:
            child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        with suppress(subprocess.TimeoutExpired):
            child.wait(_KILL_TIMEOUT)
        if thread is not None:
            thread.join(_KILL_TIMEOUT)
        if thread is None or not thread.is_alive():
            _close_pipes(child)
        else:
            Thread(target=_close_pipes, args=(child, thread), daemon=True).start()


class ReaderPool:
    """One `IsolatedReader` for each thread: `count` are started at once, and more when they are needed."""

    def __init__(self, count: int = 0) -> None:
        self._readers = [IsolatedReader() for _ in range(count)]
        self._idle = list(self._readers)

    @property
    def size(self) -> int:
        """Number of readers that there are."""
        return len(self._readers)

    def __enter__(self) -> ReaderPool:
        for reader in self._readers:
            reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        for reader in self._readers:
            reader.close()

    @contextmanager
    def borrow(self) -> Iterator[IsolatedReader]:
        """Give a reader that no other thread uses meanwhile."""
        try:
            reader = self._idle.pop()
        except IndexError:
            reader = IsolatedReader()
            self._readers.append(reader)
        try:
            yield reader
        finally:
            self._idle.append(reader)

    def hash_file(self, path: str | Path, stop: Event | None = None, scene: str = "") -> str:
        """Return the SHA-256 of a file, as `IsolatedReader.hash_file`; for any number of threads."""
        with self.borrow() as reader:
            return reader.hash_file(path, stop, scene)


def _close_pipes(child: subprocess.Popen[bytes], thread: Thread | None = None) -> None:
    """Close the pipes of a process, when the thread that reads from them has ended."""
    if thread is not None:
        thread.join()
        child.wait()
    for pipe in (child.stdin, child.stdout):
        with suppress(OSError):
            cast(BufferedWriter, pipe).close()


def _read_line(child: subprocess.Popen[bytes]) -> dict[str, Any]:
    line = cast(BufferedReader, child.stdout).readline(_MAX_HEADER)
    if not line.endswith(b"\n"):
        raise EOFError
    return dict(json.loads(line))


def _exchange(child: subprocess.Popen[bytes], request: Request, line: bytes) -> _Answer | BiounetError:
    """Send the line of a request and return the answer; `EOFError` if the process ended, others for invalid fields."""
    requests, answers = cast(BufferedWriter, child.stdin), cast(BufferedReader, child.stdout)
    requests.write(line)
    requests.flush()
    fields = _read_line(child)
    if (error := decode_error(fields, request.paths)) is not None:
        return error
    if request.task == "scenes":
        return _Answer(None, (), scenes=decode_scenes(fields))
    hashes = decode_hashes(fields, 0 if request.task == "header" else len(request.paths))
    if request.task == "hash":
        return _Answer(None, hashes)
    volume = decode_volume(fields, request)
    if request.task == "header":
        axes, source = map(str, fields["axes"])
        return _Answer(volume, hashes, (axes, source))
    array = _read_array(volume.array, answers)
    measured = {name: _read_array(blank, answers) for name, blank in volume.measured.items()}
    return _Answer(replace(volume, array=array, measured=measured), hashes)


def _read_array(blank: NDArray[Any], answers: BufferedReader) -> NDArray[Any]:
    """Return the next array of an answer, of the shape and type of `blank`."""
    array = np.empty(blank.shape, blank.dtype)
    if answers.readinto(array.data.cast("B")) < array.nbytes:
        raise EOFError
    return array


def _stat(path: Path, scene: str) -> tuple[int, int] | None:
    try:
        return image_state(path, scene)
    except (OSError, ValueError, InputError):
        return None
