"""What a batch is asked to do, and what becomes of each of its inputs."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from biounet.core import InputError, SettingsError, __version__, home_folder
from biounet.files import FileState, FoundImage, ReaderPool, ReadOptions, SkippedFile, hash_file, natural_key
from biounet.network import Model
from biounet.reporting import Sizes
from biounet.segmentation import SegmentOptions

Status = Literal["ok", "empty", "flagged", "failed"]
_LIKE_ESCAPE = re.compile(r"\\(?=ud[89a-f][0-9a-f]{2}|x5c)")
_ESCAPE = re.compile(r"\\(?:u(?=d[89a-f])|x(?=5c))(?P<code>d[89a-f][0-9a-f]{2}|5c)")


@dataclass(frozen=True)
class BatchOptions:
    """How a batch runs.

    Attributes
    ----------
    read
        How files are read.
    segment
        How images are worked through.
    device
        ``auto``, ``cpu`` or ``cuda[:n]``.
    jobs
        Images at a time; None: one per core on a CPU.
    overlay
        Whether ``<name>_overlay.png`` and the report are written.
    excel
        Whether texts in tables that a spreadsheet would run as a formula get an apostrophe in front.
    shard
        ``(i, n)``: work on the i-th of n parts of the images, as the hashes of their names part them, and when all
        other parts are done on what is left; None: on all.
    fail_fast
        Whether the first image that fails is the last.
    readers
        Processes that read the images, started before; None: own ones, for this batch alone.
    left_out
        What lies beside the images and is no row; for ``run.json``.
    overwrite
        Whether results of another model, settings or input, and label images that somebody changed, are replaced.
    """

    read: ReadOptions = field(default_factory=ReadOptions)
    segment: SegmentOptions = field(default_factory=SegmentOptions)
    device: str = "auto"
    jobs: int | None = None
    overlay: bool = True
    excel: bool = False
    shard: tuple[int, int] | None = None
    fail_fast: bool = False
    readers: ReaderPool | None = None
    left_out: tuple[SkippedFile, ...] = ()
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.shard is not None and not 1 <= self.shard[0] <= self.shard[1]:
            raise SettingsError(f"shard {self.shard[0]} of {self.shard[1]}: counted from 1")


@dataclass(frozen=True)
class Row:
    """What became of one input; the row of ``counts.csv``.

    Attributes
    ----------
    image
        The input as it was given, relative to the input folder where there is one.
    status
        ``ok``; ``empty``: nothing was found, and nothing is odd about it; ``flagged``: done, with something that a user
        should look at; ``failed``.
    count
        Number of objects; None where nothing was measured.
    seconds
        From reading to the last output.
    message
        The error, or the remarks.
    details
        For ``run.json``: shape, spacing, seconds of each stage, threads.
    outputs
        Files that were written, relative to the output folder.
    sizes
        Of the objects that are counted, for the report; None where none are.
    """

    image: str
    status: Status
    count: int | None
    seconds: float
    message: str
    details: dict[str, Any] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    sizes: Sizes | None = field(default=None, repr=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        names = ("image", "status", "count", "message", "outputs")
        return {**{name: getattr(self, name) for name in names}, "seconds": round(self.seconds, 4)}


@dataclass(frozen=True)
class InputFile:
    """A file as it was when it was read.

    Attributes
    ----------
    path
        Relative to the folder of the results, or from the user's home as ``~``: no user is named.
    size, mtime_ns
        Bytes, and the time of its last change.
    sha256
        Of its content; empty where it could not be read.
    """

    path: str
    size: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True)
class Record:
    """A row, and everything that it depends on; a line of ``manifest.jsonl``.

    Attributes
    ----------
    row
        What became of the input.
    inputs
        Its files.
    model, settings
        SHA-256 of the model file and of the settings that outputs depend on.
    outputs
        SHA-256 of each file that was written, by its path relative to the output folder.
    """

    row: Row
    inputs: tuple[InputFile, ...]
    model: str
    settings: str
    outputs: dict[str, str] = field(default_factory=dict)


def settings_of(model: Model, options: BatchOptions) -> dict[str, Any]:
    """Return the settings that the bytes of outputs depend on: not the device, the number of jobs or the blocks."""
    read = asdict(options.read)
    del read["limit"]
    label = options.segment.label or model.card.label
    return {
        "biounet": __version__,
        "read": read,
        "diameter": options.segment.diameter,
        "label": label.model_dump(mode="json", by_alias=True),
        "overlay": options.overlay,
        "excel": options.excel,
    }


def hash_settings(settings: dict[str, Any]) -> str:
    """Return the SHA-256 of settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def name_of(image: FoundImage) -> str:
    """Return the name of an image in tables."""
    return escaped(image.relative.as_posix())


