"""Options that commands share, and their parsing."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from biounet.core import SettingsError, as_spacing, available_cores

if TYPE_CHECKING:
    from biounet.core import Recipe
    from biounet.files import ReadOptions
    from biounet.measurement import Grouping

_MAX_READERS = 32
_MAX_DIGITS = 9  # longer texts are names of channels

Inputs = Annotated[
    list[str],
    typer.Argument(
        help="Images, folders, patterns, or CHANNEL=FILE for each channel.", metavar="IMAGE...", show_default=False
    ),
]
ModelName = Annotated[str, typer.Option("--model", "-m", help="Built-in name or path of a model.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder of the results.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:n.")]
Axes = Annotated[str | None, typer.Option(help="Axes of the files, such as ZCYX.", show_default=False)]
Spacing = Annotated[
    str | None, typer.Option(help="Pixel size in µm (NIfTI: mm): one number, or y,x or z,y,x.", show_default=False)
]
Channel = Annotated[str | None, typer.Option(help="Channel to use: number from 0, or name.", show_default=False)]
Channels = Annotated[
    str | None,
    typer.Option(help="Names of the channels, such as DAPI,GFP,RFP, where the files do not say.", show_default=False),
]
Measure = Annotated[
    str | None, typer.Option(help="Further channels to measure, such as GFP,RFP; or all.", show_default=False)
]
Plane = Annotated[int | None, typer.Option(help="Plane of a stack to use, from 0.", show_default=False)]
Projection = Literal["max", "mean", "focus"] | None
Project = Annotated[
    Projection,
    typer.Option(help="Make one image of the planes of a stack: max, mean or focus.", show_default=False),
]
Frames = Annotated[
    str | None,
    typer.Option(
        help="Time points to segment, numbered from 0: all, 3, or 0:10 for the first ten.", show_default=False
    ),
]
Scene = Annotated[
    str | None,
    typer.Option(
        help="Which images of files that hold several: numbers from 0 or names, such as 0,3. Default: all.",
        show_default=False,
    ),
]
Series = Annotated[
    str | None,
    typer.Option(
        help="DICOM series to use: patterns of descriptions, numbers or UIDs, such as 'T1*'; or flair=PATTERN,...",
        show_default=False,
    ),
]
Jobs = Annotated[int | None, typer.Option(help="Images at a time.", min=1, show_default="one per core")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object per line.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be read and written; write nothing.")]
Shard = Annotated[
    str | None,
    typer.Option(
        help="Work on part I of N only, of the images or of one large image.", metavar="I/N", show_default=False
    ),
]
FailFast = Annotated[bool, typer.Option("--fail-fast", help="Stop at the first image that fails.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace results of another model, other settings or other images.")
]
Excel = Annotated[bool, typer.Option("--excel", help="Make texts harmless that a spreadsheet would run as a formula.")]
Diameter = Annotated[
    str | None,
    typer.Option(
        help="Typical diameter of the objects in pixels; auto: found where an image looks unlike the training;"
        " native: pixels as they are. Default: auto, where no pixel size decides.",
        metavar="PIXELS|auto|native",
        show_default=False,
    ),
]
MinSize = Annotated[
    str | None,
    typer.Option(help="Drop smaller objects: 20um2, 30px; in volumes 200um3.", metavar="SIZE", show_default=False),
]
MaxSize = Annotated[
    str | None, typer.Option(help="Drop larger objects: as --min-size.", metavar="SIZE", show_default=False)
]
Foreground = Annotated[
    float | None,
    typer.Option(
        help="Probability from which a pixel is part of an object; lower finds more.",
        min=0.001,
        max=0.999,
        show_default="that of the model",
    ),
]
Join = Annotated[
    float | None,
    typer.Option(
        help="When parts are one object; lower joins more, higher divides more.",
        min=0,
        max=1,
        show_default="that of the model",
    ),
]
MinConfidence = Annotated[
    float | None, typer.Option(help="Drop objects of a lower confidence.", min=0, max=1, show_default=False)
]
ExcludeBorder = Annotated[bool, typer.Option("--exclude-border", help="Drop objects that touch the edge of the image.")]
FillHoles = Annotated[
    bool | None,
    typer.Option("--fill-holes/--no-fill-holes", help="Fill holes in objects.", show_default="as the model does"),
]
Block = Annotated[int | None, typer.Option(help="Edge of a block; smaller needs less memory.", min=64)]
Ram = Annotated[
    str | None,
    typer.Option(
        help="Memory that the command may take, such as 8G; what does not fit is worked through in parts.",
        show_default="most of what is free",
    ),
]
LabelFormat = Annotated[
    Literal["auto", "tif", "zarr"],
    typer.Option("--format", help="Label images as TIFF (NIfTI of NIfTI) or OME-Zarr; auto: OME-Zarr of large ones."),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        help="Who works on large images: local:4 (processes), tcp://HOST:8786 (Dask) or slurm.toml.",
        show_default="this process",
    ),
]
Group = Annotated[
    str | None,
    typer.Option(
        help="Means per group: a pattern for names with (?P<well>...), or a CSV: image, well, ...", show_default=False
    ),
]
Unit = Annotated[
    str | None, typer.Option(help="Name in --group of what was treated on its own; else well, or each image.")
]
Overlay = Annotated[bool, typer.Option(help="Write overlays and the report.")]
Ring = Annotated[
    str | None,
    typer.Option(
        help="Gap and width of the ring around each object that is measured, such as 0.5,2um; or no.",
        metavar="GAP,WIDTH",
        show_default="1,5px",
    ),
]
LabelImages = Annotated[Path, typer.Argument(help="Label image, or folder of them.", metavar="LABELS")]
LabelledImages = Annotated[
    list[str] | None,
    typer.Option(
        "--image", help="Image, or folder; or, once for each channel, --image NAME=IMAGE.", show_default=False
    ),
]
Inside = Annotated[Path | None, typer.Option(help="Labels of larger objects: an image, or folder.", show_default=False)]
Export = Annotated[
    str | None,
    typer.Option(
        help="Formats of other programs to write as well: geojson,roi, and what 'biounet export --help' lists.",
        show_default=False,
    ),
]
Columns = Annotated[
    str | None,
    typer.Option(help="A further table with names and units of another program: cellprofiler.", show_default=False),
]
SingleFile = Annotated[
    bool, typer.Option("--single-file", help="Put all pictures into report.html, to send it by e-mail.")
]
RecipeName = Annotated[str, typer.Option(help="Recipe that says what the annotations hold.")]
ValidationLabels = Annotated[str | None, typer.Option(help="Their annotations.")]
Tolerance = Annotated[float, typer.Option(help="Distance at which surfaces in volumes agree, in mm (TIFF: µm).", min=0)]
Results = Annotated[Path, typer.Argument(help="Folder of results.", metavar="OUT")]
Moved = Annotated[str | None, typer.Option(help="Folder of the images, when they were moved.", show_default=False)]
ModelFile = Annotated[
    str | None, typer.Option("--model", "-m", help="Path of the model, when it is not built in.", show_default=False)
]
Fraction = Annotated[
    float,
    typer.Option(
        help="Part of the images to segment again, such as 0.05; of the others, files are compared with their hashes.",
        metavar="0-1",
    ),
]
OtherDevice = Annotated[str | None, typer.Option(help="As recorded, or another.", show_default=False)]


def read_options(
    axes: str | None, spacing: str | None, channel: str | None, plane: int | None, dims: int, series: str | None = None
) -> ReadOptions:
    """Return how a command reads files of `dims` dimensions."""
    from biounet.files import ReadOptions

    number = None if channel is None else _number_or_name(channel)
    size = None if spacing is None else _parse_spacing(spacing, dims)
    return ReadOptions(axes=axes, spacing=size, channel=number, dims=dims, plane=plane, series=series or "")


def with_channels(read: ReadOptions, channels: str | None, measure: str | None, inputs: int) -> ReadOptions:
    """Add names of channels, those to measure, and the number that the model takes to read options."""
    names = None if channels is None else tuple(channels.split(","))
    chosen = () if measure is None else tuple(map(_number_or_name, measure.split(",")))
    return replace(read, channels=names, measure=chosen, inputs=inputs)


def with_stacks(read: ReadOptions, project: Projection, frames: str | None, scene: str | None) -> ReadOptions:
    """Add the projection of planes, the frames of time series and the scenes of files to read options."""
    return replace(read, project=project, frames=frames, scene=scene or "")


def _number_or_name(text: str) -> int | str:
    text = text.strip()
    return int(text) if text.isdecimal() and len(text) <= _MAX_DIGITS else text


def parse_spacing(text: str | None) -> float | tuple[float, ...] | None:
    """Return one number or several; raise `SettingsError` unless they are sizes of pixels or voxels."""
    if text is None:
        return None
    sizes = _parse_spacing(text, 3 if text.count(",") > 1 else 2)
    return sizes if "," in text else sizes[0]


def parse_images(texts: Sequence[str] | None) -> dict[str, Path]:
    """Return images by the names of their channels, the empty name for one with all its channels."""
    images: dict[str, Path] = {}
    for text in texts or ():
        name, equals, path = text.partition("=")
        name, path = (name, path) if equals and not Path(text).exists() else ("", text)
        if name in images or (images and "" in (name, *images)):
            hint = "one image with all its channels, or such as --image DAPI=a.tif --image GFP=b.tif"
            raise SettingsError(f"--image {text}: a second one", hint=hint)
        images[name] = Path(path)
    return images


def load_recipe(name_or_path: str) -> Recipe:
    """Return a recipe by name or path."""
    from biounet.core import find_recipe, read_recipe

    return read_recipe(find_recipe(name_or_path))


def validation_paths(images: str | None, labels: str | None) -> tuple[str, str | None] | None:
    """Return the images and labels for validation; None without any. Labels alone are a `SettingsError`."""
    if images is None and labels is not None:
        raise SettingsError("--val-labels without --val-images", hint="give both, or a CSV to --val-images")
    return None if images is None else (images, labels)


def _parse_spacing(text: str, dims: int) -> tuple[float, ...]:
    try:
        first, *others = map(float, text.split(","))
        return as_spacing([first, *others] if others else first, dims)
    except ValueError:
        hint = f"such as {'2,' if dims == 3 else ''}0.325,0.325, in µm (NIfTI: mm) and written without it"
        raise SettingsError(f"--spacing {text}: expected {dims} positive numbers, or one", hint=hint) from None


def count_readers(images: Sequence[str], jobs: int | None) -> int:
    """Return the number of processes that read images, before the images are searched."""
    files = len(images) if all(map(os.path.isfile, images)) else _MAX_READERS
    return min(jobs or available_cores(), files, _MAX_READERS)


def parse_group(group: str | None, unit: str | None) -> Grouping | None:
    """Return the groups of images; None without any. A unit alone is a `SettingsError`."""
    from biounet.measurement import read_grouping

    if group is None and unit is not None:
        raise SettingsError("--unit without --group", hint="say with --group how images are grouped")
    return None if group is None else read_grouping(group, unit)


def parse_diameter(text: str | None) -> float | Literal["auto", "native"] | None:
    """Return a number of pixels, ``auto`` or ``native``; raise `SettingsError` if it is neither."""
    words: dict[str | None, Literal["auto", "native"] | None] = {None: None, "auto": "auto", "native": "native"}
    if text is None or text in words:
        return words[text]
    try:
        diameter = float(text)
    except ValueError:
        diameter = 0.0
    if not 1 <= diameter < math.inf:
        raise SettingsError(f"--diameter {text}: a number of pixels from 1, auto or native")
    return diameter


def parse_shard(text: str | None) -> tuple[int, int] | None:
    """Return the numbers of ``i/n``; raise `SettingsError` unless 1 <= i <= n."""
    if text is None:
        return None
    first, _, count = text.partition("/")
    if not (first.isdecimal() and count.isdecimal() and 1 <= int(first) <= int(count)):
        raise SettingsError(f"--shard {text}: expected i/n with i from 1 to n", hint="such as 2/4")
    return int(first), int(count)
