"""How well the classes or regions of images agree with the truth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from biounet.core import Grid, InputError
from biounet.evaluation.records import EvaluationRecord, Row, format_figure, keep_defined, mean, ratio, zip_images
from biounet.evaluation.region_scores import Regions, RegionScore, score_regions


@dataclass(frozen=True)
class SurfaceFigures:
    """Agreement of the surfaces of each class in densely labelled images (see `ClassEvaluation.definitions`)."""

    unit: str  # "mm", "um", or "px" if the images are not calibrated
    tolerance: float  # in that unit
    hd95: tuple[float, ...]
    nsd: tuple[float, ...]
    images: tuple[int, ...]  # where the truth has the class
    missed: tuple[int, ...]  # those of them where the prediction has not, and HD95 is not defined


@dataclass(frozen=True)
class LesionFigures:
    """Agreement of the lesions of each class in densely labelled images (see `compare_lesions`).

    `dice` is the sum of the Dice of the true lesions, 0 for those missed, by the number of true and spurious ones.
    """

    true: tuple[int, ...]
    found: tuple[int, ...]
    missed: tuple[int, ...]
    false_positives: tuple[int, ...]
    f1: tuple[float, ...]
    dice: tuple[float, ...]


@dataclass(frozen=True)
class ClassEvaluation(EvaluationRecord):
    """Agreement of classes with the truth, pooled over the labelled voxels of all images unless it says otherwise.

    Attributes
    ----------
    classes
        Names of the classes 1, 2, … without background; or of regions, if these are compared.
    dice, iou
        Of each class; NaN if neither truth nor prediction has it.
    dice_per_image, iou_per_image
        The same, of each image, then averaged over the images where truth or prediction has the class.
    """

    classes: tuple[str, ...]
    dice: tuple[float, ...]
    iou: tuple[float, ...]
    dice_per_image: tuple[float, ...]
    iou_per_image: tuple[float, ...]
    images: int
    surfaces: SurfaceFigures | None = None  # of volumes
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
            figures |= {f"{name}_{label}": value for label, value in zip(self.classes, values, strict=True)}
        return keep_defined(figures)

    def definitions(self) -> tuple[str, ...]:
        """Return how the figures of surfaces are defined, one line each."""
        if self.surfaces is None:
            return ()
        tolerance = f"{self.surfaces.tolerance:g} {self.surfaces.unit}"
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
        figures: dict[str, Sequence[float]] = {
            "Dice": self.dice,
            "IoU": self.iou,
            "Dice per image": self.dice_per_image,
            "IoU per image": self.iou_per_image,
        }
        if (surfaces := self.surfaces) is not None:
            figures |= {
                f"HD95 ({surfaces.unit})": surfaces.hd95,
                f"NSD ({surfaces.tolerance:g} {surfaces.unit})": surfaces.nsd,
            }
        if self.lesions is not None:
            figures |= {"lesion F1": self.lesions.f1, "lesion Dice": self.lesions.dice}
        columns = {name: [*map(format_figure, (*values, mean(values)))] for name, values in figures.items()}
        if surfaces is not None:
            for index, count in enumerate(surfaces.missed):
                remark = f" ({count} of {surfaces.images[index]} missed)" if count else ""
                columns[f"HD95 ({surfaces.unit})"][index] += remark
        if self.lesions is not None:
            lesions = zip(self.lesions.found, self.lesions.true, self.lesions.false_positives, strict=True)
            columns["lesions"] = [*(f"{found} of {true}, {extra} spurious" for found, true, extra in lesions), ""]
        return [("class", *columns), *zip((*self.classes, "mean"), *columns.values(), strict=True)]


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
        Grid of each image, for surfaces and lesions. These are compared in images without unlabelled voxels only: where
        a surface meets one is unknown, as is whether two parts of a lesion are one.
    regions
        Regions that are compared instead of classes, by name the classes of each.
    tolerance
        Distance up to which surfaces agree, in the unit of the grids; voxels if they have none.

    Raises
    ------
    InputError
        If the shapes or numbers of images differ, a class has no name, or grids have different units.
    SettingsError
        If the tolerance is no length.
    """
    compared = Regions(class_names, regions, tolerance)
    all_grids: Sequence[Grid | None] = [None] * len(truths) if grids is None else grids
    if len(all_grids) != len(truths):
        raise InputError(f"{len(all_grids)} grids, but {len(truths)} images")
    pairs = zip(zip_images(truths, predicted), all_grids, strict=True)
    return pool_regions([score_regions(*pair, compared, grid) for pair, grid in pairs], compared, all_grids)