def escaped(text: str) -> str:
    """Return text in which bytes of a file name that are no text are escaped, so that it can be written.

    A backslash that looks like the begin of such an escape becomes one itself: two names stay two, and `unescaped`
    gives them back.
    """
    return _LIKE_ESCAPE.sub(r"\\x5c", text).encode("utf-8", "backslashreplace").decode()


def unescaped(text: str) -> str:
    """Return the text that `escaped` was given."""
    return _ESCAPE.sub(lambda found: chr(int(found["code"], 16)), text)


def in_natural_order(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Key for sorting the names of images as their files are."""
    return natural_key(Path(unescaped(name))), name


def is_in_shard(name: str, shard: tuple[int, int] | None) -> bool:
    """Whether an image belongs to a shard: the hash of its name says so, whatever else there is."""
    if shard is None:
        return True
    first, count = shard
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) % count == first - 1


def inputs_of(files: Sequence[Path], states: Sequence[FileState], out: Path) -> tuple[InputFile, ...]:
    """Return what identifies the content of files that were read, for a record in the folder `out`."""
    return tuple(
        InputFile(path_on_record(path, out), state.size, state.mtime_ns, state.sha256)
        for path, state in zip(files, states, strict=True)
    )


def unread(files: Sequence[Path], out: Path) -> tuple[InputFile, ...]:
    """Return what a record in the folder `out` says of files that could not be read: no hash."""
    found = []
    for path in files:
        try:
            state = path.stat()
            found.append(InputFile(path_on_record(path, out), state.st_size, state.st_mtime_ns, ""))
        except (OSError, ValueError):
            found.append(InputFile(path_on_record(path, out), 0, 0, ""))
    return tuple(found)


def path_on_record(path: Path, out: Path) -> str:
    """Return how records in a folder name a path: from there, or from the user's home when only that is below it."""
    path, out, user = path.absolute(), out.absolute(), home_folder()
    if user and path.is_relative_to(user) and not out.is_relative_to(user):
        return f"~/{path.relative_to(user).as_posix()}"
    try:
        return Path(os.path.relpath(path, out)).as_posix()
    except ValueError:  # another drive of Windows
        return path.as_posix()


def path_of_record(recorded: str, out: Path) -> Path:
    """Return the path that `path_on_record` gave the name of."""
    # Without links: the name was made so, and the folder of the results may be one
    # `os.path.expanduser` leaves the ~ where nobody knows whose it is; Path would raise
    return Path(os.path.normpath(out.absolute() / os.path.expanduser(recorded)))  # noqa: PTH111


def is_same(file: Path, known: InputFile, hash_of: Callable[[Path], str] = hash_file) -> bool:
    """Whether a file has the content it had: size and time are equal, or else the hash is, where it is known.

    `hash_of` gives the hash; that of `biounet.files.ReaderPool` is not held up by a disk that does not answer.
    """
    try:
        now = file.stat()
        if now.st_size != known.size:
            return False
        return now.st_mtime_ns == known.mtime_ns or not known.sha256 or hash_of(file) == known.sha256
    except (OSError, InputError):
        return False


def describe_uncalibrated(rows: Sequence[Row]) -> str:
    """Say of how many images the pixel size is unknown; empty where it is known of all."""
    done = [row for row in rows if row.status != "failed"]
    unknown = sum(row.details.get("spacing") is None for row in done)
    return f"unknown in {unknown} of {len(done)} images" if unknown else ""


def batch_exit_code(rows: Sequence[Row]) -> int:
    """Return 0 when all went well, 3 when some inputs failed, 4 when all did."""
    return failure_exit_code(sum(row.status == "failed" for row in rows), len(rows))


def failure_exit_code(bad: int, total: int) -> int:
    """Return the exit code when some of all inputs are bad."""
    return 0 if not bad else 4 if bad == total else 3
