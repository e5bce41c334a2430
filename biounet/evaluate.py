"""Figures that say how well predicted labels agree with annotations, on labelled voxels only."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.annotation import UNLABELLED
from biounet.errors import InputError
from biounet.files import read_annotation, read_labels
from biounet.files.find import is_image, stem_of
from biounet.matching import THRESHOLDS, Tally, tally
from biounet.recipe import DataSettings

_RESULT = "_labels"
_MASKS = ("_masks", "_mask", "_labels", "_label")
_SHOWN = 10  # names that a message lists


@dataclass(frozen=True)
class Evaluation:
    """Agreement of objects with the truth, pooled over images unless it says otherwise.

    NaN where a figure is not defined, such as any of them where there is no object at all.

    Attributes
    ----------
    thresholds
        IoU from which on a pair is a match, 0.5, 0.55, … 0.9.
    ap
        TP / (TP + FP + FN) at each threshold. This is what StarDist and the 2018 Data Science Bowl call average
        precision; it is not the area under a precision-recall curve of COCO.
    ap_per_image
        The same, of each image, then averaged over images that have any object.
    f1
        2 TP / (2 TP + FP + FN) at each threshold.
    pq, sq, rq
        Panoptic, segmentation and recognition quality at 0.5, ``pq = sq * rq`` (Kirillov et al. 2019).
    splits, merges
        True objects found as several, and predicted objects that are several (see `biounet.matching.tally`).
    count_mae, count_bias
        Mean absolute and mean signed (predicted - true) difference of the counts of an image.
    count_error
        ``|predicted - true| / true`` of the sums over all images.
    truth_counts, predicted_counts
        Objects of each image.
    """

    thresholds: tuple[float, ...]
    ap: tuple[float, ...]
    ap_per_image: tuple[float, ...]
    f1: tuple[float, ...]
    pq: float
    sq: float
    rq: float
    splits: int
    merges: int
    count_mae: float
    count_bias: float
    count_error: float
    truth_counts: tuple[int, ...]
    predicted_counts: tuple[int, ...]

    def as_figures(self) -> dict[str, float]:
        """Return the main figures by name, those that are not defined left out; ``ap`` is the mean over thresholds."""
        at = dict(zip(self.thresholds, self.ap, strict=True))
        figures = {
            "ap": _mean(self.ap),
            "ap50": at[0.5],
            "ap75": at[0.75],
            "ap90": at[0.9],
            "f1_50": self.f1[0],
            "pq": self.pq,
            "count_mae": self.count_mae,
            "count_error": self.count_error,
        }
        return _defined(figures)

    def as_dict(self) -> dict[str, Any]:
        """Return all figures for JSON, None where not defined."""
        return {name: _for_json(value) for name, value in asdict(self).items()}

    def as_table(self) -> list[tuple[str, ...]]:
        """Return the figures as rows of text."""
        rows = zip(self.thresholds, self.ap, self.ap_per_image, self.f1, strict=True)
        table = [("IoU", "AP", "AP per image", "F1")]
        table += [(f"{t:.2f}", _text(ap), _text(each), _text(f1)) for t, ap, each, f1 in rows]
        table.append(("mean", _text(_mean(self.ap)), _text(_mean(self.ap_per_image)), _text(_mean(self.f1))))
        single = {
            "images": str(len(self.truth_counts)),
            "objects": f"{sum(self.predicted_counts)} of {sum(self.truth_counts)}",
            "count MAE": _text(self.count_mae),
            "count bias": _text(self.count_bias),
            "count error": _text(self.count_error),
            "PQ": _text(self.pq),
            "SQ": _text(self.sq),
            "RQ": _text(self.rq),
            "splits": str(self.splits),
            "merges": str(self.merges),
        }
        return table + [(name, value, "", "") for name, value in single.items()]


@dataclass(frozen=True)
class ClassEvaluation:
    """Agreement of classes with the truth, pooled over the labelled voxels of all images.

    Attributes
    ----------
    classes
        Names of the classes 1, 2, …; background is none.
    dice, iou
        Of each class; NaN where neither truth nor prediction has it.
    images
        Number of images.
    """

    classes: tuple[str, ...]
    dice: tuple[float, ...]
    iou: tuple[float, ...]
    images: int

    def as_figures(self) -> dict[str, float]:
        """Return the figures by name, those that are not defined left out; ``dice`` is the mean over classes."""
        figures = {"dice": _mean(self.dice), "iou": _mean(self.iou)}
        figures |= {f"dice_{name}": value for name, value in zip(self.classes, self.dice, strict=True)}
        figures |= {f"iou_{name}": value for name, value in zip(self.classes, self.iou, strict=True)}
        return _defined(figures)

    def as_dict(self) -> dict[str, Any]:
        """Return all figures for JSON, None where not defined."""
        return {name: _for_json(value) for name, value in asdict(self).items()}

    def as_table(self) -> list[tuple[str, ...]]:
        """Return the figures as rows of text."""
        rows = zip(self.classes, self.dice, self.iou, strict=True)
        table = [("class", "Dice", "IoU"), *((name, _text(dice), _text(iou)) for name, dice, iou in rows)]
        return [*table, ("mean", _text(_mean(self.dice)), _text(_mean(self.iou)))]


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
        Folder of annotations: the same names and folders, with any suffix, and ``_masks`` or the like if they want.
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
) -> Iterable[tuple[NDArray[Any], NDArray[Any]]]:
    if len(truths) != len(predicted):
        raise InputError(f"{len(predicted)} predicted images, but {len(truths)} true ones")
    return zip(truths, predicted, strict=True)


def _pool(tallies: Sequence[Tally]) -> Evaluation:
    each = [_precision(t) for t in tallies if t.truth + t.predicted]
    true, found = (np.array([getattr(t, name) for t in tallies], np.int64) for name in ("truth", "predicted"))
    total = _sum(tallies)
    hits, misses, extra = total.matched[0], total.truth - total.matched[0], total.spurious[0]
    f1 = _f1(total)
    difference = found - true
    return Evaluation(
        thresholds=THRESHOLDS,
        ap=_precision(total),
        ap_per_image=tuple(_mean(column) for column in zip(*each, strict=True)) or (math.nan,) * len(THRESHOLDS),
        f1=f1,
        pq=_ratio(total.iou, hits + (misses + extra) / 2),
        sq=_ratio(total.iou, hits),
        rq=f1[0],
        splits=total.splits,
        merges=total.merges,
        count_mae=_mean(np.abs(difference)),
        count_bias=_mean(difference),
        count_error=_ratio(abs(int(difference.sum())), int(true.sum())),
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
        iou=sum(t.iou for t in tallies),
        splits=sum(t.splits for t in tallies),
        merges=sum(t.merges for t in tallies),
    )


def _precision(t: Tally) -> tuple[float, ...]:
    return tuple(_ratio(hits, t.truth + extra) for hits, extra in zip(t.matched, t.spurious, strict=True))


def _f1(t: Tally) -> tuple[float, ...]:
    return tuple(_ratio(2 * hits, hits + t.truth + extra) for hits, extra in zip(t.matched, t.spurious, strict=True))


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
    table = np.sum([np.zeros((len(names) + 1,) * 2, np.int64), *tables], axis=0)
    shared, true, found = np.diag(table)[1:], table.sum(axis=1)[1:], table.sum(axis=0)[1:]
    dice = tuple(_ratio(2 * s, t + f) for s, t, f in zip(shared, true, found, strict=True))
    iou = tuple(_ratio(s, t + f - s) for s, t, f in zip(shared, true, found, strict=True))
    return ClassEvaluation(tuple(names), dice, iou, len(tables))


def _pair_results(predicted: Path, truth: Path) -> list[tuple[Path, Path]]:
    for folder in (predicted, truth):
        if not folder.is_dir():
            raise InputError("no such folder", path=folder)
    results = {_key(path, predicted): path for path in sorted(predicted.rglob(f"*{_RESULT}.tif"))}
    annotations = _annotations(truth)
    missing = [key for key in annotations if key not in results]
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        cause = f"no result {_RESULT}.tif for {len(missing)} of {len(annotations)} annotations: "
        raise InputError(f"{cause}{', '.join(missing[:_SHOWN])}{more}", path=predicted)
    if not annotations:
        raise InputError("no annotation found", path=truth)
    return [(annotations[key], results[key]) for key in annotations]


def _annotations(folder: Path) -> dict[str, Path]:
    """Return the annotations of a folder and below by name; ``a_masks.tif`` is preferred to its image ``a.tif``."""
    found: dict[str, Path] = {}
    for path in sorted(p for p in folder.rglob("*") if is_image(p) and p.is_file() and not p.name.startswith(".")):
        key = _key(path, folder)
        rival = found.get(key)
        if rival is not None and _is_mask(rival) == _is_mask(path):
            raise InputError(f"{path} and {rival} are both annotations of one image")
        if rival is None or _is_mask(path):
            found[key] = path
    return found


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


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else math.nan


def _mean(values: Sequence[float] | NDArray[Any]) -> float:
    """Return the mean of the values that are defined; NaN when none is."""
    defined = [float(value) for value in values if not math.isnan(value)]
    return math.fsum(defined) / len(defined) if defined else math.nan


def _defined(figures: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if not math.isnan(value)}


def _for_json(value: Any) -> Any:  # noqa: ANN401 - any field of a record
    if isinstance(value, tuple):
        return [_for_json(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _text(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
