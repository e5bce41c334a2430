"""Reading in another process: a codec that crashes, hangs or asks for all memory costs one file and not the batch.

What comes back is numbers and text, never objects: whoever takes the other process over gets no code into this one.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from io import BufferedReader, BufferedWriter
from pathlib import Path
from threading import Event, Lock, Timer
from typing import Any, cast

import numpy as np

from biounet.errors import BiounetError, InputError, MachineError, SettingsError
from biounet.files.axes import ReadOptions
from biounet.volume import Grid, Volume

_SECONDS = 60.0
_BYTES_PER_SECOND = 10e6  # of a file, on a slow disk
_START = 300.0  # seconds that a busy machine may take to start Python
_STARTS = 3
_PAUSE = 2.0
_COLOURS = 3  # bytes that a palette makes of one
_LONGEST = 2**20  # bytes of the header of an answer
_TYPES = {np.dtype(code).str: np.dtype(code) for code in "bBhHiIlLqQfd"}
_KINDS: dict[str, type[BiounetError]] = {kind.__name__: kind for kind in (InputError, SettingsError)}
_PROGRAM = (
    "import sys; root = sys.argv[1]; root in sys.path or sys.path.insert(0, root); "
    "from biounet.files.reader_process import main; main()"
)


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
        self._greeted = False
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
        paths = [Path(path)] if isinstance(path, str | Path) else [Path(file) for file in path]
        for wait in (True, False):
            before = [_stamp(file) for file in paths]
            result = self._try_twice(paths, options or ReadOptions())
            changed = [file for file, stamp in zip(paths, before, strict=True) if _stamp(file) != stamp]
            if not changed:
                break
            if wait:
                self._closed.wait(self._pause)
        else:
            raise InputError("it changes while it is read", path=changed[0], hint="try again when it is written")
        if isinstance(result, BiounetError):
            raise result
        return result

    def _try_twice(self, paths: Sequence[Path], options: ReadOptions) -> Volume | BiounetError:
        with suppress(_Lost):
            return self._try(paths, options)
        try:
            return self._try(paths, options)
        except _Lost as lost:
            hint = "the file is damaged, or needs more memory or time than there is"
            return InputError(str(lost), path=paths[0], hint=hint)

    def _try(self, paths: Sequence[Path], options: ReadOptions) -> Volume | BiounetError:
        """Return what the process answers.

        Raises
        ------
        _Lost
            If it does not; a new one is started for the next file.
        """
        child = self._greet(paths)
        seconds = self._seconds + sum(stamp[0] for stamp in map(_stamp, paths) if stamp) / _BYTES_PER_SECOND
        request = {
            "paths": [os.fsencode(path).hex() for path in paths],
            "options": asdict(options),
            "folder": "" if all(path.is_absolute() for path in paths) else str(Path.cwd()),
            "seconds": seconds,
        }
        line = json.dumps(request, default=np.generic.item).encode() + b"\n"
        began = time.monotonic()
        try:
            with self._ended_unless_done(child, seconds):
                return _ask(child, line, paths, options)
        except (OSError, EOFError):
            if time.monotonic() - began >= seconds:
                raise _Lost(f"could not be read in {seconds:.0f} s") from None
            code = child.returncode
            raise _Lost(
                f"its reader crashed twice ({f'signal {-code}' if code < 0 else f'exit code {code}'})"
            ) from None
        except (ValueError, LookupError, TypeError, ArithmeticError, RecursionError) as error:
            raise _Lost("its reader gave an answer that is none") from error
        except MemoryError:
            return InputError("does not fit in memory", path=paths[0])

    def _greet(self, paths: Sequence[Path]) -> subprocess.Popen[bytes]:
        """Return the process, once it waits for requests."""
        for _ in range(_STARTS + 1):
            self.start()
            child = self._child
            if child is None:
                raise InputError("reading was stopped", path=paths[0] if paths else None)
            if self._greeted:
                return child
            with suppress(OSError, EOFError, ValueError), self._ended_unless_done(child, _START):
                _line(child)
                self._greeted = True
        hint = "python -m biounet.files.reader_process shows why"
        raise MachineError("the process that reads images does not start", hint=hint)

    @contextmanager
    def _ended_unless_done(self, child: subprocess.Popen[bytes], seconds: float) -> Iterator[None]:
        """End the process if the block takes too long, or ends with any error: half an answer may be in the pipe."""
        timer = Timer(seconds, child.kill)
        timer.daemon = True
        with ExitStack() as stack:
            stack.callback(self._end)
            timer.start()
            try:
                yield
            finally:
                timer.cancel()
            stack.pop_all()

    def _end(self) -> None:
        with self._lock:
            child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            with suppress(OSError):
                cast(BufferedWriter, pipe).close()


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

    def read(self, path: str | Path | Sequence[str | Path], options: ReadOptions | None = None) -> Volume:
        """Read an image, as `Reader.read` does; for any number of threads."""
        try:
            reader = self._idle.pop()
        except IndexError:
            reader = Reader()
            self._all.append(reader)
        try:
            return reader.read(path, options)
        finally:
            self._idle.append(reader)


class _Lost(Exception):
    """The process ended, or was ended, without an answer."""


def _start() -> subprocess.Popen[bytes]:
    # -P: a folder of images with a file numpy.py in it does not become a part of the program.
    command = [sys.executable, "-P", "-c", _PROGRAM, str(Path(__file__).parents[2])]
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
    child: subprocess.Popen[bytes], request: bytes, paths: Sequence[Path], options: ReadOptions
) -> Volume | BiounetError:
    requests, answers = cast(BufferedWriter, child.stdin), cast(BufferedReader, child.stdout)
    requests.write(request)
    requests.flush()
    header = _line(child)
    if "error" in header:
        about, hint = header["path"], header["hint"]
        path = None if about is None else paths[int(about)]
        return _KINDS[header["error"]](str(header["cause"]), path=path, hint=None if hint is None else str(hint))
    dtype, shape = _TYPES[header["dtype"]], tuple(header["shape"])
    grid = _grid(header["grid"])
    if shape[1:] != grid.shape or not isinstance(shape[0], int) or shape[0] < 1:
        raise ValueError
    if math.prod(shape) * dtype.itemsize > _COLOURS * options.limit * len(paths):
        raise ValueError
    array = np.empty(shape, dtype)
    if answers.readinto(array.data.cast("B")) < array.nbytes:
        raise EOFError
    return Volume(array, grid, paths[0], tuple(map(str, header["notes"])))


def _grid(said: dict[str, Any]) -> Grid:
    spacing, affine, header = said["spacing"], said["affine"], said["header"]
    if said["unit"] not in (None, "um", "mm") or not all(isinstance(length, int) for length in said["shape"]):
        raise ValueError
    return Grid(
        tuple(said["shape"]),
        None if spacing is None else tuple(map(float, spacing)),
        said["unit"],
        None if affine is None else tuple(tuple(map(float, row)) for row in affine),
        None if header is None else bytes.fromhex(header),
    )


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        state = path.stat()
    except (OSError, ValueError):
        return None
    return state.st_size, state.st_mtime_ns
