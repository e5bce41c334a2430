"""The options of a batch, and the row and record of each of its images."""

from __future__ import annotations

import errno
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from biounet.batch.parts_done import ShowParts
from biounet.batch.recorded_files import InputFile
from biounet.core import (
    PROGRAM_RAM,
    BiounetError,
    Figure,
    MachineError,
    SettingsError,
    Status,
    __version__,
    describe_shortage,
    failure_exit_code,
    is_out_of_memory,
    usable_memory,
)
from biounet.files import ReaderPool, ReadOptions, SkippedFile
from biounet.large_images import parse_cluster
from biounet.measurement import Grouping
from biounet.reporting import SizeHistogram
from biounet.segmentation import SegmentOptions

if TYPE_CHECKING:
    from biounet.network import Model

# Not in the settings of earlier results, which stay valid where these are not used.
_LATER_SETTINGS = {"channels", "measure", "project", "frames"}
LabelFormat = Literal["auto", "tif", "zarr"]
_NAME_ERRORS = {errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ}


@dataclass(frozen=True)
class BatchOptions:
    """How a batch runs.

    Attributes
    ----------
    device
        ``auto``, ``cpu`` or ``cuda[:n]``.
    jobs
        Images at a time; None: one per core.
    overlay
        Whether ``<name>_overlay.png`` and the report are written.
    excel
        Whether texts in tables that a spreadsheet would run as a formula get an apostrophe in front.
    shard
        ``(i, n)``: segment the i-th of n parts of the images, assigned by the hashes of their names; the shard that
        ends last also does what is left of the others. None: all images.
    readers
        Running processes that read the images; None: start some for this batch.
    skipped
        Files beside the images that are not read, for ``run.json``.
    overwrite
        Whether results of another model, settings or input, and label images that somebody changed, are replaced.
    single_file
        Whether the report holds all pictures itself, so that it can be sent by e-mail.
    group
        Groups of the images, for ``groups.csv``; from `biounet.measurement.read_grouping`.
    ram
        Bytes of memory that the batch may take, with all its processes on this machine; None: most of what is free. An
        image that does not fit is worked through in super-blocks.
    label_format
        ``tif``: TIFF, or NIfTI for NIfTI; ``zarr``: OME-Zarr; ``auto``: OME-Zarr of images of more than
        `LARGEST_TIFF` voxels.
    cluster
        Who works on the super-blocks of large images, as ``--cluster``; None: this process.
    on_parts
        Called each time that a part of a large image is done, by any thread; None: a line in the log now and then.
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
    skipped: tuple[SkippedFile, ...] = ()
    overwrite: bool = False
    group: Grouping | None = None
    single_file: bool = False
    ram: int | None = None
    label_format: LabelFormat = "auto"
    cluster: str | None = None
    on_parts: ShowParts | None = None

    def __post_init__(self) -> None:
        if self.single_file and not self.overlay:
            raise SettingsError("a single file of the report, and no report", hint="leave out --no-overlay")
        if self.label_format not in get_args(LabelFormat):
            raise SettingsError(f"format {self.label_format!r}: {', '.join(get_args(LabelFormat))}")
        if self.ram is not None and self.ram <= PROGRAM_RAM:
            hint = f"the program itself takes {PROGRAM_RAM // 2**20} MiB"
            raise SettingsError(f"ram of {self.ram / 2**20:.0f} MiB: too little for any image", hint=hint)
        if self.cluster is not None:
            parse_cluster(self.cluster)
        if self.shard is not None and not 1 <= self.shard[0] <= self.shard[1]:
            raise SettingsError(f"shard {self.shard[0]} of {self.shard[1]}: counted from 1")

    @property
    def image_ram(self) -> int | None:
        """Bytes that images may take beside the program itself; None: most of what is free."""
        return None if self.ram is None else self.ram - PROGRAM_RAM

    @property
    def image_limit(self) -> int | None:
        """Bytes above which an image is not worked on as a whole; None where it is unknown what is free."""
        return usable_memory() if self.image_ram is None else self.image_ram


@dataclass(frozen=True)
class FrameRow:
    """The result of one frame of a time series, whose number in the file is `t`; fields as in `Row`."""

    t: int
    status: Status
    count: int | None
    seconds: float
    message: str
    figures: dict[str, Figure] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """The result of one image; a row of ``counts.csv``, which has one for each frame of a time series instead.

    Attributes
    ----------
    image
        Its path, relative to the input folder where there is one.
    status
        ``flagged``: with a warning, so that a user should look at it; ``empty``: no object, and no warning.
    count
        Number of objects, in all frames together; None where nothing was measured.
    message
        The error, or the notes.
    figures
        Further columns of ``counts.csv`` by their names, from `biounet.segmentation.Segmentation.figures`.
    details
        For ``run.json``: shape, spacing, seconds of each stage, threads.
    outputs
        Files that were written, relative to the output folder.
    """

    image: str
    status: Status
    count: int | None
    seconds: float
    message: str
    details: dict[str, Any] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    sizes: SizeHistogram | None = field(default=None, repr=False, compare=False)
    figures: dict[str, Figure] = field(default_factory=dict)
    frames: tuple[FrameRow, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints: the columns of ``counts.csv``, outputs and frames."""
        names = ("image", "status", "count", "message", "outputs")
        frames = {"frames": [asdict(frame) for frame in self.frames]} if self.frames else {}
        shown = {name: getattr(self, name) for name in names}
        return {**shown, "seconds": round(self.seconds, 4), "figures": self.figures, **frames}

    def table_rows(self) -> list[Row]:
        """Return the rows of ``counts.csv``: itself, or a row for each frame with the figures of both."""
        return [self._frame_row(frame) for frame in self.frames] or [self]

    def _frame_row(self, frame: FrameRow) -> Row:
        figures = {"t": frame.t} | self.figures | frame.figures
        return Row(self.image, frame.status, frame.count, frame.seconds, frame.message, figures=figures)


