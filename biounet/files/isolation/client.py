"""Read in another process: a codec that crashes, hangs or asks for all memory costs one file and not the batch.

So does a disk that never answers: a process that waits for it can be abandoned, a thread cannot.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from io import BufferedReader, BufferedWriter
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread
from typing import Any, TypeVar, cast

import numpy as np

from biounet.core import BiounetError, InputError, MachineError, Stopped, Volume
from biounet.files.axes import ReadOptions
from biounet.files.isolation.messages import Request, Task, decode_error, decode_hashes, decode_volume
from biounet.files.isolation.process import main_program, start_process

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

Paths = str | Path | Sequence[str | Path]


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


class IsolatedReader:
    """Read images in a process of its own, which serves many files and is replaced when a file ends it.

    For one thread; others may call `close`.

    Parameters
    ----------
    timeout
        Seconds that a file may take, and one more for each 10 MB of it.
    pause
        Seconds until a file that changed while it was read is read again.
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
        """Start the process without waiting for it, so that it is ready for the first file.

        Raises
        ------
        MachineError
            If no process can be started.
        """
        with self._lock:
            if self._child is None and not self._closed.is_set():
                self._child, self._is_ready = _start(), False

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
        """Read an image, as `biounet.files.read_volume` does.

        Raises
        ------
        InputError
            As `read_volume`; and if the file ends the process twice, takes too long, or does not stop changing.
        MachineError
            If no process can be started.
        """
        return self.read_hashed(path, options)[0]

    def read_hashed(
        self, path: Paths, options: ReadOptions | None = None, stop: Event | None = None
    ) -> tuple[Volume, tuple[FileState, ...]]:
        """Read an image, and return with it the state of each of its files; errors as of `read`, and `Stopped`."""
        answer, stats = self._ask("read", path, options, stop)
        return cast(Volume, answer.volume), tuple(map(FileState, *zip(*stats, strict=True), answer.hashes))

    def read_header(self, path: Paths, options: ReadOptions | None = None, stop: Event | None = None) -> Volume:
        """Return what `read` would, from the headers alone, with pixels that are all 0 and take no memory."""
        return cast(Volume, self._ask("header", path, options, stop)[0].volume)

    def inspect(self, paths: Sequence[Path], options: ReadOptions) -> tuple[Volume, tuple[str, str]]:
        """Return what `read_header` does, and the axes of the array in the first file with their source."""
        answer = self._ask("inspect", paths, options)[0]
        return cast(Volume, answer.volume), answer.axes

    def hash_file(self, path: str | Path, stop: Event | None = None) -> str:
        """Return the SHA-256 of a file; errors as of `read`."""
        return self._ask("hash", path, stop=stop)[0].hashes[0]

    def _ask(
        self, task: Task, path: Paths, options: ReadOptions | None = None, stop: Event | None = None
    ) -> tuple[_Answer, list[tuple[int, int]]]:
        """Return the answer about files that did not change meanwhile, and their sizes and times."""
        paths = [Path(path)] if isinstance(path, str | Path) else [Path(file) for file in path]
        stop = stop or Event()
        folder = "" if all(file.is_absolute() for file in paths) else str(Path.cwd())
        for may_wait in (True, False):
            before = [_stat(file) for file in paths]
            seconds = self._timeout + sum(stat[0] for stat in before if stat) / _BYTES_PER_SECOND
            result = self._try_twice(Request(task, paths, options or ReadOptions(), seconds, folder), stop)
            changed = [file for file, stat in zip(paths, before, strict=True) if _stat(file) != stat]
            if not changed:
                break
            if may_wait:
                stop.wait(self._pause)
        else:
            raise InputError("it changes while it is read", path=changed[0], hint="try again when it is written")
        if isinstance(result, BiounetError):
            raise result
        return result, [stat or (0, 0) for stat in before]

    def _try_twice(self, request: Request, stop: Event) -> _Answer | BiounetError:
        with suppress(_ReaderLost):
            return self._try(request, stop)
        try:
            return self._try(request, stop)
        except _ReaderLost as lost:
            hint = "the file is damaged, or needs more memory or time than there is"
            return InputError(str(lost), path=request.paths[0], hint=hint)

    def _try(self, request: Request, stop: Event) -> _Answer | BiounetError:
        """Return what the process answers.

        Raises
        ------
        _ReaderLost
            If it does not; a new one is started for the next file.
        Stopped
            If `stop` is set.
        """
        child = self._ready_child(request.paths, stop)
        try:
            return self._run_within(request.seconds, stop, child, lambda: _exchange(child, request))
        except _TimedOut:
            hint = "the disk does not answer, or the file needs more time than its size allows"
            return InputError(f"could not be read in {request.seconds:.0f} s", path=request.paths[0], hint=hint)
        except (OSError, EOFError):
            code = child.poll() or 0
            reason = f"signal {-code}" if code < 0 else f"exit code {code}"
            raise _ReaderLost(f"its reader crashed twice ({reason})") from None
        except (ValueError, LookupError, TypeError, ArithmeticError, RecursionError) as error:
            raise _ReaderLost("its reader gave an answer that is none") from error
        except MemoryError:
            return InputError("does not fit in memory", path=request.paths[0])

    def _ready_child(self, paths: Sequence[Path], stop: Event) -> subprocess.Popen[bytes]:
        """Return the process once it waits for requests."""
        for _ in range(_MAX_STARTS):
            self.start()
            child = self._child
            if child is None:
                raise InputError("reading was stopped", path=paths[0] if paths else None)
            if self._is_ready:
                return child
            with suppress(OSError, EOFError, ValueError, _TimedOut):
                self._run_within(_START_TIMEOUT, stop, child, lambda child=child: _read_line(child))  # type: ignore[misc]
                self._is_ready = True
        hint = "python -m biounet.files.isolation.worker shows why"
        raise MachineError("the process that reads images does not start", hint=hint)

    def _run_within(self, seconds: float, stop: Event, child: subprocess.Popen[bytes], talk: Callable[[], T]) -> T:
        """Return the result of `talk` with the process; end the process if it fails, as half an answer may be left.

        It runs in a thread of its own, which is left behind when the process cannot even be killed.

        Raises
        ------
        _TimedOut
            If it takes too long.
        Stopped
            If `stop` is set.
        """
        results: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()
        thread = Thread(target=_put_result, args=(talk, results), daemon=True)
        self._is_busy = True
        thread.start()
        deadline = time.monotonic() + seconds
        try:
            while True:
                with suppress(Empty):
                    result, error = results.get(timeout=min(_POLL, max(0.0, deadline - time.monotonic())))
                    if error is not None:
                        raise error
                    return cast(T, result)
                if stop.is_set():
                    raise Stopped("reading was stopped")
                if self._closed.is_set():
                    raise EOFError
                if time.monotonic() >= deadline:
                    raise _TimedOut
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
            Thread(target=_close_later, args=(thread, child), daemon=True).start()


