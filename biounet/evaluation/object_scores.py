"""How well the objects of images agree with the truth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.evaluation.matching import THRESHOLDS, Tally, tally
from biounet.evaluation.records import (
    EvaluationRecord,
    Row,
    format_figure,
    keep_defined,
    mean,
    ratio,
    ratios,
    zip_images,
)


@dataclass(frozen=True)
class Evaluation(EvaluationRecord):
    """Agreement of objects with the truth, pooled over images unless it says otherwise.

    An image without any object, true or predicted, adds nothing to AP, F1 and PQ. On sparse truth only labelled voxels
    count, and a predicted object that lies more than half in unlabelled voxels counts only if it matches a true one.

    Attributes
    ----------
    ap, f1
        TP / (TP + FP + FN) and 2 TP / (2 TP + FP + FN) at each threshold. The first is what StarDist and the 2018 Data
        Science Bowl call average precision; it is not the area under a precision-recall curve of COCO.
    ap_per_image
        AP of each image, then averaged over images that have any object.
    pq, sq, rq
        Panoptic, segmentation and recognition quality at 0.5, ``pq = sq * rq`` (Kirillov et al. 2019).
    splits, merges
        True objects found as several, and predicted objects that are several (see `biounet.evaluation.matching.tally`).
    count_mae, count_bias
        Mean absolute and mean signed (predicted - true) difference of the counts of an image.
    count_error
        ``|predicted - true| / true`` of the sums over all images.
    """

    thresholds: tuple[float, ...]  # IoU from which on a pair is a match: 0.5, 0.55, … 0.9
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
    truth_counts: tuple[int, ...]  # of each image
    predicted_counts: tuple[int, ...]

    def as_figures(self) -> dict[str, float]:
        """Return the main figures by name, those that are not defined left out; ``ap`` is the mean over thresholds."""
        return keep_defined(self._main_figures())

    def _main_figures(self) -> dict[str, float]:
        ap = dict(zip(self.thresholds, self.ap, strict=True))
        return {
            "ap": mean(self.ap),
            "ap50": ap[0.5],
            "ap75": ap[0.75],
            "ap90": ap[0.9],
            "f1_50": self.f1[0],
            "pq": self.pq,
            "count_mae": self.count_mae,
            "count_error": self.count_error,
        }

    def as_row(self) -> Row:
        """Return the figures of an evaluation of one image for a table of cases."""
        figures = self._main_figures()
        counts = {"true": self.truth_counts[0], "predicted": self.predicted_counts[0]}
        names = ("ap", "ap50", "ap75", "ap90", "f1_50", "pq")
        return {**counts, **{name: figures[name] for name in names}, "splits": self.splits, "merges": self.merges}

    def as_table(self) -> list[tuple[str, ...]]:
        """Return the figures as rows of text."""
        columns = (self.ap, self.ap_per_image, self.f1)
        table: list[tuple[str, ...]] = [("IoU", "AP", "AP per image", "F1")]
        rows = zip(self.thresholds, *columns, strict=True)
        table += [(f"{threshold:.2f}", *map(format_figure, figures)) for threshold, *figures in rows]
        table.append(("mean", *(format_figure(mean(column)) for column in columns)))
        single = {
            "images": str(len(self.truth_counts)),
            "objects": f"{sum(self.predicted_counts)} of {sum(self.truth_counts)}",
            "count MAE": format_figure(self.count_mae),
            "count bias": format_figure(self.count_bias),
            "count error": format_figure(self.count_error),
            "PQ": format_figure(self.pq),
            "SQ": format_figure(self.sq),
            "RQ": format_figure(self.rq),
            "splits": str(self.splits),
            "merges": str(self.merges),
        }
        return table + [(name, value, "", "") for name, value in single.items()]


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
    return pool_tallies([tally(truth, found) for truth, found in zip_images(truths, predicted)])


def pool_tallies(tallies: Sequence[Tally]) -> Evaluation:
    """Return the figures of a set of images from the tally of each."""

    def counts(name: str) -> NDArray[np.int64]:
        return np.array([getattr(one, name) for one in tallies], np.int64)

    true, predicted = counts("truth"), counts("predicted")
    hits, extra = (counts(f"{name}_positives").reshape(-1, len(THRESHOLDS)) for name in ("true", "false"))
    difference = predicted - true
    all_hits, all_extra = hits.sum(axis=0), extra.sum(axis=0)
    iou = math.fsum(one.iou for one in tallies)
    f1 = ratios(2 * all_hits, all_hits + true.sum() + all_extra)
    return Evaluation(
        thresholds=THRESHOLDS,
        ap=ratios(all_hits, true.sum() + all_extra),
        ap_per_image=tuple(mean(ratios(*column)) for column in zip(hits.T, (true[:, None] + extra).T, strict=True)),
        f1=f1,
        pq=ratio(iou, (true.sum() + all_hits[0] + all_extra[0]) / 2),
        sq=ratio(iou, all_hits[0]),
        rq=f1[0],
        splits=int(counts("splits").sum()),
        merges=int(counts("merges").sum()),
        count_mae=mean(np.abs(difference)),
        count_bias=mean(difference),
        count_error=ratio(abs(int(difference.sum())), int(true.sum())),
        truth_counts=tuple(true.tolist()),
        predicted_counts=tuple(predicted.tolist()),
    )
