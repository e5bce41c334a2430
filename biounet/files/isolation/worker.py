"""The process in which a `Reader` reads: what a codec does to it, it does to no other.

It answers each line of JSON on its standard input with one line of JSON and, after that of a volume, the bytes of its
array. It ends when its input ends, which is when the process that started it closes it or ends itself.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from numpy.typing import NDArray

from biounet.core import BiounetError, Volume
from biounet.files.atomic import hash_file
from biounet.files.axes import ReadOptions
from biounet.files.formats.raw import own_errors
from biounet.files.read import describe_volume, inspect_volume, read_volume

_ROOM = 2**29  # bytes of addresses for the interpreter, the libraries and what they keep
_COPIES = 4  # of an image that live at the same time: compressed, unpacked, scaled, arranged
_GRACE = 30  # seconds after which the process ends itself, should nobody be there to do it


def main() -> None:
    """Answer requests until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started this process decides when it ends
    requests, answers = _take_pipes()
    _answer({"ready": True}, None, answers)
    try:
        for line in requests:
            _answer(*_read(json.loads(line)), answers)
    except BrokenPipeError:
        os._exit(0)  # nobody listens any more; to close the pipe would fail once more


def _take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Return both pipes, and leave to libraries that read or print an empty input and the standard error."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return requests, answers


def _answer(header: dict[str, Any], array: NDArray[Any] | None, answers: BinaryIO) -> None:
    answers.write(json.dumps(header).encode() + b"\n")
    if array is not None:
        answers.write(array.data.cast("B"))
    answers.flush()


def _read(request: dict[str, Any]) -> tuple[dict[str, Any], NDArray[Any] | None]:
    """Return the header of the answer, and the array that follows it."""
    paths = [Path(os.fsdecode(bytes.fromhex(path))) for path in request["paths"]]
    given = request["options"]
    options = ReadOptions(**given | {"spacing": None if given["spacing"] is None else tuple(given["spacing"])})
    if request["folder"]:
        os.chdir(request["folder"])
    _limit_memory(options.limit * max(1, len(paths)))
    if hasattr(signal, "alarm"):
        signal.alarm(int(request["seconds"]) + _GRACE)
    hashes: list[str] = []
    axes = ("", "")
    try:
        if request["do"] in ("read", "hash"):
            hashes = _hash_all(paths[0] if paths else Path(), paths)
        if request["do"] == "hash":
            return {"sha256": hashes}, None
        if request["do"] == "look":
            first = inspect_volume(paths[0], options)
            axes = (first.axes, first.axes_from)
        volume = _read_any(paths[0] if paths else Path(), paths, options, describing=request["do"] != "read")
    except BiounetError as error:
        about = [number for number, path in enumerate(paths) if str(path) == str(error.path)]
        return {
            "error": type(error).__name__,
            "cause": error.cause,
            "path": about[0] if about else None,
            "hint": error.hint,
        }, None
    finally:
        if hasattr(signal, "alarm"):
            signal.alarm(0)
    header = _header(volume) | {"sha256": hashes, "axes": axes}
    return header, volume.array if request["do"] == "read" else None


@own_errors
def _read_any(first: Path, paths: Sequence[Path], options: ReadOptions, *, describing: bool) -> Volume:
    return describe_volume(paths, options) if describing else read_volume(paths, options)


@own_errors
def _hash_all(first: Path, paths: Sequence[Path]) -> list[str]:
    return [hash_file(path) for path in paths]


def _header(volume: Volume) -> dict[str, Any]:
    grid = asdict(volume.grid)
    grid["header"] = None if volume.grid.header is None else volume.grid.header.hex()
    return {"dtype": volume.array.dtype.str, "shape": volume.array.shape, "grid": grid, "notes": volume.notes}


def _limit_memory(image: int) -> None:
    """Make more memory than an image of so many bytes can need an error of this process alone."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    wanted = min(_COPIES * image, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")) + _ROOM
    allowed = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    with suppress(OSError, ValueError):  # macOS refuses
        resource.setrlimit(resource.RLIMIT_AS, (allowed, most))


if __name__ == "__main__":
    main()
