"""Areas and volumes of objects with their unit, such as ``20um2``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from biounet.core.arguments import is_number
from biounet.core.errors import InputError, SettingsError
from biounet.core.volume import LENGTH_TOLERANCE, Grid, Unit

_SIZE = re.compile(r"([0-9.]+) ?(?:px|([uµμm])m([23²³]))?", re.IGNORECASE)
_DIMS = {"2": 2, "²": 2, "3": 3, "³": 3}


@dataclass(frozen=True)
class ObjectSize:
    """An area (`dims` 2) or a volume (3) in a unit of length; in pixels or voxels without one."""

    value: float
    unit: Unit | None = None
    dims: int = 0

    def in_voxels(self, grid: Grid) -> float:
        """Return the size in voxels of a grid.

        Raises
        ------
        SettingsError
            If it is an area and the grid that of a volume, or the other way round.
        InputError
            If it has a unit of length and the grid is not calibrated.
        """
        if self.unit is None:
            return self.value
        if self.dims != grid.dims:
            what, example = ("an image", "20um2") if grid.dims == 2 else ("a volume", "200um3")
            raise SettingsError(f"a size of {self} for {what}", hint=f"such as {example} or 30px")
        if grid.steps_um is None:
            hint = "give it with --spacing, or the size in px"
            raise InputError(f"a size of {self}, but the pixel size is unknown", hint=hint)
        factor = {"um": 1.0, "mm": 1e3}[self.unit]
        return self.value * factor**self.dims / math.prod(grid.steps_um)

    def as_smallest(self, grid: Grid) -> int:
        """Return the number of voxels of the smallest object that has this size."""
        return math.ceil(self.in_voxels(grid) * (1 - LENGTH_TOLERANCE))

    def as_largest(self, grid: Grid) -> int:
        """Return the number of voxels of the largest object within this size."""
        return math.floor(self.in_voxels(grid) * (1 + LENGTH_TOLERANCE))

    def __str__(self) -> str:
        return f"{self.value:g} " + (
            "px" if self.unit is None else f"{self.unit.replace('u', 'µ')}{' ²³'[self.dims - 1]}"
        )


def as_object_size(value: object, name: str) -> ObjectSize:
    """Return ``20um2``, ``200 µm³``, ``0.5mm3``, ``30px``, or a number, which is of pixels, as a size.

    `name` is for the message of the `SettingsError`, which is raised for anything else.
    """
    match = _SIZE.fullmatch(str(value) if is_number(value) else value.strip() if isinstance(value, str) else "")
    try:
        number = float(match[1]) if match else math.nan
    except ValueError:  # such as 1.2.3
        number = math.nan
    if match is None or math.isnan(number):
        hint = "in pixels or with a unit: 30px, 20um2; in volumes 200um3, 5mm3"
        raise SettingsError(f"{name} {value!r} is not the size of an object", hint=hint)
    if match[2] is None:
        return ObjectSize(number)
    return ObjectSize(number, "mm" if match[2].lower() == "m" else "um", _DIMS[match[3]])
