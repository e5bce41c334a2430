"""Reading in another process: a codec that crashes, hangs or asks for all memory costs one file and not the batch.

So does a disk that never answers: the process that waits for it can be given up, a thread could not.

What comes back is numbers and text, never objects: whoever takes the other process over gets no code into this one.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from io import BufferedReader, BufferedWriter
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread
from typing import Any, Literal, TypeVar, cast

import numpy as np

from biounet.core import BiounetError, Grid, InputError, MachineError, SettingsError, Stopped, Volume
from biounet.files.axes import ReadOptions

T = TypeVar("T")

_SECONDS = 60.0
_BYTES_PER_SECOND = 10e6  # of a file, on a slow disk
_START = 300.0  # seconds that a busy machine may take to start Python
_STARTS = 3
_PAUSE = 2.0
_COLOURS = 3  # bytes that a palette makes of one
_LONGEST = 2**20  # bytes of the header of an answer
_LOOK = 0.1  # seconds between looks at whether work is to end
_DYING = 2.0  # seconds that a killed process may take to be gone; one that waits for a disk is not, and is left alone
_TYPES = {np.dtype(code).str: np.dtype(code) for code in "bBhHiIlLqQfd"}
_KINDS: dict[str, type[BiounetError]] = {kind.__name__: kind for kind in (InputError, SettingsError)}
_HASH = re.compile("[0-9a-f]{64}")
_PROGRAM = (
    "import sys; root = sys.argv[1]; root in sys.path or sys.path.insert(0, root); "
    "from biounet.files.isolation.worker import main; main()"
)


@dataclass(frozen=True)
class FileState:
    """A file as it was when it was read.

    Attributes
    ----------
    size, mtime_ns
        Bytes, and the time of its last change.
    sha256
        Of its content.
    """

    size: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True)
class _Request:
    """What is asked of the process: the image, what its headers say of it, with its axes, or its hash alone."""

    do: Literal["read", "describe", "look", "hash"]
    options: ReadOptions
    stop: Event


@dataclass(frozen=True)
class _Answer:
    volume: Volume | None
    hashes: tuple[str, ...]
    axes: tuple[str, str] = ("", "")


class Reader:
    """Reads images in a process of its own, which is kept between files and replaced when a file ends it.

    For one thread; others may call `close`.

    Parameters
    ----------
    seconds
        Time that a file may take, beside a second for each 10 MB of it.
    pause
        Seconds after which a file that changed while it was read is read again.
    """

    def __init__(self, seconds: float = _SECONDS, pause: float = _PAUSE) -> None:
        self._seconds, self._pause = seconds, pause
        self._child: subprocess.Popen[bytes] | None = None
        self._greeted = self._talking = False
        self._closed, self._lock = Event(), Lock()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the process without waiting for it, so that the first file need not.

        Raises
        ------
        MachineError
            If no process can be started.
        """
        with self._lock:
            if self._child is None and not self._closed.is_set():
                self._child, self._greeted = _start(), False

    def close(self) -> None:
        """End the process; a read that goes on in another thread ends with an error."""
        self._closed.set()
        with self._lock:
            child, talking = self._child, self._talking
        if child is not None and talking:
            child.kill()  # the thread that waits for its answer does the rest
        else:
            self._end()

    def read(self, path: str | Path | Sequence[str | Path], options: ReadOptions | None = None) -> Volume:
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
        self, path: str | Path | Sequence[str | Path], options: ReadOptions | None = None, stop: Event | None = None
    ) -> tuple[Volume, tuple[FileState, ...]]:
        """Read an image, and return with it the state of each of its files; errors as of `read`, and `Stopped`."""
        answer, stamps = self._settled(path, _Request("read", options or ReadOptions(), stop or Event()))
        return cast(Volume, answer.volume), tuple(map(FileState, *zip(*stamps, strict=True), answer.hashes))

    def describe(
        self, path: str | Path | Sequence[str | Path], options: ReadOptions | None = None, stop: Event | None = None
    ) -> Volume:
        """Return what `read` would, from the headers alone: with pixels that are all 0 and take no memory."""
        answer = self._settled(path, _Request("describe", options or ReadOptions(), stop or Event()))[0]
        return cast(Volume, answer.volume)

    def look(self, paths: Sequence[Path], options: ReadOptions) -> tuple[Volume, tuple[str, str]]:
        """Return what `inspect_volume` does, and the axes of the array in the first file with how they are known."""
        answer = self._settled(paths, _Request("look", options, Event()))[0]
        return cast(Volume, answer.volume), answer.axes

    def hash_file(self, path: str | Path, stop: Event | None = None) -> str:
        """Return the SHA-256 of a file; errors as of `read`."""
        return self._settled(path, _Request("hash", ReadOptions(), stop or Event()))[0].hashes[0]

    def _settled(
        self, path: str | Path | Sequence[str | Path], request: _Request
    ) -> tuple[_Answer, list[tuple[int, int]]]:
        """Return the answer about files that did not change meanwhile, and their sizes and times."""
        paths = [Path(path)] if isinstance(path, str | Path) else [Path(file) for file in path]
        for wait in (True, False):
            before = [_stamp(file) for file in paths]
            result = self._try_twice(paths, request)
            changed = [file for file, stamp in zip(paths, before, strict=True) if _stamp(file) != stamp]
            if not changed:
                break
            if wait:
                request.stop.wait(self._pause)
        else:
            raise InputError("it changes while it is read", path=changed[0], hint="try again when it is written")
        if isinstance(result, BiounetError):
            raise result
        return result, [stamp or (0, 0) for stamp in before]

    def _try_twice(self, paths: Sequence[Path], request: _Request) -> _Answer | BiounetError:
        with suppress(_Lost):
            return self._try(paths, request)
        try:
            return self._try(paths, request)
        except _Lost as lost:
            hint = "the file is damaged, or needs more memory or time than there is"
            return InputError(str(lost), path=paths[0], hint=hint)

    def _try(self, paths: Sequence[Path], request: _Request) -> _Answer | BiounetError:
        """Return what the process answers.

        Raises
        ------
        _Lost
            If it does not; a new one is started for the next file.
        Stopped
            If work is to end.
        """
        child = self._greet(paths, request.stop)
        seconds = self._seconds + sum(stamp[0] for stamp in map(_stamp, paths) if stamp) / _BYTES_PER_SECOND
        asked = {
            "do": request.do,
            "paths": [os.fsencode(path).hex() for path in paths],
            "options": asdict(request.options),
            "folder": "" if all(path.is_absolute() for path in paths) else str(Path.cwd()),
            "seconds": seconds,
        }
        line = json.dumps(asked, default=np.generic.item).encode() + b"\n"
        try:
            return self._within(seconds, request.stop, child, lambda: _ask(child, line, paths, request))
        except _Late:
            hint = "the disk does not answer, or the file needs more time than its size allows"
            return InputError(f"could not be read in {seconds:.0f} s", path=paths[0], hint=hint)
        except (OSError, EOFError):
            code = child.poll() or 0
            raise _Lost(
                f"its reader crashed twice ({f'signal {-code}' if code < 0 else f'exit code {code}'})"
            ) from None
        except (ValueError, LookupError, TypeError, ArithmeticError, RecursionError) as error:
            raise _Lost("its reader gave an answer that is none") from error
        except MemoryError:
            return InputError("does not fit in memory", path=paths[0])

    def _greet(self, paths: Sequence[Path], stop: Event) -> subprocess.Popen[bytes]:
        """Return the process, once it waits for requests."""
        for _ in range(_STARTS + 1):
            self.start()
            child = self._child
            if child is None:
                raise InputError("reading was stopped", path=paths[0] if paths else None)
            if self._greeted:
                return child
            with suppress(OSError, EOFError, ValueError, _Late):
                self._within(_START, stop, child, lambda child=child: _line(child))  # type: ignore[misc]
                self._greeted = True
        hint = "python -m biounet.files.isolation.worker shows why"
        raise MachineError("the process that reads images does not start", hint=hint)

    def _within(self, seconds: float, stop: Event, child: subprocess.Popen[bytes], talk: Callable[[], T]) -> T:
        """Return what a talk with the process gives; end the process if that fails: half an answer may be in the pipe.

        The talk is in a thread of its own, which is left behind when the process cannot even be killed.

        Raises
        ------
        _Late
            If it takes too long.
        Stopped
            If work is to end.
        """
        answers: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()
        thread = Thread(target=_tell, args=(talk, answers), daemon=True)
        self._talking = True
        thread.start()
        until = time.monotonic() + seconds
        try:
            while True:
                with suppress(Empty):
                    result, error = answers.get(timeout=min(_LOOK, max(0.0, until - time.monotonic())))
                    if error is not None:
                        raise error
                    return cast(T, result)
                if stop.is_set():
                    raise Stopped("reading was stopped")
                if self._closed.is_set():
                    raise EOFError
                if time.monotonic() >= until:
                    raise _Late
        except BaseException:
            self._end(thread)
            raise
        finally:
            self._talking = False

    def _end(self, thread: Thread | None = None) -> None:
        """End the process; its pipes are closed when nobody reads from them any more."""
        with self._lock:
            child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        with suppress(subprocess.TimeoutExpired):
            child.wait(_DYING)
        if thread is not None:
            thread.join(_DYING)
        if thread is None or not thread.is_alive():
            _close(child)
        else:
            Thread(target=_close_after, args=(thread, child), daemon=True).start()


