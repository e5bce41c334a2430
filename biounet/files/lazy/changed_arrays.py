"""Stored arrays with other values or turned, as the headers of their files ask, of a region as of the whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import InputError
from biounet.files.lazy.stored_array import ArrayView, Index, StoredArray


def scale_values(array: NDArray[Any], dtype: np.dtype[Any], slope: float, inter: float) -> NDArray[Any]:
    """Return ``slope * array + inter``, computed in a type of floats."""
    with np.errstate(all="ignore"):  # infinite results are refused later, as all infinite pixels
        scaled = np.multiply(array, slope, dtype=dtype)
        scaled += inter
    return np.asarray(scaled)


def take_colours(indices: NDArray[Any], palette: NDArray[np.uint8], path: Path) -> NDArray[Any]:
    """Return the colours or greys of a palette, shape ``(n, 3)`` or ``(n,)``, behind the axes of indices into it."""
    if indices.max() >= len(palette):
        raise InputError(f"damaged: value {indices.max()} in a palette of {len(palette)} colours", path=path)
    colours = np.empty((*indices.shape, *palette.shape[1:]), palette.dtype)
    for row, target in zip(indices, colours, strict=True):  # at once, the indices would take 8 bytes a pixel
        np.take(palette, row.astype(np.intp), axis=0, out=target)  # those of 1 bit are bool, and would be a mask
    return colours


@dataclass(frozen=True)
class ScaledArray(StoredArray):
    """A stored array by a slope and an intercept."""

    stored: StoredArray
    dtype: np.dtype[Any]
    slope: float
    inter: float

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]  # noqa: D102 - inherited
        return self.stored.shape

    @property
    def chunks(self) -> tuple[int, ...]:  # type: ignore[override]  # noqa: D102 - inherited
        return self.stored.chunks

    def read(self, index: Index) -> NDArray[Any]:  # noqa: D102 - inherited
        return scale_values(self.stored.read(index), self.dtype, self.slope, self.inter)


@dataclass(frozen=True)
class PaletteArray(StoredArray):
    """Indices into a palette as their colours, along a last axis, or as greys."""

    stored: StoredArray
    palette: NDArray[np.uint8]
    path: Path

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]  # noqa: D102 - inherited
        return (*self.stored.shape, *self.palette.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:  # type: ignore[override]  # noqa: D102 - inherited
        return self.palette.dtype

    @property
    def chunks(self) -> tuple[int, ...]:  # type: ignore[override]  # noqa: D102 - inherited
        return (*self.stored.chunks, *self.palette.shape[1:])

    def read(self, index: Index) -> NDArray[Any]:  # noqa: D102 - inherited
        axes = len(self.stored.shape)
        colours = take_colours(self.stored.read(index[:axes]), self.palette, self.path)
        return colours[(slice(None),) * axes + index[axes:]]


@dataclass(frozen=True)
class TurnedArray(StoredArray):
    """A stored array with its axes in another order, and then some reversed."""

    stored: StoredArray
    order: tuple[int, ...]
    flipped: tuple[int, ...] = ()

    @property
    def _view(self) -> ArrayView:
        turned = ArrayView.of(self.stored).transpose(self.order)
        return turned[tuple(slice(None, None, -1 if n in self.flipped else 1) for n in range(len(self.order)))]

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]  # noqa: D102 - inherited
        return self._view.shape

    @property
    def dtype(self) -> np.dtype[Any]:  # type: ignore[override]  # noqa: D102 - inherited
        return self.stored.dtype

    @property
    def chunks(self) -> tuple[int, ...]:  # type: ignore[override]  # noqa: D102 - inherited
        return self._view.chunks

    def read(self, index: Index) -> NDArray[Any]:  # noqa: D102 - inherited
        return self._view.read(index)

    def constant_value(self, index: Index) -> Any | None:  # noqa: ANN401, D102 - inherited
        return self._view.constant_value(index)
