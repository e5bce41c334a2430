"""Counts of many images summed up by group: wells, animals, treatments.

The unit of a mean is what was treated on its own, a well or an animal, and neither a cell nor a field: fields of one
well are repeated measurements of it, and taken for units they make errors look smaller than they are (Hurlbert 1984,
Ecol. Monogr. 54:187; Lord et al. 2020, J. Cell Biol. 219:e202001064).
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from biounet.measurement.grouping import Grouping
from biounet.measurement.table import Columns

_NUMBERS = ("units", "images", "failed", "count")
_FIGURES = ("mean", "sd", "sem")
_DENSITIES = ("density_mean", "density_sd", "density_sem")
_EACH_IMAGE = "image"
_DIGITS = 6  # significant ones in tables


@dataclass(frozen=True, slots=True)
class ImageCount:
    """What of an image goes into the figures of its group.

    Attributes
    ----------
    image
        Its name.
    count
        Number of objects; None where nothing was counted.
    in_frame
        Those that the counting frame counts.
    frame_mm
        Area of the frame in mm², or volume of the brick in mm³; None where the pixel size is unknown.
    time
        Number of the time point, for an image of a series.
    failed
        Whether the image has no result.
    """

    image: str
    count: int | None
    in_frame: int | None = None
    frame_mm: float | None = None
    time: int | None = None
    failed: bool = False


@dataclass(frozen=True)
class GroupFigures:
    """The figures of a group, or of a unit; NaN where there is none.

    Attributes
    ----------
    values
        What tells it from others, one for each of `GroupSummary.names`; empty texts for what is pooled.
    units, images, failed
        How many units and images went into the figures, and how many images failed and did not.
    count
        Sum of the counts of its images.
    mean, sd, sem
        Of a unit, the mean count of its images. Of a group, mean, standard deviation and standard error of the means of
        its units.
    density_mean, density_sd, density_sem
        The same of the objects per mm², or mm³ in volumes, by the counting frame.
    """

    values: tuple[str, ...]
    units: int
    images: int
    failed: int
    count: int
    mean: float
    sd: float
    sem: float
    density_mean: float
    density_sd: float
    density_sem: float


@dataclass(frozen=True)
class GroupSummary:
    """Counts of many images by group.

    Attributes
    ----------
    names
        Of the columns of `GroupFigures.values`: those of groups first, then those that tell units apart.
    unit
        What a unit is, in words: ``well``, ``plate, well``, or ``image`` where each image is one.
    dims
        2 or 3: whether densities are per mm² or mm³.
    groups
        One for each group; a single one where nothing but units was named.
    units
        One for each unit, by group.
    """

    names: tuple[str, ...]
    unit: str
    dims: int
    groups: tuple[GroupFigures, ...]
    units: tuple[GroupFigures, ...]

    def members(self, group: GroupFigures) -> tuple[GroupFigures, ...]:
        """Return the units of a group."""
        shared = [n for n, value in enumerate(group.values) if value]
        return tuple(row for row in self.units if all(row.values[n] == group.values[n] for n in shared))

    def columns(self) -> Columns:
        """Return the columns of ``groups.csv``: a row for each group, and one for each unit that is not an image."""
        each_image = self.unit == _EACH_IMAGE
        rows = self.groups if each_image else (*self.groups, *self.units)
        names = self.names[:-1] if each_image else self.names
        columns: Columns = {name: np.array([row.values[n] for row in rows], object) for n, name in enumerate(names)}
        columns["unit"] = np.array([self.unit] * len(rows), object)
        columns |= {name: np.array([getattr(row, name) for row in rows], np.int64) for name in _NUMBERS}
        columns |= {name: np.array([_round(getattr(row, name)) for row in rows]) for name in _FIGURES}
        densities = {name: np.array([_round(getattr(row, name)) for row in rows]) for name in _DENSITIES}
        if any(np.isfinite(column).any() for column in densities.values()):
            columns |= {f"{name}_per_mm{self.dims}": column for name, column in densities.items()}
        return columns


def summarise_groups(grouping: Grouping, images: Sequence[ImageCount], dims: int = 2) -> GroupSummary:
    """Sum counts up by group and unit.

    Parameters
    ----------
    grouping
        Which image belongs where; images that it does not know are left out.
    images
        One for each image, or each time point of a series; failed ones are counted as such, and go into no mean.
    dims
        Of the images.
    """
    has_time = any(image.time is not None for image in images) and "t" not in grouping.names
    groups = tuple(name for name in grouping.names if name not in grouping.unit) + (("t",) if has_time else ())
    units = grouping.unit or (_EACH_IMAGE,)
    members: dict[tuple[str, ...], list[ImageCount]] = defaultdict(list)
    for image in images:
        values = grouping.values(image.image)
        if values is not None:
            known = {_EACH_IMAGE: image.image, "t": str(image.time)} | dict(zip(grouping.names, values, strict=True))
            members[tuple(known[name] for name in (*groups, *units))].append(image)
    rows = [_unit(key, members[key]) for key in sorted(members, key=_natural)]
    by_group: dict[tuple[str, ...], list[GroupFigures]] = defaultdict(list)
    for row in rows:
        by_group[row.values[: len(groups)]].append(row)
    pooled = [_group((*key, *("" for _ in units)), inside) for key, inside in by_group.items()]
    return GroupSummary((*groups, *units), ", ".join(units), dims, tuple(pooled), tuple(rows))


def _unit(values: tuple[str, ...], images: Sequence[ImageCount]) -> GroupFigures:
    counted = [image for image in images if image.count is not None]
    counts = [image.count or 0 for image in counted]
    frames = [image.frame_mm for image in counted if image.frame_mm and image.in_frame is not None]
    density = math.nan
    if counted and len(frames) == len(counted):
        density = sum(image.in_frame or 0 for image in counted) / math.fsum(frames)
    n, failed = len(counted), sum(image.failed for image in images)
    mean, none = float(np.mean(counts)) if counts else math.nan, (math.nan, math.nan)
    return GroupFigures(values, int(n > 0), n, failed, sum(counts), mean, *none, density, *none)


def _group(values: tuple[str, ...], units: Sequence[GroupFigures]) -> GroupFigures:
    counted = [unit for unit in units if unit.units]
    images, failed, count = (sum(getattr(unit, name) for unit in units) for name in ("images", "failed", "count"))
    means, densities = ([getattr(unit, name) for unit in counted] for name in ("mean", "density_mean"))
    return GroupFigures(values, len(counted), images, failed, count, *_spread(means), *_spread(densities))


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Return mean, standard deviation and standard error; NaN where there are too few values for one."""
    if not values:
        return math.nan, math.nan, math.nan
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return float(np.mean(values)), sd, sd / math.sqrt(len(values))


def _round(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _natural(key: tuple[str, ...]) -> list[list[tuple[bool, int, str]]]:
    """Key for sorting ``A2`` before ``A10``."""
    return [
        [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"([0-9]+)", text)]
        for text in key
    ]