class Readers:
    """As many `Reader` as threads read at the same time; a context manager that closes them.

    Parameters
    ----------
    count
        How many start at once, while other things are made ready; more start when they are needed.
    """

    def __init__(self, count: int = 0) -> None:
        self._all = [Reader() for _ in range(count)]
        self._idle = list(self._all)

    def __enter__(self) -> Readers:
        for reader in self._all:
            reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        for reader in self._all:
            reader.close()

    @contextmanager
    def one(self) -> Iterator[Reader]:
        """Give a reader that no other thread has meanwhile."""
        try:
            reader = self._idle.pop()
        except IndexError:
            reader = Reader()
            self._all.append(reader)
        try:
            yield reader
        finally:
            self._idle.append(reader)

    def read(self, path: str | Path | Sequence[str | Path], options: ReadOptions | None = None) -> Volume:
        """Read an image, as `Reader.read` does; for any number of threads."""
        with self.one() as reader:
            return reader.read(path, options)

    def hash_file(self, path: str | Path, stop: Event | None = None) -> str:
        """Return the SHA-256 of a file, as `Reader.hash_file` does; for any number of threads."""
        with self.one() as reader:
            return reader.hash_file(path, stop)


class _Lost(Exception):
    """The process ended without an answer."""


class _Late(Exception):
    """The process gave no answer in time."""


