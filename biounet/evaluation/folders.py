"""Figures that say how well predicted labels agree with annotations, on labelled voxels only."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from biounet.core import UNLABELLED, DataSettings, Grid, InputError, ResultKind, as_number, as_path
from biounet.evaluation.matching import THRESHOLDS, Tally, tally
from biounet.evaluation.region_scores import Regions, RegionScore, score_regions
from biounet.evaluation.scores import ClassEvaluation, Evaluation, LesionFigures, Row, SurfaceFigures, mean, ratio
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

_NO_MATCH, _AGREES = 0.05, 0.5  # AP below which and Dice above which ids are probably classes

__all__ = ["ClassEvaluation", "Evaluation", "evaluate_folders", "score_classes", "score_instances"]


def score_instances(truths: Sequence[NDArray[Any]], predicted: Sequence[NDArray[Any]]) -> Evaluation:
    """Compare the objects of images with the truth.

    Parameters
    ----------
    truths
        int32 of each image, shape ``([z,] y, x)``: `UNLABELLED`, 0 background, else object ids.
    predicted
        Object ids of each image, same shapes.

    Raises
    ------
    InputError
        If the shapes or numbers of images differ.
    """
    return _pool([tally(truth, found) for truth, found in _both(truths, predicted)])


def score_classes(
    truths: Sequence[NDArray[Any]],
    predicted: Sequence[NDArray[Any]],
    class_names: Sequence[str],
    grids: Sequence[Grid] | None = None,
    regions: Mapping[str, Sequence[int]] | None = None,
    tolerance: float = 1.0,
) -> ClassEvaluation:
    """Compare the classes of images with the truth.

    Parameters
    ----------
    truths
        int32 of each image, shape ``([z,] y, x)``: `UNLABELLED`, 0 background, else classes.
    predicted
        Classes of each image, same shapes.
    class_names
        Names of the classes 1, 2, …
    grids
        Grid of each image, for surfaces and lesions. These are compared in images without unlabelled voxels only,
        because nobody knows where a surface is that meets one, or whether two parts of a lesion are one.
    regions
        Regions that are compared instead of classes, by name the classes of each.
    tolerance
        How far apart surfaces may be to agree, in the unit of the grids; voxels where they have none.

    Raises
    ------
    InputError
        If the shapes or numbers of images differ, a class has no name, or grids have different units.
    SettingsError
        If the tolerance is no length.
    """
    asked = _regions(class_names, regions, tolerance)
    where: Sequence[Grid | None] = [None] * len(truths) if grids is None else grids
    if len(where) != len(truths):
        raise InputError(f"{len(where)} grids, but {len(truths)} images")
    pairs = zip(_both(truths, predicted), where, strict=True)
    return _class_figures([score_regions(*pair, asked, grid) for pair, grid in pairs], asked, where)


def evaluate_folders(
    predicted: Path, truth: Path, data: DataSettings, tolerance: float = 1.0, options: ReadOptions | None = None
) -> Evaluation | ClassEvaluation:
    """Compare results with annotations.

    Parameters
    ----------
    predicted
        Folder of results: ``<name>_labels.tif`` or ``.nii.gz``, in folders below as well. Results without an annotation
        are left out.
    truth
        Folder of annotations: the same names, with any suffix, and ``_masks`` or the like if they want, in the same
        folders or, where a name occurs once, in any; or folders called as the cases, with one annotation each. Images
        beside their annotations are left out.
    data
        What the annotations hold. Where it declares regions, these are compared instead of classes; what is unknown in
        a case is not compared there, nor lesions smaller than it says.
    tolerance
        How far apart the surfaces of classes in volumes may be to agree, in the unit of the files.
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
        If an annotation has no result (naming them), or no pair can be compared: it has two shapes or places, a file
        cannot be read, or holds classes where objects are expected.
    SettingsError
        If the tolerance is no length.
    """
    truth, tolerance = as_path(truth, "the folder of annotations"), as_number(tolerance, "the tolerance")
    pairs = pair_results(as_path(predicted, "the folder of results"), truth, data.channels, data.annotation)
    if data.kind == "instances":
        return _evaluate_objects(pairs, truth, data, options)
    return _evaluate_classes(pairs, truth, data, tolerance, options)


def _evaluate_objects(
    pairs: Sequence[tuple[Path, Path]], truth: Path, data: DataSettings, options: ReadOptions | None
) -> Evaluation:
    notes: list[str] = []

    def compare(pair: tuple[Path, Path]) -> tuple[Tally, RegionScore]:
        if _kind_of(pair[1]) == "classes":
            hint = "compare them by a recipe of kind = 'classes'"
            raise InputError("holds classes, not objects", path=pair[1], hint=hint)
        true, found = _read_pair(*pair, data, options)
        notes.extend(check_alignment(*pair, true.shape, options)[1])
        return tally(true, found), _overlap(true, found)

    done, failed = _each(pairs, compare)
    figures = _pool([counted for _, (counted, _) in done])
    rows = [{"case": _name(pair, truth), **_object_figures(counted)} for pair, (counted, _) in done]
    return replace(
        figures,
        cases=_with_failed(rows, failed, pairs, truth),
        failed=tuple(map(str, failed.values())),
        notes=(*_doubt_ids(figures, [overlap for _, (_, overlap) in done]), *notes),
    )


def _evaluate_classes(
    pairs: Sequence[tuple[Path, Path]],
    truth: Path,
    data: DataSettings,
    tolerance: float,
    options: ReadOptions | None,
) -> ClassEvaluation:
    whole = _compares_foreground(pairs, data)
    names = data.foreground if not whole or len(data.foreground) == 1 else ("foreground",)
    asked = _regions(names, None if whole else data.regions, tolerance, data.min_lesion_mm3)

    notes = [f"the results are objects: {', '.join(data.foreground)} are compared as one"]
    notes = notes if whole and len(data.foreground) > 1 else []

    def compare(pair: tuple[Path, Path]) -> tuple[list[RegionScore], Grid | None]:
        if not whole and _kind_of(pair[1]) == "objects":
            hint = "compare them by a recipe of kind = 'instances'"
            raise InputError("holds objects, not classes", path=pair[1], hint=hint)
        true, found = _read_pair(*pair, data, options)
        if whole:
            true, found = np.minimum(true, 1), np.minimum(found, 1)
        grid, remarks = check_alignment(*pair, true.shape, options)
        notes.extend(remarks)
        unknown, nothing = undrawn_regions(pair[0], data), RegionScore()
        known = zip(asked.values, score_regions(true, found, asked, grid), strict=True)
        return [nothing if name in unknown else score for name, score in known], grid

    done, failed = _each(pairs, compare)
    figures = _class_figures([scores for _, (scores, _) in done], asked, [grid for _, (_, grid) in done])
    rows: list[Row] = []
    for pair, (scores, grid) in done:
        own = _region_figures(scores, asked, grid)
        rows += [{"case": _name(pair, truth), "class": name, **each} for name, each in own.items()]
    return replace(
        figures,
        cases=_with_failed(rows, failed, pairs, truth),
        failed=tuple(map(str, failed.values())),
        notes=tuple(notes),
    )


def _each(
    pairs: Sequence[tuple[Path, Path]], compare: Callable[[tuple[Path, Path]], T]
) -> tuple[list[tuple[tuple[Path, Path], T]], dict[tuple[Path, Path], InputError]]:
    """Return what comes of each pair, and the errors of those that cannot be compared; raise where all cannot."""
    done, failed = [], {}
    for pair in pairs:
        try:
            done.append((pair, compare(pair)))
        except InputError as error:
            failed[pair] = error if error.path else InputError(error.cause, path=pair[1], hint=error.hint)
    if not done:
        raise next(iter(failed.values()))
    return done, failed


def _name(pair: tuple[Path, Path], truth: Path) -> str:
    return pair[0].relative_to(truth).as_posix()


def _with_failed(
    rows: Sequence[Row],
    failed: Mapping[tuple[Path, Path], InputError],
    pairs: Sequence[tuple[Path, Path]],
    truth: Path,
) -> tuple[Row, ...]:
    """Return the rows of all cases in the order of the pairs."""
    order = {_name(pair, truth): number for number, pair in enumerate(pairs)}
    lost: list[Row] = [{"case": _name(pair, truth), "message": str(error)} for pair, error in failed.items()]
    return tuple(sorted([*rows, *lost], key=lambda row: order[str(row["case"])]))


def _object_figures(counted: Tally) -> Row:
    figures = _pool([counted])
    at = figures.as_figures()
    named = {name: at.get(name, math.nan) for name in ("ap", "ap50", "ap75", "ap90", "f1_50", "pq")}
    counts = {"true": counted.truth, "predicted": counted.predicted}
    return {**counts, **named, "splits": counted.splits, "merges": counted.merges}


def _region_figures(scores: Sequence[RegionScore], asked: Regions, grid: Grid | None) -> dict[str, Row]:
    """Return the figures of one case for each region."""
    rows: dict[str, Row] = {}
    for name, score in zip(asked.values, scores, strict=True):
        row: dict[str, str | int | float] = {"true_voxels": score.true, "predicted_voxels": score.found}
        row |= {"dice": _dice(score), "iou": _iou(score)}
        if score.surfaces is not None and grid is not None:
            row |= {f"hd95_{grid.unit or 'px'}": score.surfaces.hd95, "nsd": score.surfaces.nsd}
        if score.lesions is not None:
            own = _lesion_figures([[score]])
            row |= {"lesions": own.true[0], "lesions_found": own.found[0], "lesions_spurious": own.spurious[0]}
            row |= {"lesion_f1": own.f1[0], "lesion_dice": own.dice[0]}
        rows[name] = row
    return rows


def _overlap(true: NDArray[np.int32], found: NDArray[np.int32]) -> RegionScore:
    labelled = true != UNLABELLED
    one, other = true > 0, (found > 0) & labelled
    return RegionScore(int(np.count_nonzero(one & other)), int(np.count_nonzero(one)), int(np.count_nonzero(other)))


def _doubt_ids(figures: Evaluation, overlaps: Sequence[RegionScore]) -> tuple[str, ...]:
    """Say where no object matches although the foreground does: the ids of one side are classes."""
    agree = _dice(_total(overlaps))
    if not (figures.ap[0] < _NO_MATCH and agree > _AGREES):
        return ()
    counts = f"{sum(figures.truth_counts)} true and {sum(figures.predicted_counts)} predicted ids"
    return (
        f"AP is {figures.ap[0]:.3f} although the foreground agrees (Dice {agree:.3f}; {counts}): are the values of one "
        "side classes? Then compare by a recipe of kind = 'classes'",
    )


def _kind_of(found: Path) -> ResultKind | None:
    """Return what the values of a result are: as it says itself, or else as the table beside it does."""
    kind = read_label_kind(found)
    table = found.with_name(f"{stem_of(found).removesuffix('_labels')}_objects.csv")
    if kind is not None or not table.is_file():
        return kind
    with table.open(encoding="utf-8", errors="replace") as file:
        return "classes" if "class" in file.readline().strip().split(",") else "objects"


def _compares_foreground(pairs: Sequence[tuple[Path, Path]], data: DataSettings) -> bool:
    """Return whether results are objects where the annotations have classes, so that only the foreground is comparable.

    A model of strokes gives objects. With one class, objects of it are as good.
    """
    alone = len(data.foreground) == 1 and not data.regions
    if data.kind == "classes" and not alone:
        return False
    if data.kind == "scribbles" and alone:
        return True
    for _, found in pairs:
        with suppress(InputError):  # said when the pair is compared
            if _kind_of(found) == "objects":
                return True
    return False


def _regions(
    names: Sequence[str], regions: Mapping[str, Sequence[int]] | None, tolerance: float, min_lesion_mm3: float = 0.0
) -> Regions:
    values = regions or {name: (value,) for value, name in enumerate(names, 1)}
    return Regions({name: tuple(own) for name, own in values.items()}, len(names), tolerance, min_lesion_mm3)


def _both(
    truths: Sequence[NDArray[Any]], predicted: Sequence[NDArray[Any]]
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    if len(truths) != len(predicted):
        raise InputError(f"{len(predicted)} predicted images, but {len(truths)} true ones")
    yield from zip(truths, predicted, strict=True)


def _pool(tallies: Sequence[Tally]) -> Evaluation:
    each = [_precision(t) for t in tallies]  # NaN without objects, which the mean leaves out
    true, found = (np.array([getattr(t, name) for t in tallies], np.int64) for name in ("truth", "predicted"))
    total = _sum(tallies)
    hits, misses, extra = total.matched[0], total.truth - total.matched[0], total.spurious[0]
    f1 = _f1(total)
    difference = found - true
    return Evaluation(
        thresholds=THRESHOLDS,
        ap=_precision(total),
        ap_per_image=tuple(mean(column) for column in zip(*each, strict=True)) or (math.nan,) * len(THRESHOLDS),
        f1=f1,
        pq=ratio(total.iou, hits + (misses + extra) / 2),
        sq=ratio(total.iou, hits),
        rq=f1[0],
        splits=total.splits,
        merges=total.merges,
        count_mae=mean(np.abs(difference)),
        count_bias=mean(difference),
        count_error=ratio(abs(int(difference.sum())), int(true.sum())),
        truth_counts=tuple(true.tolist()),
        predicted_counts=tuple(found.tolist()),
    )


def _sum(tallies: Sequence[Tally]) -> Tally:
    matched, spurious = (
        tuple(sum(column) for column in zip(*columns, strict=True)) or (0,) * len(THRESHOLDS)
        for columns in ([t.matched for t in tallies], [t.spurious for t in tallies])
    )
    return Tally(
        truth=sum(t.truth for t in tallies),
        predicted=sum(t.predicted for t in tallies),
        matched=matched,
        spurious=spurious,
        iou=math.fsum(t.iou for t in tallies),
        splits=sum(t.splits for t in tallies),
        merges=sum(t.merges for t in tallies),
    )


def _precision(t: Tally) -> tuple[float, ...]:
    return tuple(ratio(hits, t.truth + extra) for hits, extra in zip(t.matched, t.spurious, strict=True))


def _f1(t: Tally) -> tuple[float, ...]:
    return tuple(ratio(2 * hits, hits + t.truth + extra) for hits, extra in zip(t.matched, t.spurious, strict=True))


def _class_figures(
    scores: Sequence[Sequence[RegionScore]], asked: Regions, grids: Sequence[Grid | None]
) -> ClassEvaluation:
    """Pool the scores of images, one of each region."""
    columns = [[image[n] for image in scores] for n in range(len(asked.values))]
    totals = [_total(column) for column in columns]
    units = sorted({grid.unit or "px" for grid in grids if grid is not None})
    if len(units) > 1:
        raise InputError(f"images in {' and in '.join(units)}: their distances cannot be averaged")
    return ClassEvaluation(
        classes=tuple(asked.values),
        dice=tuple(_dice(score) for score in totals),
        iou=tuple(_iou(score) for score in totals),
        dice_per_image=tuple(mean([_dice(score) for score in column]) for column in columns),
        iou_per_image=tuple(mean([_iou(score) for score in column]) for column in columns),
        images=len(scores),
        surfaces=_surface_figures(columns, units[0], asked.tolerance) if units else None,
        lesions=_lesion_figures(columns) if units else None,
    )


def _total(scores: Sequence[RegionScore]) -> RegionScore:
    return RegionScore(*(sum(getattr(score, name) for score in scores) for name in ("shared", "true", "found")))


def _dice(score: RegionScore) -> float:
    return ratio(2 * score.shared, score.true + score.found)


def _iou(score: RegionScore) -> float:
    return ratio(score.shared, score.true + score.found - score.shared)


def _surface_figures(columns: Sequence[Sequence[RegionScore]], unit: str, tolerance: float) -> SurfaceFigures:
    each = [[score.surfaces for score in column if score.surfaces is not None and score.true] for column in columns]
    return SurfaceFigures(
        unit=unit,
        tolerance=tolerance,
        hd95=tuple(mean([surfaces.hd95 for surfaces in one]) for one in each),
        nsd=tuple(mean([surfaces.nsd for surfaces in one]) for one in each),
        images=tuple(len(one) for one in each),
        missed=tuple(sum(math.isnan(surfaces.hd95) for surfaces in one) for one in each),
    )


def _lesion_figures(columns: Sequence[Sequence[RegionScore]]) -> LesionFigures:
    each = [[score.lesions for score in column if score.lesions is not None] for column in columns]
    true, found, spurious = (
        tuple(sum(getattr(lesions, name) for lesions in one) for one in each) for name in ("true", "found", "spurious")
    )
    dice = [math.fsum(lesions.dice for lesions in one) for one in each]
    return LesionFigures(
        true=true,
        found=found,
        missed=tuple(t - f for t, f in zip(true, found, strict=True)),
        spurious=spurious,
        f1=tuple(ratio(2 * f, f + t + s) for t, f, s in zip(true, found, spurious, strict=True)),
        dice=tuple(ratio(d, t + s) for d, t, s in zip(dice, true, spurious, strict=True)),
    )


def _read_pair(
    truth: Path, predicted: Path, data: DataSettings, options: ReadOptions | None
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    found = read_labels(predicted, options)
    order = read_label_grid(predicted, found.shape, options) if found.ndim == 3 else None
    true = read_annotation(truth, data, options=options, order=order).labels
    if true.shape != found.shape:
        raise InputError(f"is {true.shape}, but the result {predicted} is {found.shape}", path=truth)
    return true, found