class ReaderPool:
    """One `IsolatedReader` for each thread that reads at the same time; a context manager that closes them.

    Parameters
    ----------
    count
        Readers to start at once, in the background; more are started when they are needed.
    """

    def __init__(self, count: int = 0) -> None:
        self._readers = [IsolatedReader() for _ in range(count)]
        self._idle = list(self._readers)

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

    def hash_file(self, path: str | Path, stop: Event | None = None) -> str:
        """Return the SHA-256 of a file, as `IsolatedReader.hash_file`; for any number of threads."""
        with self.borrow() as reader:
            return reader.hash_file(path, stop)


class _ReaderLost(Exception):
    """The process ended without an answer."""


class _TimedOut(Exception):
    """The process gave no answer in time."""


def _put_result(talk: Callable[[], T], results: SimpleQueue[tuple[T | None, BaseException | None]]) -> None:
    try:
        results.put((talk(), None))
    except BaseException as error:  # noqa: BLE001 - raised again where the result is waited for
        results.put((None, error))


def _close_pipes(child: subprocess.Popen[bytes]) -> None:
    for pipe in (child.stdin, child.stdout):
        with suppress(OSError):
            cast(BufferedWriter, pipe).close()


def _close_later(thread: Thread, child: subprocess.Popen[bytes]) -> None:
    thread.join()
    child.wait()
    _close_pipes(child)


def _start() -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # each thread takes memory, and no file needs them
    return start_process(_PROGRAM, "to read images in", subprocess.PIPE, environment)


def _read_line(child: subprocess.Popen[bytes]) -> dict[str, Any]:
    line = cast(BufferedReader, child.stdout).readline(_MAX_HEADER)
    if not line.endswith(b"\n"):
        raise EOFError
    return dict(json.loads(line))


def _exchange(child: subprocess.Popen[bytes], request: Request) -> _Answer | BiounetError:
    """Send a request and return the answer.

    Raises
    ------
    EOFError, OSError
        If the process ended.
    ValueError, LookupError, TypeError, ArithmeticError, RecursionError
        If the answer is invalid.
    """
    requests, answers = cast(BufferedWriter, child.stdin), cast(BufferedReader, child.stdout)
    requests.write(request.encode())
    requests.flush()
    fields = _read_line(child)
    if (error := decode_error(fields, request.paths)) is not None:
        return error
    header_only = request.task in ("header", "inspect")
    hashes = decode_hashes(fields, 0 if header_only else len(request.paths))
    if request.task == "hash":
        return _Answer(None, hashes)
    volume = decode_volume(fields, request)
    if header_only:
        axes, source = map(str, fields["axes"])
        return _Answer(volume, hashes, (axes, source))
    array = np.empty(volume.array.shape, volume.array.dtype)
    if answers.readinto(array.data.cast("B")) < array.nbytes:
        raise EOFError
    return _Answer(replace(volume, array=array), hashes)


def _stat(path: Path) -> tuple[int, int] | None:
    try:
        state = path.stat()
    except (OSError, ValueError):
        return None
    return state.st_size, state.st_mtime_ns