def pool_regions(
    scores: Sequence[Sequence[RegionScore]], regions: Regions, grids: Sequence[Grid | None]
) -> ClassEvaluation:
    """Return the figures of a set of images from the score of each region in each image."""
    columns = [[image[index] for image in scores] for index in range(len(regions.values))]
    totals = [add_voxels(column) for column in columns]
    units = sorted({grid.unit or "px" for grid in grids if grid is not None})
    if len(units) > 1:
        raise InputError(f"images in {' and in '.join(units)}: their distances cannot be averaged")
    return ClassEvaluation(
        classes=tuple(regions.values),
        dice=tuple(score.dice for score in totals),
        iou=tuple(score.iou for score in totals),
        dice_per_image=tuple(mean([score.dice for score in column]) for column in columns),
        iou_per_image=tuple(mean([score.iou for score in column]) for column in columns),
        images=len(scores),
        surfaces=_surface_figures(columns, units[0], regions.tolerance) if units else None,
        lesions=_lesion_figures(columns) if units else None,
    )


def region_row(score: RegionScore, grid: Grid | None) -> Row:
    """Return the figures of one region in one image for a table of cases."""
    names = ("true_voxels", "predicted_voxels", "dice", "iou")
    row: dict[str, str | int | float] = {name: getattr(score, name) for name in names}
    if score.surfaces is not None and grid is not None:
        row |= {f"hd95_{grid.unit or 'px'}": score.surfaces.hd95, "nsd": score.surfaces.nsd}
    if score.lesions is not None:
        figures = _lesion_figures([[score]])
        row |= {"lesions": figures.true[0], "lesions_found": figures.found[0]}
        row |= {"lesions_spurious": figures.false_positives[0]}
        row |= {"lesion_f1": figures.f1[0], "lesion_dice": figures.dice[0]}
    return row


def add_voxels(scores: Sequence[RegionScore]) -> RegionScore:
    """Return the voxels of a region in all images together."""
    names = ("intersection", "true_voxels", "predicted_voxels")
    return RegionScore(*(sum(getattr(score, name) for score in scores) for name in names))


def _surface_figures(columns: Sequence[Sequence[RegionScore]], unit: str, tolerance: float) -> SurfaceFigures:
    columns = [[score for score in column if score.true_voxels] for column in columns]
    surfaces = [[score.surfaces for score in column if score.surfaces is not None] for column in columns]
    return SurfaceFigures(
        unit=unit,
        tolerance=tolerance,
        hd95=tuple(mean([one.hd95 for one in column]) for column in surfaces),
        nsd=tuple(mean([one.nsd for one in column]) for column in surfaces),
        images=tuple(map(len, surfaces)),
        missed=tuple(sum(math.isnan(one.hd95) for one in column) for column in surfaces),
    )


def _lesion_figures(columns: Sequence[Sequence[RegionScore]]) -> LesionFigures:
    lesions = [[score.lesions for score in column if score.lesions is not None] for column in columns]
    true, found, extra = (
        tuple(sum(getattr(one, name) for one in column) for column in lesions)
        for name in ("true", "found", "false_positives")
    )
    dice = [math.fsum(one.dice for one in column) for column in lesions]
    return LesionFigures(
        true=true,
        found=found,
        missed=tuple(t - f for t, f in zip(true, found, strict=True)),
        false_positives=extra,
        f1=tuple(ratio(2 * f, f + t + e) for t, f, e in zip(true, found, extra, strict=True)),
        dice=tuple(ratio(d, t + e) for d, t, e in zip(dice, true, extra, strict=True)),
    )
