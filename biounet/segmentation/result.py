"""What is found in one image, or in each frame of a time series."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from biounet.core import Figure, ResultKind, Volume
from biounet.measurement import Columns, Table

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Frame:
    """The result for one frame of a time series; `t` is its number in the file, from 0."""

    t: int
    count: int | None
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    figures: dict[str, Figure] = field(default_factory=dict)


@dataclass(frozen=True)
class Segmentation:
    """The result for one image.

    Attributes
    ----------
    labels
        On the source grid, integers: objects 1..N, or classes.
    count
        Number of objects, or of lesions in a volume; None where it is not clear which class to count.
    measurements
        One row per object, or per class.
    notes
        Warnings for the user.
    seconds
        Time of each stage.
    figures
        Further figures of the image by their names, for ``counts.csv``.
    class_names
        Of the values of `labels`, where these are classes or regions.
    frames
        Of a time series, whose `labels` and `measurements` are those of all frames; empty for
        an image.
    """

    labels: NDArray[Any]
    count: int | None
    measurements: Table
    volume: Volume
    notes: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)
    class_names: dict[int, str] = field(default_factory=dict)
    frames: tuple[Frame, ...] = ()

    @property
    def counts(self) -> tuple[int | None, ...]:
        """The count of each frame; that of an image alone."""
        return tuple(frame.count for frame in self.frames) or (self.count,)

    @property
    def kind(self) -> ResultKind:
        """What the values of `labels` are; a model trained on scribbles finds objects."""
        return "objects" if self.measurements.kind == "objects" else "classes"

    @property
    def columns(self) -> Columns:
        """The columns of the table."""
        return self.measurements.columns

    @property
    def table(self) -> pd.DataFrame:
        """The table as a pandas DataFrame; units are in the names of the columns."""
        import pandas as pd  # slow to import

        return pd.DataFrame(self.columns)
