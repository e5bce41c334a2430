"""The figures of a comparison, as records that print and serialise themselves.

A figure that is not defined, such as the Dice of a class that nobody has, is NaN in a record, None in JSON and absent
among the main figures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.measurement import columns_to_csv

Row = Mapping[str, str | int | float]
"""Figures of one case, or of one class in one case, by name; NaN where not defined."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What was compared, beside the figures of all of it.

    Attributes
    ----------
    cases
        Of each case, or of each class in each case, the figures by name; of a case that failed, only its `message`.
    failed
        Why cases could not be compared, one line each. They are in none of the other figures.
    notes
        Remarks that a user should see.
    """

    cases: tuple[Row, ...] = ()
    failed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def definitions(self) -> tuple[str, ...]:
        """Return what the figures are that are defined in several ways, one line each."""
        return ()

    def as_dict(self) -> dict[str, Any]:
        """Return all figures for JSON, None where not defined; without what was not compared or has nothing to say."""
        figures = {name: _for_json(value) for name, value in asdict(self).items() if value is not None}
        beside = {name: figures.pop(name) for name in ("cases", "failed", "notes")}
        beside["definitions"] = list(self.definitions())
        return figures | {name: value for name, value in beside.items() if value}

    def as_csv(self) -> str:
        """Return one row per case, or per class and case, as CSV; empty cells where a figure is not defined."""
        names = dict.fromkeys(name for row in self.cases for name in row if name != "message")
        return columns_to_csv({name: _column([row.get(name) for row in self.cases]) for name in [*names, "message"]})


@dataclass(frozen=True)
class Evaluation(Compared):
    """Agreement of objects with the truth, pooled over images unless it says otherwise.

    An image without any object, true or predicted, adds nothing to AP, F1 and PQ. On sparse truth only labelled voxels
    count, and a predicted object that lies more than half in unlabelled voxels counts where it matches a true one.

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
        True objects found as several, and predicted objects that are several (see `biounet.evaluation.tally`).
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
            "ap": mean(self.ap),
            "ap50": at[0.5],
            "ap75": at[0.75],
            "ap90": at[0.9],
            "f1_50": self.f1[0],
            "pq": self.pq,
            "count_mae": self.count_mae,
            "count_error": self.count_error,
        }
        return _defined(figures)

    def as_table(self) -> list[tuple[str, ...]]:
        """Return the figures as rows of text."""
        rows = zip(self.thresholds, self.ap, self.ap_per_image, self.f1, strict=True)
        table: list[tuple[str, ...]] = [("IoU", "AP", "AP per image", "F1")]
        table += [(f"{t:.2f}", _text(ap), _text(each), _text(f1)) for t, ap, each, f1 in rows]
        table.append(("mean", _text(mean(self.ap)), _text(mean(self.ap_per_image)), _text(mean(self.f1))))
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
class SurfaceFigures:
    """Agreement of surfaces of each class (see `biounet.evaluation.compare_surfaces`), of densely labelled images.

    Attributes
    ----------
    unit
        Of lengths: ``mm``, ``um``, or ``px`` where the images are not calibrated.
    tolerance
        Distance in that unit up to which surfaces agree.
    hd95
        95th percentile of the Hausdorff distance, averaged over the images where truth and prediction have the class.
    nsd
        Normalised surface Dice, averaged over the images where the truth has the class; 0 where the prediction has not.
    images, missed
        Images where the truth has the class, and those of them where the prediction has not, which have no HD95.
    """

    unit: str
    tolerance: float
    hd95: tuple[float, ...]
    nsd: tuple[float, ...]
    images: tuple[int, ...]
    missed: tuple[int, ...]


@dataclass(frozen=True)
class LesionFigures:
    """Agreement of the lesions of each class (see `biounet.evaluation.compare_lesions`), of densely labelled images.

    Attributes
    ----------
    true, found, missed, spurious
        Lesions of all images: ``true = found + missed``.
    f1
        2 found / (2 found + missed + spurious).
    dice
        Sum of the Dice of the true lesions, 0 for those missed, divided by the number of true and spurious ones.
    """

    true: tuple[int, ...]
    found: tuple[int, ...]
    missed: tuple[int, ...]
    spurious: tuple[int, ...]
    f1: tuple[float, ...]
    dice: tuple[float, ...]


