"""A data set on its way into training: read once, and everything that is wrong with it on the way.

`check_data` lists the problems and `biounet.train` stops at the first: both read through `Preflight`, so that what
one of them accepts, the other does too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from biounet.core import (
    UNLABELLED,
    Annotation,
    BiounetError,
    Grid,
    InputError,
    Recipe,
    SettingsError,
    Volume,
    canonical_transform,
    canonical_volume,
    check_classes_present,
    check_foreground_and_background,
    check_whole_objects,
    has_whole_object,
)
from biounet.files import (
    Pair,
    ReadOptions,
    SkippedFile,
    find_images,
    find_pairs,
    inspect_volume,
    pair_files,
    read_annotation,
    read_volume,
)
from biounet.preprocessing import Zoom, body_box, body_masks, rescaled_shape, resize_labels, working_zoom
from biounet.training.planning import plan

Folders = tuple[str | Path, str | Path | None]


@dataclass(frozen=True)
class Placed:
    """Where an annotated image in the canonical orientation lies on the working grid.

    Attributes
    ----------
    body
        The part of the image that is worked on, from `biounet.preprocessing.body_box`.
    zoom
        Factor along each axis from the voxels of the image to the working grid.
    labels
        The annotation of that part on the working grid, int32, shape ``([z,] y, x)``.
    steps
        Length of a voxel of the working grid along each axis, the shortest being 1 where lengths are in pixels.
    section_axis
        The axis normal to the labelled planes, whose sections are learned; None where whole objects are.
    surroundings_removed
        Whether the surroundings of the body were removed, and the intensities are normalised without them.
    """

    body: tuple[slice, ...]
    zoom: Zoom
    labels: NDArray[np.int32]
    steps: tuple[float, ...]
    section_axis: int | None = None
    surroundings_removed: bool = False


def place(volume: Volume, annotation: Annotation, recipe: Recipe) -> Placed:
    """Bring the annotation of an image to the canonical orientation and the working grid of a recipe.

    Raises
    ------
    InputError
        If the image has other channels than the recipe, no pixel size where one is needed, or nothing labelled in it.
    SettingsError
        If the recipe has lengths in µm and the image no pixel size.
    """
    if volume.channels != len(recipe.data.channels):
        cause = f"{volume.channels} channels, the recipe expects {len(recipe.data.channels)}"
        raise InputError(cause, path=volume.source, hint="choose one with --channel")
    way, volume = canonical_transform(volume.grid), canonical_volume(volume)
    zoom = working_zoom(volume.grid, recipe.data, volume.source)
    body = body_box(volume.array, recipe.normalise, recipe.data)
    inside = np.ascontiguousarray(way.apply(annotation.labels)[body])
    labels = resize_labels(inside, rescaled_shape(inside.shape, zoom))
    if (labels == UNLABELLED).all():
        raise InputError("nothing is labelled", path=annotation.source)
    section_axis = recipe.data.section_axis
    section_axis = None if section_axis is None else way.axes.index(section_axis)
    alone = recipe.normalise.method == "zscore" and body_masks(volume.array) is not None
    return Placed(body, zoom, labels, _steps(volume.grid, zoom, recipe), section_axis, alone)


def _steps(grid: Grid, zoom: Zoom, recipe: Recipe) -> tuple[float, ...]:
    lengths = {"targets.unit": recipe.targets.unit}
    if recipe.data.kind != "classes":
        lengths["label.min_size_unit"] = recipe.label.min_size_unit
    for name, needed in lengths.items():
        if grid.spacing is None and needed == "um":
            raise SettingsError(f"{name} = 'um' needs calibrated images", hint=f"set {name} = 'px', or --spacing")
    if grid.spacing is None or (recipe.targets.unit == "px" and grid.dims == 2):
        return (1.0,) * grid.dims
    steps = [step / factor for step, factor in zip(grid.spacing, zoom, strict=True)]
    unit = min(steps) if recipe.targets.unit == "px" else 1e-3 if grid.unit == "mm" else 1.0
    return tuple(step / unit for step in steps)


@dataclass(frozen=True)
class Member:
    """One image of a data set, before it is read.

    Attributes
    ----------
    number
        Its place among the images that were found.
    files
        One file for each channel, or the one file that holds all.
    label
        The file of the annotation; None where the data set has no annotation at all.
    held
        Whether thresholds are tuned on it and nothing is learned from it.
    """

    number: int
    files: tuple[Path, ...]
    label: Path | None
    held: bool


@dataclass(frozen=True)
class Annotated(Member):
    """One image of a data set with what somebody drew on it.

    Attributes
    ----------
    volume
        The image.
    annotation
        None where it cannot be used.
    placed
        None where one of the two cannot be used.
    same_as
        The first image of the data set that has the same pixels; None for that one itself.
    """

    volume: Volume
    annotation: Annotation | None
    placed: Placed | None
    same_as: str | None


class Preflight:
    """Read a data set as training does, and collect what is wrong with it.

    Parameters
    ----------
    images, labels
        As `biounet.files.find_pairs` takes them.
    recipe
        Says what annotations hold and which channels are expected.
    options
        How images are read; None: as the files say.
    validation
        Images and labels that thresholds are tuned on. None holds out a share of the training images.
    strict
        Whether the first problem is raised instead of collected.

    Attributes
    ----------
    problems
        What is wrong, each by its sentence, in the order in which it was found; complete after `read`.
    pairs, held
        Images to learn from, and those to tune thresholds on.
    left_out
        Files of the folders that could be images and are neither an image nor an annotation here; not if `strict`.
    recipe
        With what it left open filled in from the grids of the images to learn from.
    planned
        Whether that was possible.
    """

    def __init__(
        self,
        folders: Folders,
        recipe: Recipe,
        options: ReadOptions | None = None,
        validation: Folders | None = None,
        *,
        strict: bool = False,
    ) -> None:
        self.options = options or ReadOptions(dims=recipe.data.dims)
        self.strict = strict
        self.problems: dict[str, BiounetError] = {}
        self._data = recipe.data
        self._separate = validation is not None
        self._alone: list[tuple[Path, ...]] = []
        self.left_out: list[SkippedFile] = []
        self.pairs = self._find(folders)
        self.held = [] if validation is None else self._find(validation)
        self._in_order = [*self.pairs, *self.held]
        if validation is None:
            self.pairs, self.held = hold_out(self.pairs, recipe.data.validation, recipe.train.seed)
        self.grids = self._describe()
        self.planned = True
        self.recipe = self._plan(recipe)
        self._digests: dict[str, tuple[str, bool]] = {}

    def read(self) -> Iterator[Annotated]:
        """Read every image once, those to learn from first; leave out those that cannot be read.

        Raises
        ------
        InputError, SettingsError
            Of the first problem, if `strict`.
        """
        values: set[int] = set()
        whole: set[bool | None] = set()
        for found in filter(None, map(self._read_one, self._members())):
            if found.placed is not None and not found.held:
                values |= {*np.unique(found.placed.labels).tolist()}
                if self._data.kind == "instances":
                    whole.add(has_whole_object(found.placed.labels, found.placed.section_axis))
            yield found
        if values:
            self._refuse_useless(values, whole)

    def _members(self) -> list[Member]:
        """Return what is to be read, that to learn from first."""
        numbers = {pair.files(): number for number, pair in enumerate(self._in_order)}
        turns = [*((pair, False) for pair in self.pairs), *((pair, True) for pair in self.held)]
        members = [Member(numbers[pair.files()], pair.files(), pair.label, held) for pair, held in turns]
        return members + [Member(number, files, None, False) for number, files in enumerate(self._alone)]

    def _report(self, error: BiounetError) -> None:
        if self.strict:
            raise error
        self.problems.setdefault(str(error), error)

    def _find(self, folders: Folders) -> list[Pair]:
        """Pair images and annotations; where a folder has no annotation at all, its images are shown at least."""
        images, labels = folders
        names = (self._data.channels, self._data.annotation)
        try:
            if self.strict:
                return find_pairs(images, labels, *names)
            pairs, alone = pair_files(images, labels, *names)
            self.left_out += alone.skipped
            for problem in alone.problems:
                self._report(problem)
            if not pairs:
                if not alone.problems:
                    self._report(InputError("no image with an annotation found", path=images))
                if labels is None and Path(images).is_dir():
                    found = find_images([images], *names)
                    self._alone += [image.files() for image in found if not image.problem]
        except BiounetError as error:
            self._report(error)
            return []
        return pairs

    def _describe(self) -> list[Grid]:
        """Return the grids of the images to learn from as their headers say; what is wrong there, `read` says."""
        if self._data.dims == 2:
            return []
        grids = []
        for pair in self.pairs:
            try:
                grids.append(inspect_volume(pair.image, self.options).grid)
            except BiounetError:
                if self.strict:
                    raise
        return grids

    def _plan(self, recipe: Recipe) -> Recipe:
        try:
            return plan(recipe, self.grids)
        except BiounetError as error:
            self._report(error)
            self.planned = False
            return recipe

    def _read_one(self, member: Member) -> Annotated | None:
        try:
            volume = read_volume(member.files, self.options)
        except BiounetError as error:
            self._report(error)
            return None
        annotation = placed = None
        try:
            if member.label is not None:
                annotation = read_annotation(member.label, self._data, volume.grid, self.options)
                placed = place(volume, annotation, self.recipe)
        except BiounetError as error:
            self._report(error)
        same_as = self._same_as(volume, member)
        return Annotated(**vars(member), volume=volume, annotation=annotation, placed=placed, same_as=same_as)

    def _same_as(self, volume: Volume, member: Member) -> str | None:
        """Return the first image with these pixels; an image must not be learned from and validated on."""
        digest = hashlib.sha256(np.ascontiguousarray(volume.array).data).hexdigest() + str(volume.array.shape)
        path, held = member.files[0], member.held
        first, was_held = self._digests.setdefault(digest, (str(path), held))
        if first == str(path) and was_held == held:
            return None
        if held and not was_held and self._separate:
            self._report(InputError(f"the same image as {first}, in training and in validation", path=path))
        return first

    def _refuse_useless(self, values: set[int], whole: set[bool | None]) -> None:
        """Refuse annotations from which nothing, or not all, can be learned that the recipe asks for."""
        try:
            check_foreground_and_background(values, self._data.kind)
            check_classes_present(values, self._data.label_values)
            check_whole_objects(whole)
        except InputError as error:
            self._report(error)


def hold_out(pairs: Sequence[Pair], share: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Split pairs into those to train on and those to tune on; at least one to train on, drawn from the seed."""
    order = np.random.default_rng(seed).permutation(len(pairs))
    held = min(round(share * len(pairs)), len(pairs) - 1) if share and pairs else 0
    if share and held == 0 and len(pairs) > 2:
        held = 1
    return [pairs[i] for i in sorted(order[held:])], [pairs[i] for i in sorted(order[:held])]
