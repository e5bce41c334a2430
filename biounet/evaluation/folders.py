"""Comparison of a folder of results with a folder of annotations."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from biounet.core import UNLABELLED, DataSettings, Grid, InputError, ResultKind, as_number, as_path, free_memory
from biounet.evaluation.class_scores import ClassEvaluation, add_voxels, pool_regions, region_row
from biounet.evaluation.matching import Tally, tally
from biounet.evaluation.object_scores import Evaluation, pool_tallies
from biounet.evaluation.records import Row
from biounet.evaluation.region_scores import Regions, RegionScore, score_regions
from biounet.files import (
    ReadOptions,
    ResultPair,
    check_alignment,
    open_label_image,
    pair_results,
    read_annotation,
    read_label_grid,
    read_label_kind,
    read_labels,
    stem_of,
    undrawn_regions,
)

T = TypeVar("T")

_BYTES_PER_VOXEL = 24  # both label images, their masks, and the pairs of their ids
_LOW_AP, _HIGH_DICE = 0.05, 0.5  # AP below which and Dice above which ids are probably classes


def evaluate(
    predicted: Path, truth: Path, data: DataSettings, tolerance: float = 1.0, options: ReadOptions | None = None
) -> Evaluation | ClassEvaluation:
    """Compare results with annotations.

    Parameters
    ----------
    predicted, truth
        Folders, which `biounet.files.pair_results` pairs. Results without an annotation are left out.
    data
        What the annotations hold. Regions, if it declares any, are compared instead of classes. What is unknown in a
        case is not compared there, nor are lesions below the smallest volume.
    tolerance
        Distance up to which the surfaces of classes in volumes agree, in the unit of the files.
    options
        Axes, pixel size, channel and plane of the label images, where their files do not say them or there is a choice.

    Returns
    -------
    Figures over all pairs that can be compared, with those of each; what is wrong with the others is in `failed`.
    Results that are objects (a label image says what its values are) are compared with strokes, or with a single class,
    as foreground.

    Raises
    ------
    InputError
        If an annotation has no result (naming them), or no pair can be compared: its shapes or grids differ, a file
        cannot be read, or holds classes where objects are expected.
    SettingsError
        If the tolerance is no length.
    """
    truth, tolerance = as_path(truth, "the folder of annotations"), as_number(tolerance, "the tolerance")
    pairs = pair_results(as_path(predicted, "the folder of results"), truth, data.channels, data.annotation)
    cases = {_case_name(pair, pairs, truth): _Case(pair, data, options) for pair in pairs}
    return _evaluate_objects(cases) if data.kind == "instances" else _evaluate_classes(cases, data, tolerance)


def _case_name(pair: ResultPair, pairs: Sequence[ResultPair], folder: Path) -> str:
    """Return the path of an annotation below its folder, and the name of the image where it is that of several."""
    name = pair.truth.relative_to(folder).as_posix()
    is_shared = sum(other.truth == pair.truth for other in pairs) > 1
    return f"{name}: {pair.image.name}" if is_shared else name


@dataclass(frozen=True)
class _Case:
    """The files of an annotation and of a result, and how they are read."""

    pair: ResultPair
    data: DataSettings
    options: ReadOptions | None

    @property
    def truth(self) -> Path:
        """The file of the annotation."""
        return self.pair.truth

    @property
    def predicted(self) -> Path:
        """The label image of the result."""
        return self.pair.predicted

    def read(self) -> tuple[NDArray[np.int32], NDArray[np.int32], Grid | None, tuple[str, ...]]:
        """Return true and predicted labels, the grid of a volume, and remarks on the headers."""
        self._check_fits()
        predicted = read_labels(self.predicted, self.options)
        is_volume = predicted.ndim == 3
        order = read_label_grid(self.predicted, predicted.shape, self.options) if is_volume else Grid(predicted.shape)
        drawn = read_annotation(self.truth, self.data, options=self.options, order=order, image=self.pair.image)
        truth = drawn.labels
        if truth.shape != predicted.shape:
            cause = f"is {truth.shape}, but the result {self.predicted} is {predicted.shape}"
            raise InputError(cause, path=self.truth)
        if drawn.overlaps is not None:  # outlines have no header
            return truth, predicted, order if is_volume else None, ()
        return truth, predicted, *check_alignment(self.truth, self.predicted, truth.shape, self.options)

    def _check_fits(self) -> None:
        """Raise an `InputError` if both label images take more memory than there is."""
        try:
            shape = open_label_image(self.predicted, self.options).grid.shape
        except InputError:  # reported when it is read, or stored such that its header does not tell
            return
        needed, free = _BYTES_PER_VOXEL * math.prod(shape), free_memory()
        if free is not None and needed > free:
            pixels = " x ".join(map(str, shape))
            cause = f"comparing {pixels} pixels takes about {needed / 2**30:.2g} GiB, and {free / 2**30:.2g} are free"
            raise InputError(cause, path=self.predicted, hint="cut the same part from both, and compare these")

    def read_kind(self) -> ResultKind | None:
        """Return what the values of the result are, by its file or, of earlier versions, by the table beside it."""
        kind = read_label_kind(self.predicted)
        table = self.predicted.with_name(f"{stem_of(self.predicted).removesuffix('_labels')}_objects.csv")
        if kind is not None or not table.is_file():
            return kind
        with table.open(encoding="utf-8", errors="replace") as file:
            return "classes" if "class" in file.readline().strip().split(",") else "objects"

    def check_kind(self, expected: ResultKind) -> None:
        """Raise an `InputError` if the values of the result are known to be something else."""
        if (kind := self.read_kind()) not in (None, expected):
            recipe = "classes" if kind == "classes" else "instances"
            hint = f"compare them by a recipe of kind = '{recipe}'"
            raise InputError(f"holds {kind}, not {expected}", path=self.predicted, hint=hint)


def _evaluate_objects(cases: Mapping[str, _Case]) -> Evaluation:
    notes: list[str] = []

    def compare(case: _Case) -> tuple[tuple[Tally, RegionScore], list[Row]]:
        case.check_kind("objects")
        truth, predicted, _, remarks = case.read()
        notes.extend(remarks)
        counts = tally(truth, predicted)
        return (counts, _score_foreground(truth, predicted)), [pool_tallies([counts]).as_row()]

    scores, rows, errors = _compare_all(cases, compare)
    figures = pool_tallies([counts for counts, _ in scores])
    notes = [*_warn_of_classes(figures, add_voxels([foreground for _, foreground in scores])), *notes]
    return replace(figures, cases=rows, failed=errors, notes=tuple(notes))


def _evaluate_classes(cases: Mapping[str, _Case], data: DataSettings, tolerance: float) -> ClassEvaluation:
    as_foreground = _is_compared_as_foreground(cases, data)
    names = data.foreground if not as_foreground or len(data.foreground) == 1 else ("foreground",)
    regions = Regions(names, None if as_foreground else data.regions, tolerance, data.min_lesion_mm3)
    notes: list[str] = []
    if as_foreground and len(data.foreground) > 1:
        notes.append(f"the results are objects: {', '.join(data.foreground)} are compared as one")

    def compare(case: _Case) -> tuple[tuple[list[RegionScore], Grid | None], list[Row]]:
        if not as_foreground:
            case.check_kind("classes")
        truth, predicted, grid, remarks = case.read()
        notes.extend(remarks)
        if as_foreground:
            truth, predicted = np.minimum(truth, 1), np.minimum(predicted, 1)
        undrawn = undrawn_regions(case.truth, data, case.pair.image)
        by_name = dict(zip(regions.values, score_regions(truth, predicted, regions, grid), strict=True))
        by_name |= dict.fromkeys(undrawn & by_name.keys(), RegionScore())
        return ([*by_name.values()], grid), [{"class": name, **region_row(one, grid)} for name, one in by_name.items()]

    scores, rows, errors = _compare_all(cases, compare)
    figures = pool_regions([score for score, _ in scores], regions, [grid for _, grid in scores])
    return replace(figures, cases=rows, failed=errors, notes=tuple(notes))


def _compare_all(
    cases: Mapping[str, _Case], compare: Callable[[_Case], tuple[T, Sequence[Row]]]
) -> tuple[list[T], tuple[Row, ...], tuple[str, ...]]:
    """Return scores of the cases that can be compared, rows of all, and errors; raise the first if none can be."""
    scores: list[T] = []
    all_rows: list[Row] = []
    errors: list[InputError] = []
    for name, case in cases.items():
        try:
            score, rows = compare(case)
            scores.append(score)
        except InputError as error:
            errors.append(error if error.path else InputError(error.cause, path=case.predicted, hint=error.hint))
            rows = [{"message": str(errors[-1])}]
        all_rows += [{"case": name, **row} for row in rows]
    if not scores:
        raise errors[0]
    return scores, tuple(all_rows), tuple(map(str, errors))


def _score_foreground(truth: NDArray[np.int32], predicted: NDArray[np.int32]) -> RegionScore:
    true, found = truth > 0, (predicted > 0) & (truth != UNLABELLED)
    intersection, true_voxels, predicted_voxels = (int(np.count_nonzero(mask)) for mask in (true & found, true, found))
    return RegionScore(intersection, true_voxels, predicted_voxels)


def _warn_of_classes(figures: Evaluation, foreground: RegionScore) -> list[str]:
    """Return a note if no object matches although the foreground does: the ids of one side are classes."""
    if not (figures.ap[0] < _LOW_AP and foreground.dice > _HIGH_DICE):
        return []
    counts = f"{sum(figures.truth_counts)} true and {sum(figures.predicted_counts)} predicted ids"
    return [
        f"AP is {figures.ap[0]:.3f} although the foreground agrees (Dice {foreground.dice:.3f}; {counts}): are the "
        "values of one side classes? Then compare by a recipe of kind = 'classes'"
    ]


def _is_compared_as_foreground(cases: Mapping[str, _Case], data: DataSettings) -> bool:
    """Whether results are objects, as of a model of strokes, where annotations have classes: foreground is compared."""
    one_class = len(data.foreground) == 1 and not data.regions
    if data.kind == "classes" and not one_class:
        return False
    if data.kind == "scribbles" and one_class:
        return True
    for case in cases.values():
        with suppress(InputError):  # reported when the case is compared
            if case.read_kind() == "objects":
                return True
    return False