@dataclass(frozen=True)
class ClassEvaluation(Compared):
    """Agreement of classes with the truth, pooled over the labelled voxels of all images unless it says otherwise.

    Attributes
    ----------
    classes
        Names of the classes 1, 2, …; background is none. Or of regions, where classes are compared in regions.
    dice, iou
        Of each class; NaN where neither truth nor prediction has it.
    dice_per_image, iou_per_image
        The same, of each image, then averaged over the images where truth or prediction has the class.
    images
        Number of images.
    surfaces, lesions
        Of volumes; None where they were not compared.
    """

    classes: tuple[str, ...]
    dice: tuple[float, ...]
    iou: tuple[float, ...]
    dice_per_image: tuple[float, ...]
    iou_per_image: tuple[float, ...]
    images: int
    surfaces: SurfaceFigures | None = None
    lesions: LesionFigures | None = None

    def as_figures(self) -> dict[str, float]:
        """Return the figures by name, those that are not defined left out; ``dice`` is the mean over classes."""
        columns = {"dice": self.dice, "iou": self.iou}
        if self.surfaces is not None:
            columns |= {f"hd95_{self.surfaces.unit}": self.surfaces.hd95, "nsd": self.surfaces.nsd}
        if self.lesions is not None:
            columns |= {"lesion_f1": self.lesions.f1, "lesion_dice": self.lesions.dice}
        figures = {name: mean(values) for name, values in columns.items()}
        for name, values in columns.items():
            figures |= {f"{name}_{own}": value for own, value in zip(self.classes, values, strict=True)}
        return _defined(figures)

    def definitions(self) -> tuple[str, ...]:
        """Return what the figures are that are defined in several ways, one line each."""
        if (near := self.surfaces) is None:
            return ()
        tolerance = f"{near.tolerance:g} {near.unit}"
        return (
            "Dice per image: mean over the images where truth or prediction has the class",
            "surface: the voxels of a class with a face on another voxel or on the edge of the image; distances are "
            "those of their centres",
            "HD95: the larger of both 95th percentiles of the distances from one surface to the other, mean over the "
            "images where truth and prediction have the class",
            f"NSD: share of the voxels of both surfaces within {tolerance} of the other one (Seidlitz et al. 2021, "
            "arXiv:2111.05408), mean over the images where the truth has the class, 0 where it is missed",
        )

    def as_table(self) -> list[tuple[str, ...]]:
        """Return the figures as rows of text."""
        columns: dict[str, Sequence[float]] = {
            "Dice": self.dice,
            "IoU": self.iou,
            "Dice per image": self.dice_per_image,
            "IoU per image": self.iou_per_image,
        }
        if (near := self.surfaces) is not None:
            columns |= {f"HD95 ({near.unit})": near.hd95, f"NSD ({near.tolerance:g} {near.unit})": near.nsd}
        if self.lesions is not None:
            columns |= {"lesion F1": self.lesions.f1, "lesion Dice": self.lesions.dice}
        rows = [(name, *map(_text, values)) for name, *values in zip(self.classes, *columns.values(), strict=True)]
        if near is not None:
            at = 1 + list(columns).index(f"HD95 ({near.unit})")
            misses = zip(rows, near.missed, near.images, strict=True)
            rows = [
                (*row[:at], f"{row[at]} ({missed} of {images} missed)" if missed else row[at], *row[at + 1 :])
                for row, missed, images in misses
            ]
        table = [("class", *columns), *rows, ("mean", *(_text(mean(values)) for values in columns.values()))]
        if self.lesions is None:
            return table
        counts = zip(self.lesions.true, self.lesions.found, self.lesions.spurious, strict=True)
        texts = ["lesions", *(f"{found} of {true}, {extra} spurious" for true, found, extra in counts), ""]
        return [(*row, text) for row, text in zip(table, texts, strict=True)]


def ratio(part: float, whole: float) -> float:
    """Return ``part / whole``; NaN where there is nothing to divide by."""
    return float(part / whole) if whole else math.nan


def mean(values: Sequence[float] | NDArray[Any]) -> float:
    """Return the mean of the values that are defined; NaN when none is."""
    defined = [float(value) for value in values if not math.isnan(value)]
    return math.fsum(defined) / len(defined) if defined else math.nan


def _defined(figures: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if not math.isnan(value)}


def _for_json(value: Any) -> Any:  # noqa: ANN401 - any field of a record
    if isinstance(value, dict):
        return {name: _for_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_for_json(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _column(values: Sequence[str | int | float | None]) -> NDArray[Any]:
    """Return a column of a table: floats where there is one, else integers or texts, nothing where there is none."""
    if any(isinstance(value, float) for value in values):
        return np.array([math.nan if value is None else value for value in values], np.float64)
    return np.array(values, object)


def _text(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
