"""The process in which an `IsolatedReader` reads: it answers requests from its standard input until that ends."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from numpy.typing import NDArray

from biounet.core import BiounetError
from biounet.files.axes import split_scenes
from biounet.files.formats.opening import list_scenes
from biounet.files.formats.raw import translate_errors
from biounet.files.isolation.messages import Request, encode_error, encode_scenes, encode_volume
from biounet.files.read import read_header, read_volume
from biounet.files.states import hash_image, image_state

_PROGRAM_BYTES = 2**29  # of addresses: the interpreter, the libraries and their caches
_COPIES = 4  # of an image that exist at the same time: compressed, unpacked, scaled, arranged
_GRACE = 30  # seconds after which the process ends itself, should nobody be there to do it


def main() -> None:
    """Answer requests until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one decides when it ends
    requests, answers = _take_pipes()
    _answer({"ready": True}, (), answers)
    try:
        for line in requests:
            _answer(*_read(Request.decode(line)), answers)
    except BrokenPipeError:
        os._exit(0)  # the other end is closed; closing this one would fail again


def _take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Return both pipes; libraries that read or print get an empty input and the standard error."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.dup2(2, 1)
    return requests, answers


def _answer(fields: dict[str, Any], arrays: Sequence[NDArray[Any]], answers: BinaryIO) -> None:
    answers.write(json.dumps(fields).encode() + b"\n")
    for array in arrays:
        answers.write(array.data.cast("B"))
    answers.flush()


def _read(request: Request) -> tuple[dict[str, Any], Sequence[NDArray[Any]]]:
    """Return the fields of the answer, and the arrays that follow it."""
    paths = request.paths
    if request.folder:
        os.chdir(request.folder)
    _limit_memory(request.options.limit * max(1, len(paths)))
    if hasattr(signal, "alarm"):
        signal.alarm(int(request.seconds) + _GRACE)
    try:
        return _run_task(paths[0] if paths else Path(), request)
    except BiounetError as error:
        return encode_error(error, paths), ()
    finally:
        if hasattr(signal, "alarm"):
            signal.alarm(0)


@translate_errors
def _run_task(first: Path, request: Request) -> tuple[dict[str, Any], Sequence[NDArray[Any]]]:
    if request.task == "header":
        header, info = read_header(request.paths, request.options)
        return encode_volume(header) | {"sha256": [], "axes": (info.axes, info.axes_source)}, ()
    if request.task == "scenes":
        return encode_scenes(list_scenes(first)), ()
    scenes = split_scenes(request.options.scene, len(request.paths))
    parts = [*zip(request.paths, scenes, strict=True)]
    if request.task == "hash":
        return {"sha256": _hashes(parts)}, ()
    volume = read_volume(request.paths, request.options)
    # After reading: what cannot be read is not hashed, and the disk is read once, as the system keeps what it has read.
    return encode_volume(volume) | {"sha256": _hashes(parts)}, (volume.array, *volume.measured.values())


def _hashes(parts: Sequence[tuple[Path, str]]) -> list[str]:
    """Return the SHA-256 of images; the scenes of a file have its hash, those of a folder are files of their own."""
    return [_hash_once(path, scene if path.is_dir() else "", *image_state(path, scene)) for path, scene in parts]


@lru_cache(maxsize=8)
def _hash_once(path: Path, scene: str, size: int, mtime_ns: int) -> str:
    """Return the SHA-256 of an image in this state: the file of many scenes is read many times."""
    return hash_image(path, scene)


def _limit_memory(image: int) -> None:
    """Limit this process to the memory that an image of so many bytes can need."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = min(_COPIES * image, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")) + _PROGRAM_BYTES
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    with suppress(OSError, ValueError):  # macOS refuses
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


if __name__ == "__main__":
    main()
