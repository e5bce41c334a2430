"""Many images: one row each, whatever happens to one of them.

Outputs of an image appear whole or not at all, and the table names every input.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

import biounet
from biounet.errors import BiounetError, InputError, MachineError
from biounet.files import FoundImage, ReadOptions, label_suffix, read_volume, write_labels, write_picture, write_text
from biounet.measure import columns_to_csv
from biounet.model import Model
from biounet.overlay import draw_overlay
from biounet.predict import Predictor, make_predictor
from biounet.report import ReportRow, Sizes, object_sizes, write_report
from biounet.segment import Segmentation, SegmentOptions, segment
from biounet.volume_overlay import draw_volume

_CLASS_FILL = 0.35  # opacity of the colours of classes in overlays

Status = Literal["ok", "empty", "flagged", "failed"]


@dataclass(frozen=True)
class Row:
    """What became of one input; the row of ``counts.csv``.

    Attributes
    ----------
    image
        The input as it was given, relative to the input folder where there is one.
    status
        ``ok``; ``empty``: nothing was found; ``flagged``: done, with something that a user should look at; ``failed``.
    count
        Number of objects; None where nothing was measured.
    seconds
        From reading to the last output.
    message
        The error, or the remarks.
    details
        For ``run.json``: shape, spacing, seconds of each stage, outputs.
    sizes
        Of the objects that are counted, for the report; None where none are.
    """

    image: str
    status: Status
    count: int | None
    seconds: float
    message: str
    details: dict[str, Any] = field(default_factory=dict)
    sizes: Sizes | None = field(default=None, repr=False, compare=False)


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
    """

    read: ReadOptions = field(default_factory=ReadOptions)
    segment: SegmentOptions = field(default_factory=SegmentOptions)
    device: str = "auto"
    jobs: int | None = None
    overlay: bool = True


