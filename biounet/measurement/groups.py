"""Counts of many images summed up by group: wells, animals, treatments, as the names of the images say.

The unit of a mean is what was treated on its own, a well or an animal, and neither a cell nor a field: fields of one
well are repeated measurements of it, and taken for units they make errors look smaller than they are.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from biounet.core import SettingsError
from biounet.measurement.objects import Columns


@dataclass(frozen=True)
class ImageCount:
    """What of an image goes into the figures of its group.

    Attributes
    ----------
    image
        Its name.
    count
        Number of objects.
    area_mm2
        Area that was counted in; None where the pixel size is unknown.
    """

    image: str
    count: int
    area_mm2: float | None = None


Groups = Mapping[str, tuple[str, ...]]
"""The values of the group names, for each image by its name."""


def groups_of_names(images: Iterable[str], pattern: str) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    r"""Read groups from the names of images.

    Parameters
    ----------
    images
        Names of images, with their folders.
    pattern
        Regular expression with named groups, searched in each name: ``(?P<well>[A-P]\d+)``.

    Returns
    -------
    The names of the groups, from the outermost to the innermost, and their values for each image.

    Raises
    ------
    SettingsError
        If the pattern is none or has no named group, or if some images do not match it: they are named.
    """
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise SettingsError(f"--group {pattern!r}: no regular expression: {error}") from None
    if not regex.groupindex:
        raise SettingsError(
            f"--group {pattern!r}: no named group", hint=r"name what is to be read: '(?P<well>[A-P]\d+)'"
        )
    found: dict[str, tuple[str, ...]] = {}
    others = []
    for image in images:
        match = regex.search(image)
        if match is None or any(match[name] is None for name in regex.groupindex):
            others.append(image)
        else:
            found[image] = tuple(match[name] for name in regex.groupindex)
    if others:
        named = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        what = "none of the images matches" if not found else f"{len(others)} images do not match: {named}"
        raise SettingsError(f"--group {pattern!r}: {what}", hint="the pattern is searched in the path of each image")
    return tuple(regex.groupindex), found


def summarise_groups(names: Sequence[str], groups: Groups, images: Sequence[ImageCount]) -> Columns:
    """Sum counts up by group.

    Parameters
    ----------
    names
        Of the groups, from the outermost to the innermost; the innermost are the units, such as wells.
    groups
        Their values for each image.
    images
        What was counted; of an image that failed there is none.

    Returns
    -------
    One row for each unit and, with several names, for each group of units: the names; ``units`` and ``images`` that
    went into it; ``count``, their sum; ``mean``, ``sd`` and ``sem``, of the images in a unit, and of the means of
    units in a group of units; and ``density_per_mm2``, counts by area, where all pixel sizes are known. SD and SEM of
    a single value are empty.
    """
    members: dict[tuple[str, ...], list[ImageCount]] = defaultdict(list)
    for image in images:
        members[groups[image.image]].append(image)
    rows = []
    for depth in range(1, len(names) + 1):
        by_key: dict[tuple[str, ...], list[list[ImageCount]]] = defaultdict(list)
        for key in sorted(members, key=_natural):
            by_key[key[:depth]].append(members[key])
        rows += [_row(key + ("",) * (len(names) - depth), units, depth == len(names)) for key, units in by_key.items()]
    columns: Columns = {name: np.array([row[0][n] for row in rows], object) for n, name in enumerate(names)}
    for n, name in enumerate(("units", "images", "count"), 1):
        columns[name] = np.array([row[n] for row in rows], np.int64)
    for n, name in enumerate(("mean", "sd", "sem", "density_per_mm2"), 4):
        columns[name] = np.array([row[n] for row in rows], np.float64)
    return columns


def _row(key: tuple[str, ...], units: list[list[ImageCount]], innermost: bool) -> tuple[Any, ...]:
    images = [image for unit in units for image in unit]
    values = [image.count for image in images]
    if not innermost:
        values = [float(np.mean([image.count for image in unit])) for unit in units]  # type: ignore[misc]
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    areas = [image.area_mm2 for image in images]
    total = sum(image.count for image in images)
    density = total / math.fsum(a for a in areas if a) if all(areas) else math.nan
    return key, len(units), len(images), total, float(np.mean(values)), sd, sd / math.sqrt(len(values)), density


def _natural(key: tuple[str, ...]) -> list[list[tuple[bool, int, str]]]:
    """Key for sorting ``A2`` before ``A10``."""
    return [
        [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", text)]
        for text in key
    ]
