"""How a data set would be read, and everything that is wrong with it, before any training."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from biounet.core import NoteCode, Recipe, Unit, describe_orientations, drop_notes
from biounet.files import ReadOptions, SkippedFile
from biounet.training.planning import describe_plan
from biounet.training.training_data import AnnotatedImage, Folders, TrainingData


@dataclass(frozen=True)
class CheckedImage:
    """How one image and its annotation are read.

    `files` holds the path of each channel, `shape` is ``(c, [z,] y, x)``, and `orientation` the directions of the axes
    x, y and z of the file, such as ``"LPS"``. `objects` counts objects, or the classes that occur; `labelled` is the
    share of labelled pixels. Both are None without an annotation, as is `annotation`; None elsewhere means unknown.
    `format` is that of the annotation, and `overlaps` the number of pairs of outlines in it that overlap, None of a
    label image.
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
    format: str | None = None
    overlaps: int | None = None


@dataclass(frozen=True)
class CheckReport:
    """All images that can be read, all problems, the plan of a training on them, and files that were skipped."""

    rows: tuple[CheckedImage, ...]
    problems: tuple[str, ...]
    plan: dict[str, str]
    skipped: tuple[SkippedFile, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        rows = [asdict(row) for row in self.rows]
        skipped = [{"path": str(file.path), "reason": file.reason} for file in self.skipped]
        return {"images": rows, "problems": list(self.problems), "plan": self.plan, "left_out": skipped}

    def as_table(self) -> list[tuple[str, ...]]:
        """Return rows of text, the header first."""
        names = ("image -> annotation", "shape", "type", "pixel size", "orientation", "annotation")
        table: list[tuple[str, ...]] = [(*names, "objects", "overlaps", "labelled", "notes")]
        for row in self.rows:
            unit = "µm" if row.unit == "um" else row.unit
            spacing = f"{' x '.join(f'{s:.4g}' for s in row.spacing)} {unit}" if row.spacing else "unknown"
            objects = "" if row.objects is None else str(row.objects)
            share = "" if row.labelled is None else f"{row.labelled:.1%}"
            notes = "; ".join(drop_notes(row.notes, {NoteCode.VOXEL_SIZE_UNKNOWN}))
            shape = " x ".join(map(str, row.shape))
            pair = f"{row.image} -> {row.annotation or 'none'}"
            overlaps = "" if row.overlaps is None else str(row.overlaps)
            image = (pair, shape, row.dtype, spacing, row.orientation or "unknown")
            table.append((*image, row.format or "", objects, overlaps, share, notes))
        left_out = set() if any(row.orientation for row in self.rows) else {"orientation"}
        left_out |= set() if any(row.overlaps is not None for row in self.rows) else {"annotation", "overlaps"}
        columns = [n for n, name in enumerate(table[0]) if name not in left_out]
        return [tuple(row[n] for n in columns) for row in table]


def check_data(
    images: str | Path,
    labels: str | Path | None,
    recipe: Recipe,
    options: ReadOptions | None = None,
    validation: Folders | None = None,
) -> CheckReport:
    """Read a whole data set, as training does, and list everything that is wrong with it at once.

    If nothing is annotated, that is a problem, but the images are listed. `validation` has the images and labels of a
    validation set: an image in both sets is a problem.
    """
    data = TrainingData((images, labels), recipe, options, validation)
    rows = sorted(((image.number, _describe(image)) for image in data.read()), key=lambda row: row[0])
    plan = {"orientation": describe_orientations(data.grids)} if data.grids else {}
    plan |= describe_plan(data.recipe, data.grids[0].unit) if data.grids and data.is_planned else {}
    return CheckReport(tuple(row for _, row in rows), tuple(data.problems), plan, tuple(data.skipped))


def _describe(image: AnnotatedImage) -> CheckedImage:
    volume, annotation = image.volume, image.annotation
    objects = labelled = None
    notes = [*volume.notes]
    if annotation is not None:
        objects, labelled = int((np.unique(annotation.labels) > 0).sum()), float(annotation.labelled.mean())
        notes += annotation.notes
    if image.same_as:
        notes.append(f"the same image as {image.same_as}")
    return CheckedImage(
        image=image.name,
        annotation=None if image.label is None else str(image.label),
        files=tuple(map(str, image.files)),
        shape=volume.array.shape,
        dtype=str(volume.array.dtype),
        spacing=volume.grid.spacing,
        unit=volume.grid.unit,
        objects=objects,
        labelled=labelled,
        notes=tuple(notes),
        orientation=volume.grid.axcodes,
        format=None if annotation is None else annotation.format,
        overlaps=None if annotation is None else annotation.overlaps,
    )
