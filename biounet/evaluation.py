"""Figures that say how well predicted labels agree with annotations, on labelled voxels only."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.arguments import as_path, is_number
from biounet.errors import InputError, SettingsError
from biounet.files import ReadOptions, read_annotation, read_labels, unknown_regions
from biounet.files.nifti import compare_places
from biounet.files.read import calibrate, open_raw
from biounet.files.results import pair_results
from biounet.matching import THRESHOLDS, Tally, tally
from biounet.recipe import DataSettings
from biounet.region_scores import Regions, RegionScore, score_regions
from biounet.scores import ClassEvaluation, Evaluation, LesionFigures, SurfaceFigures, mean, ratio
from biounet.volume import Grid

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
    predicted: Path, truth: Path, data: DataSettings, tolerance: float = 1.0
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

    Raises
    ------
    InputError
        If an annotation has no result (naming them), a pair has two shapes or places, or a file cannot be read.
    SettingsError
        If the tolerance is no length.
    """
    if not is_number(tolerance):
        raise SettingsError(f"tolerance {tolerance!r}: a length")
    predicted, truth = as_path(predicted, "the folder of results"), as_path(truth, "the folder of annotations")
    pairs = pair_results(predicted, truth, data.channels)
    if data.kind == "instances":
        return _pool([tally(*_read_pair(*pair, data)) for pair in pairs])
    asked = _regions(data.foreground, data.regions, tolerance, data.min_lesion_mm3)
    scores, grids = [], []
    for true, found in pairs:
        arrays = _read_pair(true, found, data)
        grid = _grid_of(true, found, arrays[0].shape)
        known = score_regions(*arrays, asked, grid)
        unknown = unknown_regions(true, data)
        nothing = RegionScore()
        scores.append([nothing if name in unknown else s for name, s in zip(asked.values, known, strict=True)])
        grids.append(grid)
    return _class_figures(scores, asked, grids)


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
    totals = [
        RegionScore(*(sum(getattr(score, name) for score in column) for name in ("shared", "true", "found")))
        for column in columns
    ]
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


def _read_pair(truth: Path, predicted: Path, data: DataSettings) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    true, found = read_annotation(truth, data).labels, read_labels(predicted)
    if true.shape != found.shape:
        raise InputError(f"is {true.shape}, but the result {predicted} is {found.shape}", path=truth)
    return true, found


def _grid_of(truth: Path, predicted: Path, shape: tuple[int, ...]) -> Grid | None:
    """Return where the voxels of a volume are; None for an image, whose surfaces and lesions nobody asks for."""
    if len(shape) == 2:
        return None
    options = ReadOptions(dims=3)
    true, found = (calibrate(shape, open_raw(path), path, options)[0] for path in (truth, predicted))
    difference, _ = compare_places(found, true)
    if true.affine is not None and found.affine is not None and difference:
        raise InputError(f"does not lie where the result {predicted} does: {difference}", path=truth)
    return found if found.calibrated else true
