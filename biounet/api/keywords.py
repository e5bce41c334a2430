"""Keywords of functions that segment: the fields of `ReadOptions` and `SegmentOptions`, named like the options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar

from biounet.core import SettingsError, Unit, as_spacing
from biounet.files import Projection, ReadOptions
from biounet.measurement import Grouping
from biounet.network import Card
from biounet.segmentation import SegmentOptions

PathLike = str | Path
Function = TypeVar("Function", bound=Callable[..., Any])


class Keywords(TypedDict, total=False):
    """What can be said about images, and how to segment them; None and what is left out: as the image or model says.

    Each is the option of ``biounet segment`` of its name, and holds for files, arrays and volumes alike.
    """

    spacing: Sequence[float] | float | None
    """Pixel size along ``([z,] y, x)``, or one number for all: of arrays in `unit`, of files in µm (NIfTI: mm)."""
    axes: str | None
    """Axes of the image, such as ``"CYX"``, or ``"YXS"`` for colours, where they are ambiguous."""
    channel: int | str | None
    """The channel to segment, by its number from 0 or its name."""
    channels: Sequence[str] | None
    """Names of all channels, where the image does not say, or one for each of several files."""
    measure: Sequence[int | str] | int | str | None
    """Further channels to measure, by number or name; ``"all"``: all others."""
    plane: int | None
    """Number of the plane, time or page to use, from 0."""
    project: Projection | None
    """Make one image of the planes of a stack: ``"max"``, ``"mean"`` or ``"focus"``."""
    frames: str | int | None
    """Frames of a time series: ``"all"``, a number from 0, or ``"0:10"``."""
    scene: Sequence[int | str] | int | str | None
    """Which images of files that hold several, such as the positions of a plate: numbers from 0 or names."""
    series: str | None
    """DICOM series to use: patterns of descriptions, numbers or UIDs, such as ``"T1*"``; or ``"flair=PATTERN,…"``."""
    diameter: float | Literal["auto", "native"] | None
    """Typical diameter of the objects in pixels; ``"auto"``: found where an image looks unlike the training;
    ``"native"``: pixels as they are. Default: ``"auto"``, where no pixel size decides."""
    block: int | None
    """Edge of a block in pixels; smaller needs less memory and gives the same."""
    min_size: float | str | None
    """Drop smaller objects: ``"20um2"``, ``"30px"``, in volumes ``"200um3"``, or a number of pixels."""
    max_size: float | str | None
    """Drop larger objects."""
    foreground: float | None
    """Probability from which a pixel is part of an object, between 0 and 1; lower finds more."""
    join: float | None
    """When parts are one object, 0 to 1: lower joins more, higher divides more."""
    min_confidence: float | None
    """Drop objects of a lower confidence."""
    exclude_border: bool | None
    """Drop objects that touch the edge of the image."""
    fill_holes: bool | None
    """Fill holes in objects, or not; default: as the model does."""
    ring: str | None
    """Gap and width of the ring around each object, such as ``"1,5px"``, or ``"no"``."""


class ImageKeywords(Keywords, total=False):
    """`Keywords`, and the unit of arrays."""

    unit: Unit | None
    """Of the `spacing` of arrays: ``"um"`` (default) or ``"mm"``; required by models that work in mm."""


class BatchKeywords(Keywords, total=False):
    """What can be said about a batch, beside its images: fields of `biounet.batch.BatchOptions`."""

    device: str | None
    """``auto`` (default), ``cpu`` or ``cuda[:n]``."""
    jobs: int | None
    """Images at a time; default: one per core."""
    overlay: bool | None
    """Whether overlays and the report are written, as they are by default."""
    single_file: bool | None
    """Whether the report holds all of its pictures, to be sent by e-mail."""
    export: str | Sequence[str] | None
    """Formats of other programs to write as well, such as ``"geojson"``; see `biounet.export`."""
    columns: str | None
    """A further table with names and units of another program: ``"cellprofiler"``."""
    excel: bool | None
    """Whether texts in tables that a spreadsheet would run as a formula are made harmless."""
    ram: int | str | None
    """Memory that the call may take, such as ``"8G"``; what does not fit is worked through in parts."""
    label_format: Literal["auto", "tif", "zarr"] | None
    """Label images as TIFF (NIfTI of NIfTI) or OME-Zarr; ``"auto"``: OME-Zarr of large ones."""
    cluster: str | None
    """Who works on large images: ``"local:4"``, the address of a Dask scheduler, or the path of a ``slurm.toml``."""
    shard: tuple[int, int] | None
    """``(i, n)``: work on the i-th of n parts of the images."""
    fail_fast: bool | None
    """Whether the first image that fails is the last."""
    overwrite: bool | None
    """Whether results of another model, other settings or other images are replaced."""
    group: PathLike | Grouping | None
    """Means per group: a pattern for names with ``(?P<well>...)``, a CSV, or from `read_grouping`."""
    unit: str | None
    """Name in `group` of what was treated on its own; else well, or each image."""


_READ = {field.name for field in fields(ReadOptions)} & Keywords.__annotations__.keys()
_SEGMENT = {field.name for field in fields(SegmentOptions)} & Keywords.__annotations__.keys()


@dataclass(frozen=True)
class Choices:
    """What the keywords of a call say: how to read images, the unit of arrays, how to segment."""

    read: ReadOptions
    unit: Unit | None
    segment: SegmentOptions


def parse_keywords(keywords: Mapping[str, Any], card: Card, options: SegmentOptions | None = None) -> Choices:
    """Return what keywords say about images for the model of a card; those for segmenting go before `options`.

    Raise `SettingsError` for an unknown keyword, naming the nearest one, and for what no image can have.
    """
    check_names(keywords, ImageKeywords)
    if options is not None and not isinstance(options, SegmentOptions):
        raise SettingsError(f"options are SegmentOptions, not {type(options).__name__}")
    dims, given = card.recipe.data.dims, {name: value for name, value in keywords.items() if value is not None}
    read = {name: value for name, value in given.items() if name in _READ}
    if "spacing" in read:
        read["spacing"] = as_spacing(read["spacing"], dims)
    segment = {name: value for name, value in given.items() if name in _SEGMENT}
    read |= {"dims": dims, "inputs": len(card.inputs)}
    return Choices(ReadOptions(**read), given.get("unit"), replace(options or SegmentOptions(), **segment))


def check_names(keywords: Mapping[str, Any], kind: type) -> None:
    """Raise `SettingsError` for a keyword that a `TypedDict` does not have, naming the nearest one."""
    known = [*kind.__annotations__]
    for name in keywords:
        if name not in known:
            nearest = get_close_matches(name, known, 1)
            hint = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(known)}"
            raise SettingsError(f"no keyword is called '{name}'", hint=hint)


def spell_out(kind: type) -> Callable[[Function], Function]:
    """Show the keywords of a `TypedDict` one by one, in `help` and where notebooks complete names."""

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)
        own = [one for one in signature.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
        more = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=reference.__forward_arg__)
            for name, reference in kind.__annotations__.items()
        ]
        function.__signature__ = signature.replace(parameters=[*own, *more])  # type: ignore[attr-defined]
        return function

    return decorate
