"""What evaluations have in common: rows of cases, JSON and CSV.

A figure that is not defined, such as the Dice of a class that occurs nowhere, is NaN in a record, None in JSON and
absent among the main figures.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import InputError
from biounet.measurement import columns_to_csv

Row = Mapping[str, str | int | float]
"""Figures of one case, or of one class in one case, by name; NaN where not defined."""

_JSON_NAMES = {"false_positives": "spurious"}  # of attributes that have another name in JSON


@dataclass(frozen=True, kw_only=True)
class EvaluationRecord:
    """Base of the records of an evaluation.

    `cases` has the figures by name of each case, or of each class in each case; of a case that failed only its
    `message`. `failed` says in a line each why cases could not be compared; these are in none of the other figures.
    """

    cases: tuple[Row, ...] = ()
    failed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def definitions(self) -> tuple[str, ...]:
        """Return how the figures are defined for which several definitions exist, one line each."""
        return ()

    def as_dict(self) -> dict[str, Any]:
        """Return all figures for JSON, None where not defined; without what was not compared or is empty."""
        figures = {name: _to_json(value) for name, value in asdict(self).items() if value is not None}
        optional = {name: figures.pop(name) for name in ("cases", "failed", "notes")}
        optional["definitions"] = list(self.definitions())
        return figures | {name: value for name, value in optional.items() if value}

    def as_csv(self) -> str:
        """Return one row per case, or per class and case, as CSV; empty cells where a figure is not defined."""
        names = dict.fromkeys(name for row in self.cases for name in row if name != "message")
        return columns_to_csv({name: _column([row.get(name) for row in self.cases]) for name in [*names, "message"]})


def zip_images(
    truths: Sequence[NDArray[Any]], predicted: Sequence[NDArray[Any]]
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Return pairs of true and predicted labels; raise an `InputError` if their numbers differ."""
    if len(truths) != len(predicted):
        raise InputError(f"{len(predicted)} predicted images, but {len(truths)} true ones")
    return zip(truths, predicted, strict=True)


def ratio(part: float, whole: float) -> float:
    """Return ``part / whole``; NaN if there is nothing to divide by."""
    return float(part / whole) if whole else math.nan


def ratios(parts: NDArray[Any], wholes: NDArray[Any]) -> tuple[float, ...]:
    """Return the `ratio` of each pair of values."""
    return tuple(map(ratio, parts, wholes))


def mean(values: Sequence[float] | NDArray[Any]) -> float:
    """Return the mean of the values that are defined; NaN if none is."""
    defined = [float(value) for value in values if not math.isnan(value)]
    return math.fsum(defined) / len(defined) if defined else math.nan


def keep_defined(figures: dict[str, float]) -> dict[str, float]:
    """Return the figures that are defined."""
    return {name: value for name, value in figures.items() if not math.isnan(value)}


def format_figure(value: float) -> str:
    """Return a figure as text for a table."""
    return "-" if math.isnan(value) else f"{value:.3f}"


def _to_json(value: Any) -> Any:  # noqa: ANN401 - any field of a record
    if isinstance(value, dict):
        return {_JSON_NAMES.get(name, name): _to_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _column(values: Sequence[str | int | float | None]) -> NDArray[Any]:
    """Return a column of a table: floats if one value is a float, else integers or texts; empty where None."""
    return np.array(values, np.float64 if any(isinstance(value, float) for value in values) else object)
