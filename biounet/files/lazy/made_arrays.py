"""Arrays that are made of several others, region by region: the grey of colours, and one image of many planes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from biounet.core import InputError
from biounet.files.channels import grey_of_colours
from biounet.files.formats.raw import COLOURS
from biounet.files.lazy.stored_array import ArrayView, Index, StoredArray
from biounet.files.stacks import Projection, project_planes, projected_type

_SAMPLE = 512  # pixels of the side of a square that is looked at for colours
_SAMPLES = 8  # squares along each axis, spread over the image


@dataclass(frozen=True)
class ProjectedArray(StoredArray):
    """One image of the planes of a stack ``(c, z, y, x)``, shape ``(c, y, x)``."""

    stack: ArrayView
    how: Projection

    @classmethod
    def view(cls, stack: ArrayView, how: Projection, path: Path) -> ArrayView:
        """Return the image of a stack."""
        if how == "focus":
            hint = "take --project max or --plane"
            raise InputError("the plane in focus is found in whole images only", path=path, hint=hint)
        return ArrayView.of(cls(stack, how))

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]  # noqa: D102 - inherited
        return (self.stack.shape[0], *self.stack.shape[2:])

    @property
    def dtype(self) -> np.dtype[Any]:  # type: ignore[override]  # noqa: D102 - inherited
        return projected_type(self.stack.dtype, self.how)

    @property
    def chunks(self) -> tuple[int, ...]:  # type: ignore[override]  # noqa: D102 - inherited
        return (self.stack.chunks[0], *self.stack.chunks[2:])

    def read(self, index: Index) -> NDArray[Any]:  # noqa: D102 - inherited
        return project_planes(self.stack.read(self._planes(index)), self.how)

    def constant_value(self, index: Index) -> Any | None:  # noqa: ANN401, D102 - inherited
        return self.stack.constant_value(self._planes(index))

    def _planes(self, index: Index) -> Index:
        return (index[0], slice(0, self.stack.shape[1]), *index[1:])


@dataclass(frozen=True)
class GreyArray(StoredArray):
    """The channel that holds all of a picture in colours ``(3, [z,] y, x)``, by itself, shape ``(1, [z,] y, x)``."""

    colours: ArrayView
    number: int
    text: str

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]  # noqa: D102 - inherited
        return (1, *self.colours.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:  # type: ignore[override]  # noqa: D102 - inherited
        return self.colours.dtype

    @property
    def chunks(self) -> tuple[int, ...]:  # type: ignore[override]  # noqa: D102 - inherited
        return (1, *self.colours.chunks[1:])

    def read(self, index: Index) -> NDArray[Any]:  # noqa: D102 - inherited
        colours = self.colours.read((slice(0, len(COLOURS)), *index[1:]))
        found = grey_of_colours(colours)
        if found is None or (found[0] != self.number and colours[self.number].any()):
            raise InputError("a sample of it is grey, and a part is in colours", hint="choose one with --channel")
        return colours[self.number : self.number + 1]

    def constant_value(self, index: Index) -> Any | None:  # noqa: ANN401, D102 - inherited
        return self.colours.constant_value((slice(0, len(COLOURS)), *index[1:]))


def find_grey(colours: NDArray[Any]) -> tuple[NDArray[Any], str] | None:
    """Return the channel that holds all of a picture in colours as a view, and what was found, by a sample of it."""
    view = cast(ArrayView, colours)
    sample = _sample(view)
    found = grey_of_colours(sample)
    if found is None:
        return None
    return cast("NDArray[Any]", ArrayView.of(GreyArray(view, *found))), found[1]


def _sample(view: ArrayView) -> NDArray[Any]:
    """Return squares of a picture side by side, all of a small one."""
    starts = [_spread(length) for length in view.shape[-2:]]
    depth = tuple(slice(0, length) for length in view.shape[:-2])
    sizes = [min(length, _SAMPLE) for length in view.shape[-2:]]
    squares = (
        (*depth, *(slice(a, a + size) for a, size in zip(corner, sizes, strict=True))) for corner in product(*starts)
    )
    return np.concatenate([view.read(square) for square in squares], axis=-1)


def _spread(length: int) -> list[int]:
    """Return where squares begin along an axis: from its start to its end, and all of it if that is not too long."""
    count = min(_SAMPLES, -(-length // _SAMPLE))
    return sorted({round(at) for at in np.linspace(0, max(0, length - _SAMPLE), count)})
