"""What has to be known of a whole image to bring a region of it to the scale that models see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from numpy.typing import NDArray

from biounet.core import Region
from biounet.preprocessing.body_mask import Background, Body
from biounet.preprocessing.channel_groups import without_offset
from biounet.preprocessing.hot_pixels import HotPixelRule


@dataclass(frozen=True)
class ChannelScale:
    """The scale of some channels ``start … stop - 1``: `low` becomes 0, and `low` + `width` becomes 1.

    Attributes
    ----------
    low, width
        Two percentiles and their difference, or mean and standard deviation; a width of 0 means no contrast.
    offset
        Lowest value of 64-bit integers, which is subtracted before anything else; all other values are without it.
    unacquired
        Value of areas that were never acquired, in a tuple of one; empty without.
    hot_rule, hot_pixels
        Which pixels are hot, and their number.
    body
        What z-scores are taken of; around it they are 0.
    """

    start: int
    stop: int
    low: float = 0.0
    width: float = 0.0
    offset: int = 0
    unacquired: tuple[Any, ...] = ()
    hot_rule: HotPixelRule | None = None
    hot_pixels: int = 0
    body: Body = field(default_factory=Body)

    @property
    def channels(self) -> slice:
        """Channels with this scale."""
        return slice(self.start, self.stop)

    def prepare(self, tile: NDArray[Any]) -> NDArray[Any]:
        """Return these channels of a part of the image without their offset."""
        return without_offset(tile[self.channels], self.offset)

    @property
    def hot(self) -> HotPixelRule | None:
        """Which pixels are hot; None where no pixel of the image is."""
        return self.hot_rule if self.hot_pixels else None


@dataclass(frozen=True)
class IntensityScale:
    """Statistics of a whole image in the canonical orientation, by which each of its regions is scaled.

    Attributes
    ----------
    method
        As in `biounet.core.NormaliseSettings`.
    shape
        Of the image, ``([z,] y, x)``.
    channels
        Of each channel, or of all together.
    body_box
        Part of the image in which classes are predicted: the bounding box of the body, or all of it.
    background_removed
        Whether every channel has a body, of which the background was removed; only z-scores need to know.
    hot
        Share of the values that are hot pixels.
    saturated, top
        Share of the acquired pixels at the full scale of a camera, and that value; None where none is.
    """

    method: Literal["percentiles", "zscore"]
    shape: tuple[int, ...]
    channels: tuple[ChannelScale, ...]
    body_box: Region
    background_removed: bool = False
    hot: float = 0.0
    saturated: float | None = None
    top: int | None = None

    @property
    def has_unacquired(self) -> bool:
        """Whether areas of the image were not acquired in any channel."""
        return all(each.unacquired for each in self.channels)

    def as_dict(self) -> dict[str, Any]:
        """Return numbers, lists and texts for JSON, from which `from_dict` makes the same scale."""
        fields: dict[str, Any] = _plain(asdict(self))
        return fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> IntensityScale:
        """Return the scale of which `as_dict` made fields."""
        channels = tuple(_channel_scale(channel) for channel in fields["channels"])
        return cls(
            **{**fields, "shape": tuple(fields["shape"]), "channels": channels, "body_box": _box(fields["body_box"])}
        )


def _plain(value: Any) -> Any:  # noqa: ANN401 - what JSON knows
    if isinstance(value, slice):
        return [value.start, value.stop]
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value


def _box(ends: list[list[int]]) -> Region:
    return tuple(slice(start, stop) for start, stop in ends)


def _channel_scale(fields: Mapping[str, Any]) -> ChannelScale:
    rule, body = fields["hot_rule"], fields["body"]
    rule = None if rule is None else HotPixelRule(**{**rule, "exclude": tuple(rule["exclude"])})
    backgrounds = tuple(Background(**{**each, "box": _box(each["box"])}) for each in body["backgrounds"])
    body = Body(backgrounds, None if body["box"] is None else _box(body["box"]))
    return ChannelScale(**{**fields, "unacquired": tuple(fields["unacquired"]), "hot_rule": rule, "body": body})