def _tell(talk: Callable[[], T], answers: SimpleQueue[tuple[T | None, BaseException | None]]) -> None:
    try:
        answers.put((talk(), None))
    except BaseException as error:  # noqa: BLE001 - raised again where the answer is waited for
        answers.put((None, error))


def _close(child: subprocess.Popen[bytes]) -> None:
    for pipe in (child.stdin, child.stdout):
        with suppress(OSError):
            cast(BufferedWriter, pipe).close()


def _close_after(thread: Thread, child: subprocess.Popen[bytes]) -> None:
    thread.join()
    child.wait()
    _close(child)


def _start() -> subprocess.Popen[bytes]:
    # -P: a folder of images with a file numpy.py in it does not become a part of the program.
    command = [sys.executable, "-P", "-c", _PROGRAM, str(Path(__file__).parents[3])]
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # a pipe that nobody reads would fill
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # each takes memory, and no file needs them
            start_new_session=True,  # Ctrl-C in a terminal is for the process that decides
        )
    except OSError as error:
        raise MachineError(f"no process to read images in can be started: {error.strerror}") from error


def _line(child: subprocess.Popen[bytes]) -> dict[str, Any]:
    line = cast(BufferedReader, child.stdout).readline(_LONGEST)
    if not line.endswith(b"\n"):
        raise EOFError
    return dict(json.loads(line))


def _ask(
    child: subprocess.Popen[bytes], line: bytes, paths: Sequence[Path], request: _Request
) -> _Answer | BiounetError:
    requests, answers = cast(BufferedWriter, child.stdin), cast(BufferedReader, child.stdout)
    requests.write(line)
    requests.flush()
    header = _line(child)
    if "error" in header:
        about, hint = header["path"], header["hint"]
        path = None if about is None else paths[int(about)]
        return _KINDS[header["error"]](str(header["cause"]), path=path, hint=None if hint is None else str(hint))
    hashes = tuple(map(str, header["sha256"]))
    headers_only = request.do in ("describe", "look")
    if len(hashes) != (0 if headers_only else len(paths)) or not all(map(_HASH.fullmatch, hashes)):
        raise ValueError
    if request.do == "hash":
        return _Answer(None, hashes)
    dtype, shape = _TYPES[header["dtype"]], tuple(header["shape"])
    grid = _grid(header["grid"])
    if shape[1:] != grid.shape or not isinstance(shape[0], int) or shape[0] < 1:
        raise ValueError
    if math.prod(shape) * dtype.itemsize > _COLOURS * request.options.limit * len(paths):
        raise ValueError
    notes = tuple(map(str, header["notes"]))
    if headers_only:
        axes, axes_from = map(str, header["axes"])
        blank = np.broadcast_to(np.zeros((), dtype), shape)
        return _Answer(Volume(blank, grid, paths[0], notes), hashes, (axes, axes_from))
    array = np.empty(shape, dtype)
    if answers.readinto(array.data.cast("B")) < array.nbytes:
        raise EOFError
    return _Answer(Volume(array, grid, paths[0], notes), hashes)


def _grid(said: dict[str, Any]) -> Grid:
    spacing, affine, header = said["spacing"], said["affine"], said["header"]
    if said["unit"] not in (None, "um", "mm") or not all(isinstance(length, int) for length in said["shape"]):
        raise ValueError
    if not isinstance(said["frame"], str):
        raise TypeError
    return Grid(
        tuple(said["shape"]),
        None if spacing is None else tuple(map(float, spacing)),
        said["unit"],
        None if affine is None else tuple(tuple(map(float, row)) for row in affine),
        None if header is None else bytes.fromhex(header),
        None if said["axcodes"] is None else str(said["axcodes"]),
        said["frame"],
    )


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        state = path.stat()
    except (OSError, ValueError):
        return None
    return state.st_size, state.st_mtime_ns