def segment_batch(
    images: Sequence[FoundImage],
    model: Model,
    out: Path,
    options: BatchOptions | None = None,
    report: Callable[[Row], None] = lambda row: None,
) -> list[Row]:
    """Segment images into a folder.

    Parameters
    ----------
    images
        From `biounet.files.find_images`.
    model
        The model.
    out
        Folder of the results; the input tree is mirrored below it.
    options
        How.
    report
        Called with each row as its image is done, in the order of completion, never twice at a time.

    Returns
    -------
    One row per image, in the order of `images`.

    Raises
    ------
    MachineError
        If the output folder cannot be written to; nothing has been read by then. A full disk later fails each image.
    """
    options = options or BatchOptions()
    _refuse_collisions(images)
    _make_folder(out)
    predictor = make_predictor(model.network, options.device, softmax=model.card.recipe.data.exclusive)
    jobs = _jobs(options.jobs, len(images), predictor)
    threads = torch.get_num_threads()
    started, one_at_a_time = time.time(), Lock()

    def work(image: FoundImage) -> Row:
        if predictor.device.type == "cpu":
            torch.set_num_threads(max(1, threads // jobs))
        row = segment_file(image, model, predictor, out, options)
        with one_at_a_time:
            report(row)
        return row

    with ThreadPoolExecutor(jobs) as pool:
        rows = list(pool.map(work, images))
    torch.set_num_threads(threads)
    write_summary(rows, model, out, replace(options, device=str(predictor.device), jobs=jobs), started)
    return rows


def segment_file(image: FoundImage, model: Model, predictor: Predictor, out: Path, options: BatchOptions) -> Row:
    """Segment one file and write its outputs; an error becomes a row."""
    name, began = image.relative.as_posix(), time.perf_counter()
    try:
        volume = read_volume(image.files(), options.read)
        found = segment(volume, predictor, model.card, options.segment)
        outputs = write_outputs(found, out / image.relative.parent, image.stem, overlay=options.overlay)
    except BiounetError as error:
        return Row(name, "failed", None, time.perf_counter() - began, _own_words(error))
    except MemoryError:
        return Row(name, "failed", None, time.perf_counter() - began, "not enough memory (hint: try --block 512)")
    grid = volume.grid
    details = {
        "shape": volume.array.shape,
        "spacing": grid.spacing,
        "unit": grid.unit,
        "seconds": found.seconds,
        "outputs": [path.relative_to(out).as_posix() for path in outputs],
    }
    sizes = None if found.count is None else object_sizes(found.columns)
    status: Status = "empty" if found.count == 0 else "flagged" if found.notes else "ok"
    return Row(name, status, found.count, time.perf_counter() - began, "; ".join(found.notes), details, sizes)


def write_outputs(found: Segmentation, folder: Path, stem: str, *, overlay: bool = True) -> list[Path]:
    """Write label image, table and overlay of one image; return their paths, the label image last.

    The label image comes last, so that where it is, everything is.
    """
    _make_folder(folder)
    endings = ("_objects.csv", "_overlay.png", label_suffix(found.volume.grid))
    table, picture, labels = (folder / f"{stem}{end}" for end in endings)
    write_text(table, columns_to_csv(found.columns))
    if overlay:
        write_picture(picture, picture_of(found))
    write_labels(labels, found.labels, found.volume.grid)
    return [table, picture, labels] if overlay else [table, labels]


def picture_of(found: Segmentation) -> NDArray[np.uint8]:
    """Draw what was found, RGB, shape ``(y, x, 3)``: outlines of objects, or coloured classes."""
    volume, fill = found.volume, _CLASS_FILL if "class" in found.columns else 0.0
    if volume.grid.dims == 3:
        return draw_volume(volume.array, found.labels, volume.grid, fill=fill)
    return draw_overlay(volume.array, found.labels, fill=fill)


def write_summary(rows: Sequence[Row], model: Model, out: Path, options: BatchOptions, started: float) -> None:
    """Write ``counts.csv``, ``run.json`` and, with overlays, ``report.html``."""
    columns: dict[str, Any] = {
        "image": np.array([row.image for row in rows], dtype=object),
        "status": np.array([row.status for row in rows], dtype=object),
        "count": np.array(["" if row.count is None else str(row.count) for row in rows], dtype=object),
        "seconds": np.array([round(row.seconds, 4) for row in rows]),
        "message": np.array([row.message for row in rows], dtype=object),
    }
    write_text(out / "counts.csv", columns_to_csv(columns))
    write_text(out / "run.json", json.dumps(_run_record(rows, model, options, started), indent=1) + "\n")
    if options.overlay:
        shown = [
            ReportRow(row.image, row.status, row.count, row.seconds, row.message, _overlay_of(row), row.sizes)
            for row in rows
        ]
        title = f"{model.card.recipe.name}: {len(rows)} images"
        write_report(out / "report.html", shown, title=title, settings=_shown_settings(model, options))


def exit_code(rows: Sequence[Row]) -> int:
    """Return 0 when all went well, 3 when some inputs failed, 4 when all did."""
    failed = sum(row.status == "failed" for row in rows)
    return 0 if not failed else 4 if failed == len(rows) else 3


def _run_record(rows: Sequence[Row], model: Model, options: BatchOptions, started: float) -> dict[str, Any]:
    settings = asdict(replace(options, segment=replace(options.segment, executor=None, label=None)))
    settings["segment"]["label"] = (options.segment.label or model.card.label).model_dump()
    return {
        "biounet": biounet.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "command": sys.argv[1:],
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 3),
        "threads": torch.get_num_threads(),
        "model": {"name": model.card.recipe.name, "sha256": model.sha256},
        "settings": settings,
        "images": [{**asdict(replace(row, sizes=None)), **row.details, "details": None} for row in rows],
    }


def _shown_settings(model: Model, options: BatchOptions) -> dict[str, str]:
    """Return the settings that the report shows: those that the result depends on, and where it was made."""
    data, label = model.card.recipe.data, options.segment.label or model.card.label
    shown = {"model": f"{model.card.recipe.name} ({model.sha256[:12]})", "channels": ", ".join(model.card.inputs)}
    if not data.exclusive:
        shown["foreground"] = f"{label.foreground:g}"
    if data.kind == "instances":
        shown |= {name: f"{getattr(label, name):g}" for name in ("contour", "join", "summit")}
        unit = "voxels" if label.min_size_unit == "px" else {2: "µm²", 3: "µm³"}[data.dims]
        shown["smallest object"] = f"{label.min_size:g} {unit}"
        shown["holes"] = "filled" if label.fill_holes else "kept"
    sizes = {"diameter": options.segment.diameter, "block": options.segment.block}
    shown |= {name: f"{value:g} px" for name, value in sizes.items() if value is not None}
    return {**shown, "device": options.device, "biounet": biounet.__version__}


def _overlay_of(row: Row) -> str | None:
    return next((path for path in row.details.get("outputs", []) if path.endswith("_overlay.png")), None)


def _own_words(error: BiounetError) -> str:
    """Return cause and hint; the row names the file already."""
    return f"{error.cause} (hint: {error.hint})" if error.hint else error.cause


def _refuse_collisions(images: Sequence[FoundImage]) -> None:
    """Two inputs must not write to the same names; a file system may not tell case apart."""
    seen: dict[str, FoundImage] = {}
    for image in images:
        key = (image.relative.parent / image.stem).as_posix().casefold()
        if key in seen:
            cause = f"its results would have the names of those of {seen[key].path}"
            raise InputError(cause, path=image.path, hint="rename one, or segment them into different folders")
        seen[key] = image


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(f"cannot make this folder: {error.strerror}", path=folder) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise MachineError("cannot write into this folder", path=folder, hint="choose another with -o")


def _jobs(wanted: int | None, images: int, predictor: Predictor) -> int:
    if wanted is None:
        wanted = (os.cpu_count() or 1) if predictor.device.type == "cpu" else 2
    return max(1, min(wanted, images, 32))