@dataclass(frozen=True)
class Record:
    """A row and everything that it depends on, as it stands in ``manifest.jsonl``."""

    row: Row
    inputs: tuple[InputFile, ...]
    model: str  # SHA-256 of its file
    settings: str  # SHA-256 of the output settings
    outputs: dict[str, str] = field(default_factory=dict)  # SHA-256 by the path relative to the output folder
    # Of each output when it was written, as `biounet.files.tree_state`; of records of earlier versions none.
    states: tuple[tuple[int, int], ...] = ()


def output_settings(model: Model, options: BatchOptions) -> dict[str, Any]:
    """Return the settings that the bytes of outputs depend on: not the device, the number of jobs or the blocks."""
    from biounet.segmentation import resolve_diameter  # torch is slow to import, and who reads records needs none

    read = asdict(options.read)
    del read["limit"], read["inputs"]
    del read["scene"], read["series"]  # they choose images, whose records name their scenes
    read = {name: value for name, value in read.items() if value or name not in _LATER_SETTINGS}
    diameter = resolve_diameter(options.segment.diameter, model.card)
    label, filters = options.segment.label_settings(model.card.label), options.segment.filters
    return {
        "biounet": __version__,
        "read": read,
        "diameter": None if diameter == "native" else diameter,
        "label": label.model_dump(mode="json", by_alias=True),
        "overlay": options.overlay,
        "excel": options.excel,
        **({"format": options.label_format} if options.label_format != "auto" else {}),
        **({"filters": filters} if filters else {}),
        **({"ring": options.segment.ring} if options.segment.ring else {}),
    }


def hash_settings(settings: Mapping[str, Any]) -> str:
    """Return the SHA-256 of settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


@dataclass
class BatchTotals:
    """What the rows of a batch come to that were added; `objects` is None where nothing was counted."""

    images: int = 0
    failed: int = 0
    objects: int | None = None
    frames: int = 0
    unknown_sizes: int = 0  # images whose pixel size is not known
    in_parts: int = 0  # images that were worked on in super-blocks

    def add(self, row: Row) -> None:
        """Add a row."""
        self.images += 1
        self.frames += len(row.frames)
        self.failed += row.status == "failed"
        self.in_parts += "super_blocks" in row.details
        self.unknown_sizes += row.status != "failed" and row.details.get("spacing") is None
        if row.count is not None:
            self.objects = (self.objects or 0) + row.count

    @property
    def uncalibrated(self) -> str:
        """In how many images the pixel size is unknown, as text; empty where it is known in all."""
        count, total = self.unknown_sizes, self.images - self.failed
        return f"unknown in {count} of {total} images" if count else ""

    @property
    def exit_code(self) -> int:
        """0 when no image failed, 3 when some did, 4 when all did."""
        return failure_exit_code(self.failed, self.images)


def count_arithmetic(rows: Iterable[Row]) -> dict[str, int]:
    """Return how many images were computed in which numbers; those of earlier versions do not say it."""
    return dict(Counter(row.details["arithmetic"] for row in rows if row.details.get("arithmetic")))


def batch_totals(rows: Iterable[Row]) -> BatchTotals:
    """Return what the rows of a batch come to, in one pass: they may be read from a disk."""
    totals = BatchTotals()
    for row in rows:
        totals.add(row)
    return totals


def batch_exit_code(rows: Iterable[Row]) -> int:
    """Return the exit code of a batch: 0 when no image failed, 3 when some did, 4 when all did."""
    return batch_totals(rows).exit_code


def is_about_name(error: MachineError) -> bool:
    """Whether the disk refused the name of this one file: too long, or with a ``:`` on some drives."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in _NAME_ERRORS


def error_text(error: Exception) -> str:
    """Return the cause and hint of an error, without the path, which stands in the row already."""
    if isinstance(error, BiounetError):
        return f"{error.cause} (hint: {error.hint})" if error.hint else error.cause
    if is_out_of_memory(error):
        return describe_shortage(error)
    first_line = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first_line} (hint: a defect of biounet, please report it)"
