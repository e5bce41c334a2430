"""What would be read of a data set, and everything that is wrong with it, before any training."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from biounet.annotation import Annotation, has_whole_object, refuse_absent, refuse_parts
from biounet.errors import BiounetError, InputError
from biounet.files import ReadOptions, find_images, match_pairs, read_annotation, read_volume
from biounet.plan import describe_plan, plan
from biounet.recipe import Recipe
from biounet.volume import Grid, Unit, Volume

Folders = tuple[str | Path, str | Path | None]


@dataclass(frozen=True)
class CheckedImage:
    """How one image and its annotation are understood.

    Attributes
    ----------
    image
        Path.
    shape
        ``(c, [z,] y, x)``.
    dtype
        Of the pixels.
    spacing, unit
        Pixel size, None where unknown.
    objects
        Number of objects, or of classes that occur; None without annotation.
    labelled
        Share of the pixels that are labelled; None without annotation.
    notes
        Remarks.
    """

    image: str
    shape: tuple[int, ...]
    dtype: str
    spacing: tuple[float, ...] | None
    unit: Unit | None
    objects: int | None
    labelled: float | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class CheckReport:
    """All images that can be read, all problems, and how a training on these images would work."""

    rows: tuple[CheckedImage, ...]
    problems: tuple[str, ...]
    plan: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"images": [asdict(row) for row in self.rows], "problems": list(self.problems), "plan": self.plan}

    def as_table(self) -> list[tuple[str, ...]]:
        """Return rows of text, the header first."""
        table: list[tuple[str, ...]] = [("image", "shape", "type", "pixel size", "objects", "labelled", "notes")]
        for row in self.rows:
            unit = "µm" if row.unit == "um" else row.unit
            spacing = f"{' x '.join(f'{s:.4g}' for s in row.spacing)} {unit}" if row.spacing else "unknown"
            objects = "" if row.objects is None else str(row.objects)
            share = "" if row.labelled is None else f"{row.labelled:.1%}"
            notes = "; ".join(note for note in row.notes if not note.startswith(("pixel size", "voxel size")))
            table.append((row.image, " x ".join(map(str, row.shape)), row.dtype, spacing, objects, share, notes))
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
        As for training. A folder of images without any annotation is checked as images to segment.
    recipe
        Says what annotations hold and which channels are expected.
    options
        How images are read.
    validation
        Images and labels of a validation set: an image in both sets is a problem.
    """
    options = options or ReadOptions(dims=recipe.data.dims)
    rows: list[CheckedImage] = []
    problems: list[str] = []
    grids: list[Grid] = []
    values: set[int] = set()
    whole: set[bool | None] = set()
    seen: dict[str, str] = {}
    for folders in [(images, labels), *([validation] if validation else [])]:
        hashes: dict[str, str] = {}
        for pair in _pairs(folders, recipe.data.channels, problems):
            volume, annotation = _check_one(pair, recipe, options, rows, problems)
            if volume is None:
                continue
            if folders[0] == images:
                grids.append(volume.grid)
                if annotation is not None:
                    values |= {*np.unique(annotation.labels).tolist()}
                    if recipe.data.kind == "instances":
                        whole.add(has_whole_object(annotation.labels, recipe.data.across))
            digest = hashlib.sha256(volume.array.tobytes()).hexdigest()
            if digest in seen:
                problems.append(f"{pair[0][0]}: the same image as {seen[digest]}, in training and in validation")
            if digest in hashes:
                problems.append(f"{pair[0][0]}: the same image as {hashes[digest]}")
            hashes.setdefault(digest, str(pair[0][0]))
        seen |= hashes
    if values:
        try:
            refuse_absent(values, recipe.data.learned)
            refuse_parts(whole)
        except InputError as error:
            problems.append(str(error))
    return CheckReport(tuple(rows), tuple(problems), _plan(recipe, grids, problems))


def _plan(recipe: Recipe, grids: list[Grid], problems: list[str]) -> dict[str, str]:
    if recipe.data.dims == 2 or not grids:
        return {}
    try:
        return describe_plan(plan(recipe, grids), grids[0].unit)
    except BiounetError as error:
        problems.append(str(error))
        return {}


def _pairs(
    folders: Folders, channels: tuple[str, ...], problems: list[str]
) -> Iterator[tuple[tuple[Path, ...], Path | None]]:
    images, labels = folders
    try:
        pairs, alone = match_pairs(images, labels, channels)
        if not pairs and labels is None and Path(images).is_dir():
            found = find_images([images], channels)
            problems += [f"{image.path}: {image.problem}" for image in found if image.problem]
            yield from ((image.files(), None) for image in found if not image.problem)
            return
    except BiounetError as error:
        problems.append(str(error))
        return
    problems += alone.problems
    yield from ((pair.files(), pair.label) for pair in pairs)


def _check_one(
    pair: tuple[tuple[Path, ...], Path | None],
    recipe: Recipe,
    options: ReadOptions,
    rows: list[CheckedImage],
    problems: list[str],
) -> tuple[Volume | None, Annotation | None]:
    files, label = pair
    try:
        volume = read_volume(files, options)
    except BiounetError as error:
        problems.append(str(error))
        return None, None
    expected = len(recipe.data.channels)
    if volume.channels != expected:
        problems.append(f"{files[0]}: {volume.channels} channels, the recipe expects {expected} (hint: --channel)")
    try:
        annotation = read_annotation(label, recipe.data, volume.grid) if label is not None else None
    except BiounetError as error:
        problems.append(str(error))
        annotation = None
    rows.append(_describe(volume, annotation))
    return volume, annotation


def _describe(volume: Volume, annotation: Annotation | None) -> CheckedImage:
    objects = labelled = None
    if annotation is not None:
        values = np.unique(annotation.labels)
        objects, labelled = int((values > 0).sum()), float(annotation.labelled.mean())
    return CheckedImage(
        image=str(volume.source),
        shape=volume.array.shape,
        dtype=str(volume.array.dtype),
        spacing=volume.grid.spacing,
        unit=volume.grid.unit,
        objects=objects,
        labelled=labelled,
        notes=volume.notes,
    )
