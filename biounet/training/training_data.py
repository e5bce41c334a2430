"""A data set as training reads it, and everything that is wrong with it.

`check_data` lists the problems and `biounet.train` stops at the first: both read through `TrainingData`, so that what
one of them accepts, the other does too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np

from biounet.core import (
    Annotation,
    BiounetError,
    Grid,
    InputError,
    Recipe,
    Volume,
    check_classes_present,
    check_foreground_and_background,
    check_whole_objects,
    has_whole_object,
)
from biounet.files import (
    FoundImage,
    Pair,
    ReaderPool,
    ReadOptions,
    SkippedFile,
    find_images,
    find_pairs,
    hash_image,
    inspect_volume,
    pair_files,
    read_annotation,
    read_volume,
    resolve_images,
    shorten_scene,
    split_scenes,
)
from biounet.training.planning import plan
from biounet.training.working_grid import ResampledAnnotation, resample_annotation

Folders = tuple[str | Path, str | Path | None]
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class ImageFiles:
    """The files of one image of a data set: one for each channel, or one that holds all, and the annotation."""

    number: int  # of the image among those that were found
    files: tuple[Path, ...]
    label: Path | None
    validation: bool  # whether thresholds are tuned on it and nothing is learned from it
    scene: str  # which of several images in a file, as in `ReadOptions`
    drawn_on: Path  # what outlines of many images in one file call it

    @property
    def name(self) -> str:
        """The first file, and which of its images it is if there are several."""
        return f"{self.files[0]}{', scene ' + shorten_scene(self.scene) if self.scene else ''}"


@dataclass(frozen=True)
class AnnotatedImage(ImageFiles):
    """One image of a data set and its annotation, which is None, also on the working grid, where it cannot be used.

    `same_as` is the first image of the data set with the same pixels, None if it is this one.
    """

    volume: Volume
    annotation: Annotation | None
    resampled: ResampledAnnotation | None
    same_as: str | None


class TrainingData:
    """Read a data set as training does, and collect what is wrong with it.

    Parameters
    ----------
    folders
        Images and labels, as `biounet.files.find_pairs` takes them.
    recipe
        Says what annotations hold and which channels are expected. The attribute is planned: what the recipe leaves
        open follows from the grids of the images to learn from.
    validation
        Images and labels that thresholds are tuned on. None holds out a share of the training images.
    strict
        Whether the first problem is raised instead of collected.

    Attributes
    ----------
    problems
        All problems by their message, in the order in which they were found; complete after `read`.
    training, validation
        Images to learn from, and those to tune thresholds on.
    skipped
        Files of the folders that are neither images nor annotations here, though they could be; not if `strict`.
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
        self.options = replace(options or ReadOptions(dims=recipe.data.dims), inputs=len(recipe.data.channels))
        self.strict = strict
        self.problems: dict[str, BiounetError] = {}
        self._data = recipe.data
        self._has_validation_set = validation is not None
        self._unannotated: list[FoundImage] = []
        self.skipped: list[SkippedFile] = []
        self.training = self._attempt(self._find, folders) or []
        self.validation = [] if validation is None else self._attempt(self._find, validation) or []
        self._all_pairs = [*self.training, *self.validation]
        if validation is None:
            self.training, self.validation = hold_out(self.training, recipe.data.validation, recipe.train.seed)
        self.grids = self._describe()
        planned = self._attempt(plan, recipe, self.grids)
        self.is_planned = planned is not None  # false if the grids contradict each other or the recipe
        self.recipe = planned or recipe
        self._digests: dict[str, tuple[str, bool]] = {}

    def read(self) -> Iterator[AnnotatedImage]:
        """Read every image once, those to learn from first; leave out those that cannot be read, unless `strict`."""
        values: set[int] = set()
        whole: set[bool | None] = set()
        for found in filter(None, map(self._read_one, self._list_images())):
            if found.resampled is not None and not found.validation:
                values |= {*np.unique(found.resampled.labels).tolist()}
                if self._data.kind == "instances":
                    whole.add(has_whole_object(found.resampled.labels, found.resampled.section_axis))
            yield found
        if values:
            self._attempt(self._check_annotations, values, whole)

    def _list_images(self) -> list[ImageFiles]:
        numbers = {(pair.files(), pair.scene): number for number, pair in enumerate(self._all_pairs)}
        images = [
            ImageFiles(
                numbers[pair.files(), pair.scene], pair.files(), pair.label, validation, pair.scene, pair.drawn_on
            )
            for pairs, validation in ((self.training, False), (self.validation, True))
            for pair in pairs
        ]
        unannotated = enumerate(self._unannotated)
        return images + [
            ImageFiles(number, image.files(), None, False, image.scene, image.path) for number, image in unannotated
        ]

    def _report(self, error: BiounetError) -> None:
        if self.strict:
            raise error
        self.problems.setdefault(str(error), error)

    def _attempt(self, function: Callable[..., _Result], *arguments: object) -> _Result | None:
        """Return the result of a function, or report its error and return None."""
        try:
            return function(*arguments)
        except BiounetError as error:
            self._report(error)
            return None

    def _find(self, folders: Folders) -> list[Pair]:
        """Pair images and annotations; if a folder has no annotation at all, list its images without."""
        images, labels = folders
        names = (self._data.channels, self._data.annotation, self.options.series)
        if self.strict:
            return find_pairs(images, labels, *names)
        pairs, unpaired = pair_files(images, labels, *names)
        self.skipped += unpaired.skipped
        for problem in unpaired.problems:
            self._report(problem)
        if not pairs:
            if not unpaired.problems:
                self._report(InputError("no image with an annotation found", path=images))
            if labels is None and Path(images).is_dir():
                with ReaderPool() as readers:
                    found = resolve_images(find_images([images], *names), ReadOptions(), readers)
                self._unannotated += [image for image in found if not image.problem]
        return pairs

    def _describe(self) -> list[Grid]:
        """Return the grids of the images to learn from, from their headers; `read` reports what is wrong with these."""
        if self._data.dims == 2:
            return []
        grids = []
        for pair in self.training:
            try:
                grids.append(
                    inspect_volume(
                        pair.image, replace(self.options, scene=split_scenes(pair.scene, len(pair.files()))[0])
                    ).grid
                )
            except BiounetError:
                if self.strict:
                    raise
        return grids

    def _read_one(self, image: ImageFiles) -> AnnotatedImage | None:
        volume = self._attempt(read_volume, image.files, replace(self.options, scene=image.scene))
        if volume is None:
            return None
        annotation = resampled = None
        if image.label is not None:
            how = (self._data, volume.grid, self.options, None, image.drawn_on)
            annotation = self._attempt(read_annotation, image.label, *how)
        if annotation is not None:
            resampled = self._attempt(resample_annotation, volume, annotation, self.recipe)
        same_as = self._same_as(volume, image)
        return AnnotatedImage(**vars(image), volume=volume, annotation=annotation, resampled=resampled, same_as=same_as)

    def _same_as(self, volume: Volume, image: ImageFiles) -> str | None:
        """Return the first image with these pixels; an image must not be learned from and validated on."""
        digest = hashlib.sha256(np.ascontiguousarray(volume.array).data).hexdigest() + str(volume.array.shape)
        first, first_validates = self._digests.setdefault(digest, (image.name, image.validation))
        if first == image.name and first_validates == image.validation:
            return None
        if image.validation and not first_validates and self._has_validation_set:
            self._report(InputError(f"the same image as {first}, in training and in validation", path=image.name))
        return first

    def _check_annotations(self, values: set[int], whole: set[bool | None]) -> None:
        check_foreground_and_background(values, self._data.kind)
        check_classes_present(values, self._data.label_values)
        check_whole_objects(whole)


def hold_out(pairs: Sequence[Pair], share: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Split pairs at random into those to train on, at least one, and those to tune thresholds on."""
    order = np.random.default_rng(seed).permutation(len(pairs))
    count = 0
    if share and pairs:
        count = min(max(round(share * len(pairs)), int(len(pairs) > 2)), len(pairs) - 1)
    return [pairs[i] for i in sorted(order[count:])], [pairs[i] for i in sorted(order[:count])]


def hash_training_files(pairs: Sequence[Pair]) -> str:
    """Return the SHA-256 over the names and contents of the training files, in order of name."""
    digest, hash_once = hashlib.sha256(), cache(hash_image)
    for pair in sorted(pairs, key=lambda p: (Path(p.image).name, p.scene)):
        digest.update(pair.scene.encode())
        scenes = (*split_scenes(pair.scene, len(pair.files())), "")
        # One file may hold several images, or the outlines of all.
        for path, scene in zip((*pair.files(), pair.label), scenes, strict=True):
            digest.update(Path(path).name.encode())
            digest.update(bytes.fromhex(hash_once(path, scene)))
    return digest.hexdigest()
