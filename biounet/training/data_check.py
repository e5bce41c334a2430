"""What would be read of a data set, and everything that is wrong with it, before any training."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from biounet.core import NoteCode, Recipe, Unit, describe_orientations, drop_notes
from biounet.files import ReadOptions, SkippedFile
from biounet.training.planning import describe_plan
from biounet.training.preflight import Annotated, Folders, Preflight


@dataclass(frozen=True)
class CheckedImage:
    """How one image and its annotation are understood.

    Attributes
    ----------
    image
        Path, of several files that of the first channel.
    annotation
        Path; None where it has none.
    files
        Path of the file of each channel, or of the one that holds all.
    shape
        ``(c, [z,] y, x)``.
    dtype
        Of the pixels.
    spacing, unit
        Pixel size, None where unknown.
    orientation
        Where the axes x, y and z of the file lead, such as ``"LPS"``; None where unknown.
    objects
        Number of objects, or of classes that occur; None without annotation.
    labelled
        Share of the pixels that are labelled; None without annotation.
    notes
        Remarks.
    """

    image: str
    annotation: str | None
    files: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    spacing: tuple[float, ...] | None
    unit: Unit | None
    objects: int | None
    labelled: float | None
    notes: tuple[str, ...]
    orientation: str | None = None


@dataclass(frozen=True)
class CheckReport:
    """All images that can be read, all problems, how a training on them would work, and what is not looked at."""

    rows: tuple[CheckedImage, ...]
    problems: tuple[str, ...]
    plan: dict[str, str]
    left_out: tuple[SkippedFile, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        rows = [asdict(row) for row in self.rows]
        left_out = [{"path": str(file.path), "reason": file.reason} for file in self.left_out]
        return {"images": rows, "problems": list(self.problems), "plan": self.plan, "left_out": left_out}

    def as_table(self) -> list[tuple[str, ...]]:
        """Return rows of text, the header first."""
        oriented = any(row.orientation for row in self.rows)
        names = ("image -> annotation", "shape", "type", "pixel size", "orientation", "objects", "labelled", "notes")
        table: list[tuple[str, ...]] = [names if oriented else names[:4] + names[5:]]
        for row in self.rows:
            unit = "µm" if row.unit == "um" else row.unit
            spacing = f"{' x '.join(f'{s:.4g}' for s in row.spacing)} {unit}" if row.spacing else "unknown"
            objects = "" if row.objects is None else str(row.objects)
            share = "" if row.labelled is None else f"{row.labelled:.1%}"
            notes = "; ".join(drop_notes(row.notes, {NoteCode.VOXEL_SIZE_UNKNOWN}))
            shape = " x ".join(map(str, row.shape))
            pair = f"{row.image} -> {row.annotation or 'none'}"
            lies = (row.orientation or "unknown",) if oriented else ()
            table.append((pair, shape, row.dtype, spacing, *lies, objects, share, notes))
        return table


def check_data(
    images: str | Path,
    labels: str | Path | None,
    recipe: Recipe,
    options: ReadOptions | None = None,
    validation: Folders | None = None,
) -> CheckReport:
    """Read a whole data set and list everything that is wrong with it at once.

    Parameters
    ----------
    images, labels
        As for training. Where nothing is annotated, that is a problem, and the images are shown all the same.
    recipe
        Says what annotations hold and which channels are expected.
    options
        How images are read.
    validation
        Images and labels of a validation set: an image in both sets is a problem.
    """
    flight = Preflight((images, labels), recipe, options, validation)
    rows = sorted(((found.number, _describe(found)) for found in flight.read()), key=lambda row: row[0])
    shown = {"orientation": describe_orientations(flight.grids)} if flight.grids else {}
    shown |= describe_plan(flight.recipe, flight.grids[0].unit) if flight.grids and flight.planned else {}
    return CheckReport(tuple(row for _, row in rows), tuple(flight.problems), shown, tuple(flight.left_out))


def _describe(found: Annotated) -> CheckedImage:
    volume, annotation = found.volume, found.annotation
    objects = labelled = None
    if annotation is not None:
        values = np.unique(annotation.labels)
        objects, labelled = int((values > 0).sum()), float(annotation.labelled.mean())
    return CheckedImage(
        image=str(volume.source),
        annotation=None if found.label is None else str(found.label),
        files=tuple(map(str, found.files)),
        shape=volume.array.shape,
        dtype=str(volume.array.dtype),
        spacing=volume.grid.spacing,
        unit=volume.grid.unit,
        objects=objects,
        labelled=labelled,
        notes=_notes(found),
        orientation=volume.grid.axcodes,
    )


def _notes(found: Annotated) -> tuple[str, ...]:
    drawn = found.annotation.notes if found.annotation is not None else ()
    return (*found.volume.notes, *drawn, *([f"the same image as {found.same_as}"] if found.same_as else []))
