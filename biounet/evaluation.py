"""Figures that say how well predicted labels agree with annotations, on labelled voxels only."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.annotation import UNLABELLED
from biounet.errors import InputError
from biounet.files import read_annotation, read_labels
from biounet.files.find import is_image, natural, stem_of
from biounet.matching import THRESHOLDS, Tally, tally
from biounet.recipe import DataSettings
from biounet.scores import ClassEvaluation, Evaluation, mean, ratio

__all__ = ["ClassEvaluation", "Evaluation", "evaluate_folders", "score_classes", "score_instances"]

_RESULT = "_labels"
_MASKS = ("_masks", "_mask", "_labels", "_label")
_SHOWN = 10  # names that a message lists


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
    truths: Sequence[NDArray[Any]], predicted: Sequence[NDArray[Any]], class_names: Sequence[str]
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

    Raises
    ------
    InputError
        If the shapes or numbers of images differ, or a class has no name.
    """
    tables = [_confusion(truth, found, len(class_names)) for truth, found in _both(truths, predicted)]
    return _class_figures(tables, class_names)


def evaluate_folders(predicted: Path, truth: Path, data: DataSettings) -> Evaluation | ClassEvaluation:
    """Compare results with annotations.

    Parameters
    ----------
    predicted
        Folder of results: ``<name>_labels.tif``, in folders below as well. Results without an annotation are left out.
    truth
        Folder of annotations: the same names, with any suffix, and ``_masks`` or the like if they want, in the same
        folders or, where a name occurs once, in any. Images beside their ``_masks`` are left out.
    data
        What the annotations hold.

    Raises
    ------
    InputError
        If an annotation has no result (naming them), a pair has two shapes, or a file cannot be read.
    """
    pairs = _pair_results(Path(predicted), Path(truth))
    if data.kind == "instances":
        return _pool([tally(*_read_pair(*pair, data)) for pair in pairs])
    names = [name for name in data.classes if name != "background"]
    return _class_figures([_confusion(*_read_pair(*pair, data), len(names)) for pair in pairs], names)


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


def _confusion(truth: NDArray[Any], predicted: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """Count labelled voxels by true (row) and predicted (column) class, shape ``(classes + 1, classes + 1)``."""
    if truth.shape != predicted.shape:
        raise InputError(f"predicted classes are {predicted.shape}, the truth is {truth.shape}")
    labelled = truth != UNLABELLED
    true, found = truth[labelled].astype(np.int64), predicted[labelled].astype(np.int64)
    for values, whose in ((true, "the truth"), (found, "the prediction")):
        if values.size and not 0 <= values.min() <= values.max() <= classes:
            raise InputError(f"{whose} has classes {values.min()} to {values.max()}, of which 0 to {classes} are known")
    edge = classes + 1
    return np.bincount(true * edge + found, minlength=edge * edge).reshape(edge, edge)


def _class_figures(tables: Sequence[NDArray[np.int64]], names: Sequence[str]) -> ClassEvaluation:
    dice, iou = _dice_and_iou(np.sum([np.zeros((len(names) + 1,) * 2, np.int64), *tables], axis=0))
    each = [_dice_and_iou(table) for table in tables]
    dice_per_image, iou_per_image = (
        tuple(mean([figures[kind][n] for figures in each]) for n in range(len(names))) for kind in (0, 1)
    )
    return ClassEvaluation(tuple(names), dice, iou, dice_per_image, iou_per_image, len(tables))


def _dice_and_iou(table: NDArray[np.int64]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return both figures of each class but the background, from counts by true (row) and predicted (column) class."""
    shared, true, found = np.diag(table)[1:], table.sum(axis=1)[1:], table.sum(axis=0)[1:]
    dice = tuple(ratio(2 * s, t + f) for s, t, f in zip(shared, true, found, strict=True))
    iou = tuple(ratio(s, t + f - s) for s, t, f in zip(shared, true, found, strict=True))
    return dice, iou


def _pair_results(predicted: Path, truth: Path) -> list[tuple[Path, Path]]:
    """Return the annotation and the result of each annotated image, in natural order."""
    for folder in (predicted, truth):
        if not folder.is_dir():
            raise InputError("no such folder", path=folder)
    results = {_key(path, predicted): path for path in sorted(predicted.rglob(f"*{_RESULT}.tif"))}
    annotations = _annotations(truth, predicted)
    if not annotations:
        raise InputError("no annotation found", path=truth)
    by_name = _unique_names(results)
    if len(_unique_names(annotations)) < len(annotations):
        by_name = {}  # names alone do not tell these annotations apart
    found = {key: results.get(key) or by_name.get(Path(key).name) for key in annotations}
    missing = [key for key, result in found.items() if result is None]
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        cause = f"no result for {len(missing)} of {len(annotations)} annotations: {', '.join(missing[:_SHOWN])}{more}"
        raise InputError(cause, path=predicted, hint=f"a result is called <image>{_RESULT}.tif")
    return [(annotations[key], result) for key, result in found.items() if result is not None]


def _annotations(truth: Path, predicted: Path) -> dict[str, Path]:
    """Return the annotations of a folder and below by name; where ``a_masks.tif`` lies beside its image, only masks."""
    groups: dict[str, list[Path]] = defaultdict(list)
    inside = predicted != truth and predicted.resolve().is_relative_to(truth.resolve())
    for path in sorted((file for file in truth.rglob("*") if is_image(file) and file.is_file()), key=natural):
        hidden = any(part.startswith(".") for part in path.relative_to(truth).parts)
        if not hidden and not (inside and path.is_relative_to(predicted)):
            groups[_key(path, truth)].append(path)
    if any(len(group) > 1 for group in groups.values()):
        groups = {key: [path for path in group if _is_mask(path)] for key, group in groups.items()}
    for group in groups.values():
        if len(group) > 1:
            raise InputError(f"{group[1]} is an annotation of the same image", path=group[0])
    return {key: group[0] for key, group in groups.items() if group}


def _unique_names(paths: dict[str, Path]) -> dict[str, Path]:
    names: dict[str, list[Path]] = defaultdict(list)
    for key, path in paths.items():
        names[Path(key).name].append(path)
    return {name: found[0] for name, found in names.items() if len(found) == 1}


def _is_mask(path: Path) -> bool:
    return stem_of(path).endswith(_MASKS)


def _key(path: Path, root: Path) -> str:
    stem = stem_of(path)
    ending = next((end for end in _MASKS if stem.endswith(end)), "")
    return (path.relative_to(root).parent / stem.removesuffix(ending)).as_posix()


def _read_pair(truth: Path, predicted: Path, data: DataSettings) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    true, found = read_annotation(truth, data).labels, read_labels(predicted)
    if true.shape != found.shape:
        raise InputError(f"is {true.shape}, but the result {predicted} is {found.shape}", path=truth)
    return true, found
