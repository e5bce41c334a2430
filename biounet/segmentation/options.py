"""How to segment an image: what users choose beside the model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from biounet.core import (
    DataSettings,
    Grid,
    LabelSettings,
    ObjectSize,
    SettingsError,
    as_object_size,
    is_integer,
    is_number,
)
from biounet.measurement import as_ring
from biounet.preprocessing import Zoom

Diameter = float | Literal["auto", "native"]
FILTERS = ("min_size", "max_size", "min_confidence", "exclude_border")


@dataclass(frozen=True)
class SegmentOptions:
    """How to segment an image; None: as the model's card says. Only `block` cannot change the result.

    Attributes
    ----------
    block
        Edge of a block in voxels of the working grid; None: 2048 in images, 256 in volumes. Smaller blocks need less
        memory and more time.
    diameter
        Typical diameter of the objects in pixels of the image. The image is resampled so that they appear as large as
        the objects that the model was trained on. ``"auto"``: where an image, or what is found in it, looks unlike
        those of the training, it is tried at a few other sizes. ``"native"``: pixels as they are, or of the size that
        the model works at. None: ``"auto"`` in 2D if no pixel size decides and the card says what training images
        look like, else ``"native"``.
    label
        Thresholds instead of those on the model's card.
    min_size, max_size
        Objects that are smaller, before their holes are filled, or larger are dropped: ``"20um2"``, ``"200um3"``,
        ``"30px"``, or a number of pixels.
    foreground
        Probability from which a pixel belongs to an object, between 0 and 1; lower finds more, and larger ones.
    join
        How deep the valley between two parts of an object may be, 0 to 1: they are joined if the model's distance map
        between them is at least this fraction of its lower peak. Lower joins more, higher divides more.
    min_confidence
        Objects of a lower confidence are dropped.
    exclude_border
        Whether objects that touch the edge of the image are dropped.
    fill_holes
        Whether holes in objects are filled.
    ring
        Gap and width of the ring around each object, where its surroundings are measured: ``"1,5px"``, the default, or
        ``"0.5,2um"``; ``"no"`` leaves it and the background out. It matters in images with channels to measure only.

    Raises
    ------
    SettingsError
        If a value cannot be one for any image.
    """

    block: int | None = None
    diameter: Diameter | None = None
    label: LabelSettings | None = None
    min_size: float | str | None = None
    max_size: float | str | None = None
    foreground: float | None = None
    join: float | None = None
    min_confidence: float | None = None
    exclude_border: bool = False
    fill_holes: bool | None = None
    ring: str | None = None

    def __post_init__(self) -> None:
        if self.block is not None and not (is_integer(self.block) and self.block >= 1):
            raise SettingsError(f"block {self.block!r}: a whole number, 1 or more")
        if self.diameter is not None and not is_diameter(self.diameter):
            raise SettingsError(f"diameter {self.diameter!r}: a positive number, auto or native")
        smallest, largest = self.smallest, self.largest
        if smallest and largest and smallest.unit == largest.unit and smallest.value > largest.value:
            raise SettingsError(f"no object is larger than {smallest} and smaller than {largest}")
        for name in ("foreground", "join", "min_confidence"):
            value = getattr(self, name)
            if value is not None and not (is_number(value) and 0 <= value <= 1):
                raise SettingsError(f"{name} {value!r}: a number from 0 to 1")
        if self.foreground in (0, 1):
            raise SettingsError(f"foreground {self.foreground!r}: between 0 and 1")
        as_ring(self.ring)
        for name in ("exclude_border", "fill_holes"):
            if not isinstance(getattr(self, name), bool | None):
                raise SettingsError(f"{name} {getattr(self, name)!r}: True or False")

    @property
    def smallest(self) -> ObjectSize | None:
        """The `min_size`."""
        return None if self.min_size is None else as_object_size(self.min_size, "min_size")

    @property
    def largest(self) -> ObjectSize | None:
        """The `max_size`."""
        return None if self.max_size is None else as_object_size(self.max_size, "max_size")

    def label_settings(self, of_model: LabelSettings, grid: Grid | None = None) -> LabelSettings:
        """Return the settings of a model's card with what is chosen here in their place.

        `min_size` is among them on a `grid` only, in its voxels.
        """
        settings = self.label or of_model
        names = ("foreground", "join", "fill_holes")
        chosen = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if self.smallest is not None and grid is not None:
            chosen |= {"min_size": float(self.smallest.as_smallest(grid)), "min_size_unit": "px"}
        return settings.model_copy(update=chosen)

    def on_grid(self, of_model: LabelSettings, grid: Grid, zoom: Zoom | None = None) -> LabelSettings:
        """Return the settings of `label_settings` on a grid, which `zoom` leads from to the working grid.

        The smallest object of the model is one on the working grid, that of the user one on `grid`.
        """
        label = self.label or of_model
        if zoom is not None and label.min_size_unit == "px":
            label = label.model_copy(update={"min_size": label.min_size / math.prod(zoom)})
        return replace(self, label=None).label_settings(label, grid)

    def check_model(self, data: DataSettings) -> None:
        """Raise `SettingsError` for an option about objects if a model has none."""
        chosen = [*self.filters, *(name for name in ("join", "fill_holes") if getattr(self, name) is not None)]
        if data.kind == "classes" and chosen:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in chosen)
            raise SettingsError(f"{options}: the model labels classes and not objects")

    def as_dict(self) -> dict[str, Any]:
        """Return the options as JSON, from which `from_dict` makes the same."""
        return asdict(self) | {"label": self.label and self.label.model_dump(mode="json", by_alias=True)}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> SegmentOptions:
        """Return the options in a record; those of earlier versions had fewer. Raises what invalid fields raise."""
        known = {field.name: raw[field.name] for field in fields(cls) if field.name in raw}
        return cls(**known | {"label": known["label"] and LabelSettings.model_validate(known["label"])})

    @property
    def filters(self) -> dict[str, Any]:
        """Which objects are dropped by choice, by the names of the options."""
        chosen = {name: getattr(self, name) for name in FILTERS}
        return {name: value for name, value in chosen.items() if value is not None and value is not False}


def is_diameter(value: object) -> bool:
    """Whether a value is a positive number, ``"auto"`` or ``"native"``."""
    if isinstance(value, str):
        return value in ("auto", "native")
    return isinstance(value, float | int) and is_number(value) and 0 < value < math.inf
