"""Comparison of a folder of results with a folder of annotations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from biounet.core import UNLABELLED, DataSettings, Grid, InputError, ResultKind, as_number, as_path
from biounet.evaluation.class_scores import ClassEvaluation, add_voxels, pool_regions, region_row
from biounet.evaluation.matching import Tally, tally
from biounet.evaluation.object_scores import Evaluation, pool_tallies
from biounet.evaluation.records import EvaluationRecord, Row
from biounet.evaluation.region_scores import Regions, RegionScore, score_regions
from biounet.files import (
    ReadOptions,
    check_alignment,
    pair_results,
    read_annotation,
    read_label_grid,
    read_label_kind,
    read_labels,
    stem_of,
    undrawn_regions,
)

T = TypeVar("T")
Record = TypeVar("Record", bound=EvaluationRecord)

_LOW_AP, _HIGH_DICE = 0.05, 0.5  # AP below which and Dice above which ids are probably classes


def evaluate(
    predicted: Path, truth: Path, data: DataSettings, tolerance: float = 1.0, options: ReadOptions | None = None
) -> Evaluation | ClassEvaluation:
    """Compare results with annotations.

    Parameters
    ----------
    predicted, truth
        Folders of results and of annotations, which `biounet.files.pair_results` pairs. Results without an annotation
        are left out, as are images beside their annotations.
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
    cases = {drawn.relative_to(truth).as_posix(): _Case(drawn, result, data, options) for drawn, result in pairs}
    return _evaluate_objects(cases) if data.kind == "instances" else _evaluate_classes(cases, data, tolerance)


@dataclass(frozen=True)
class _Case:
    """The files of an annotation and of a result, and how they are read."""

    truth: Path
    predicted: Path
    data: DataSettings
    options: ReadOptions | None

    def read(self) -> tuple[NDArray[np.int32], NDArray[np.int32], Grid | None, tuple[str, ...]]:
        """Return true and predicted labels, the grid of a volume, and remarks on the headers."""
        predicted = read_labels(self.predicted, self.options)
        order = read_label_grid(self.predicted, predicted.shape, self.options) if predicted.ndim == 3 else None
        truth = read_annotation(self.truth, self.data, options=self.options, order=order).labels
        if truth.shape != predicted.shape:
            cause = f"is {truth.shape}, but the result {self.predicted} is {predicted.shape}"
            raise InputError(cause, path=self.truth)
        return truth, predicted, *check_alignment(self.truth, self.predicted, truth.shape, self.options)

    def read_kind(self) -> ResultKind | None:
        """Return what the values of the result are, by its file or, of earlier versions, by the table beside it."""
        kind = read_label_kind(self.predicted)
        table = self.predicted.with_name(f"{stem_of(self.predicted).removesuffix('_labels')}_objects.csv")
        if kind is not None or not table.is_file():
            return kind
        with table.open(encoding="utf-8", errors="replace") as file:
            return "classes" if "class" in file.readline().strip().split(",") else "objects"


def _evaluate_objects(cases: Mapping[str, _Case]) -> Evaluation:
    notes: list[str] = []

    def compare(case: _Case) -> tuple[Tally, RegionScore]:
        if case.read_kind() == "classes":
            hint = "compare them by a recipe of kind = 'classes'"
            raise InputError("holds classes, not objects", path=case.predicted, hint=hint)
        truth, predicted, _, remarks = case.read()
        notes.extend(remarks)
        return tally(truth, predicted), _score_foreground(truth, predicted)

    outcomes = _compare_all(cases, compare)
    done = _successes(outcomes)
    figures = pool_tallies([counts for counts, _ in done])
    notes = [*_warn_of_classes(figures, add_voxels([foreground for _, foreground in done])), *notes]
    return _with_cases(figures, outcomes, lambda outcome: [pool_tallies([outcome[0]]).as_row()], notes)


def _evaluate_classes(cases: Mapping[str, _Case], data: DataSettings, tolerance: float) -> ClassEvaluation:
    as_foreground = _is_compared_as_foreground(cases, data)
    names = data.foreground if not as_foreground or len(data.foreground) == 1 else ("foreground",)
    regions = Regions.of_classes(names, None if as_foreground else data.regions, tolerance, data.min_lesion_mm3)
    notes: list[str] = []
    if as_foreground and len(data.foreground) > 1:
        notes.append(f"the results are objects: {', '.join(data.foreground)} are compared as one")

    def compare(case: _Case) -> tuple[list[RegionScore], Grid | None]:
        if not as_foreground and case.read_kind() == "objects":
            hint = "compare them by a recipe of kind = 'instances'"
            raise InputError("holds objects, not classes", path=case.predicted, hint=hint)
        truth, predicted, grid, remarks = case.read()
        notes.extend(remarks)
        if as_foreground:
            truth, predicted = np.minimum(truth, 1), np.minimum(predicted, 1)
        undrawn = undrawn_regions(case.truth, data)
        scores = zip(regions.values, score_regions(truth, predicted, regions, grid), strict=True)
        return [RegionScore() if name in undrawn else score for name, score in scores], grid

    def rows(outcome: tuple[list[RegionScore], Grid | None]) -> list[Row]:
        scores, grid = outcome
        return [{"class": name, **region_row(score, grid)} for name, score in zip(regions.values, scores, strict=True)]

    outcomes = _compare_all(cases, compare)
    done = _successes(outcomes)
    figures = pool_regions([scores for scores, _ in done], regions, [grid for _, grid in done])
    return _with_cases(figures, outcomes, rows, notes)


def _compare_all(cases: Mapping[str, _Case], compare: Callable[[_Case], T]) -> dict[str, T | InputError]:
    """Return the outcome of each case, or the error if it cannot be compared; raise the first if none can."""
    outcomes: dict[str, T | InputError] = {}
    for name, case in cases.items():
        try:
            outcomes[name] = compare(case)
        except InputError as error:
            outcomes[name] = error if error.path else InputError(error.cause, path=case.predicted, hint=error.hint)
    errors = [outcome for outcome in outcomes.values() if isinstance(outcome, InputError)]
    if len(errors) == len(outcomes):
        raise errors[0]
    return outcomes


def _successes(outcomes: Mapping[str, T | InputError]) -> list[T]:
    return [outcome for outcome in outcomes.values() if not isinstance(outcome, InputError)]


def _with_cases(
    figures: Record, outcomes: Mapping[str, T | InputError], rows: Callable[[T], list[Row]], notes: Sequence[str]
) -> Record:
    """Return the figures with the rows of all cases, the errors of those that failed, and the notes."""
    cases: list[Row] = []
    errors: list[str] = []
    for name, outcome in outcomes.items():
        if isinstance(outcome, InputError):
            errors.append(str(outcome))
            cases.append({"case": name, "message": str(outcome)})
        else:
            cases += [{"case": name, **row} for row in rows(outcome)]
    return replace(figures, cases=tuple(cases), failed=tuple(errors), notes=tuple(notes))


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
        "values of one side classes? Then compare by a recipe of kind = 'classes'",
    ]


def _is_compared_as_foreground(cases: Mapping[str, _Case], data: DataSettings) -> bool:
    """Whether results are objects where the annotations have classes, so that only the foreground is comparable.

    A model of strokes gives objects. With one class, objects of it are as good.
    """
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
