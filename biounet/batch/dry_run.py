"""What a batch would do: how each image is understood, what would be written, and how much memory it would take."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from biounet.batch.large_image import describe_excess, find_large
from biounet.batch.large_preview import LargePreview, Speedometer, preview_large
from biounet.batch.names import image_name, is_in_shard, mark_collisions
from biounet.batch.records import BatchOptions, error_text
from biounet.core import BiounetError, Unit
from biounet.files import (
    STORE_SUFFIX,
    ExportFormat,
    FoundImage,
    IsolatedReader,
    ReaderPool,
    export_formats,
    label_suffix,
)
from biounet.measurement import Grouping
from biounet.network import Model
from biounet.reporting import output_names
from biounet.segmentation import memory_needs

_ANY_SIZE = 2**62  # bytes of an image that is read region by region
_LONGEST_NAME = 255  # bytes, on most file systems
_LARGE_HEADER = ("super-blocks", "at a time", "disk", "time", "labels")
_HEADER = ("image", "axes", "shape", "channels", "pixel size", "memory", *_LARGE_HEADER, "outputs", "notes")
_IF_ANY = ("channels", *_LARGE_HEADER)  # columns that are left out where no image has anything in them


@dataclass(frozen=True)
class Preview:
    """One image as its headers describe it."""

    image: str
    axes: str = ""  # of the array in the file, and where they are stated
    shape: tuple[int, ...] = ()  # (c, [z,] y, x)
    channels: tuple[str, ...] = ()  # names of those that are segmented; empty where they are unknown
    measured: tuple[str, ...] = ()  # names of those that are only measured
    files: dict[str, str] = field(default_factory=dict)  # by the name of the channel, where each is a file
    spacing: tuple[float, ...] | None = None
    unit: Unit | None = None
    outputs: tuple[str, ...] = ()  # relative to the output folder
    memory: int | None = None  # estimated bytes
    message: str = ""  # the error, or remarks
    failed: bool = False  # whether the image cannot be segmented
    large: LargePreview | None = None  # how it would be worked on, if it does not fit into memory

    def as_row(self) -> tuple[str, ...]:
        """Return the cells of a row of `preview_table`."""
        unit = "µm" if self.unit == "um" else self.unit
        spacing = f"{' x '.join(f'{s:.4g}' for s in self.spacing)} {unit}" if self.spacing else "unknown"
        memory = "" if self.memory is None else f"{math.ceil(self.memory / 2**20)} MiB"
        shape = " x ".join(map(str, self.shape))
        large = self.large.describe() if self.large else ("",) * len(_LARGE_HEADER)
        outputs = ", ".join(self.outputs)
        return (self.image, self.axes, shape, self._describe_channels(), spacing, memory, *large, outputs, self.message)

    def _describe_channels(self) -> str:
        """Return which channels are segmented and measured, with their files."""
        used = (*self.channels, *self.measured)
        groups = {
            "": self.channels,
            "measured: ": self.measured,
            "not used: ": [name for name in self.files if name not in used],
        }
        return "; ".join(
            what + ", ".join(f"{name} ({self.files[name]})" if name in self.files else name for name in names)
            for what, names in groups.items()
            if names
        )


def preview_table(previews: Sequence[Preview]) -> list[tuple[str, ...]]:
    """Return header and rows of the images that can be segmented; some columns only where they say anything."""
    rows = [_HEADER, *(one.as_row() for one in previews if not one.failed)]
    shown = [at for at, name in enumerate(_HEADER) if name not in _IF_ANY or any(row[at] for row in rows[1:])]
    return [tuple(row[at] for at in shown) for row in rows]


def preview(
    images: Sequence[FoundImage], model: Model, options: BatchOptions, formats: Sequence[str] = ()
) -> list[Preview]:
    """Describe what `biounet.batch.segment_batch`, and then `biounet.batch.export_run` with these formats, would do.

    No pixel is read and nothing is written.
    """
    if options.group is not None:
        options.group.check(map(image_name, images))
    speed = Speedometer(model, options)
    with nullcontext(options.readers) if options.readers else ReaderPool() as readers, readers.borrow() as reader:
        found = [(image, _preview_image(image, model, options, (reader, speed))) for image in mark_collisions(images)]
    # Each shard does a part of an image that is worked on in super-blocks.
    chosen = [(image, one) for image, one in found if one.large or is_in_shard(image_name(image), options.shard)]
    exports = export_formats(formats)
    return [_with_exports(one, image, exports) for image, one in chosen]


def _with_exports(preview: Preview, image: FoundImage, formats: Sequence[ExportFormat]) -> Preview:
    """Add the exports of an image to what would be written."""
    if preview.failed:
        return preview
    folders = (image.relative.parent if one.locate is None else Path() for one in formats)
    paths = [path for one, folder in zip(formats, folders, strict=True) for path in one.paths(folder, image.stem)]
    return replace(preview, outputs=(*preview.outputs, *(path.as_posix() for path in paths)))


def _preview_image(
    image: FoundImage, model: Model, options: BatchOptions, means: tuple[IsolatedReader, Speedometer]
) -> Preview:
    name, (reader, speed) = image_name(image), means
    try:
        found, read = find_large(image, model, options), image.read_options(options.read)
        read = read if found is None else replace(read, limit=_ANY_SIZE)
        header, (axes, axes_source) = reader.read_header(image.files(), read)
        grid = header.grid
        needs = memory_needs(header, model, options.segment, options.device)
        found = found or find_large(image, model, options, needs)
        large = None if found is None else preview_large(found, speed, options)
        excess = describe_excess(needs, model, options) if large is None else ""
    except BiounetError as error:
        return Preview(name, message=error_text(error), failed=True)
    data = model.card.recipe.data
    has_case = data.kind == "classes" and data.dims == 3 and not header.times
    is_store = data.kind == "instances" and not header.times and options.label_format == "zarr"
    suffix = found.label_suffix if found else STORE_SUFFIX if is_store else label_suffix(grid)
    outputs = output_names(image.stem, suffix, overlay=options.overlay, has_case=has_case)
    if max(len(os.fsencode(output)) for output in outputs) > _LONGEST_NAME:
        message = "the names of its results would be too long (hint: choose a shorter name)"
        return Preview(name, message=message, failed=True)
    return Preview(
        image=name,
        axes=f"{axes} ({axes_source})",
        shape=header.array.shape,
        channels=header.channel_names,
        measured=tuple(header.measured),
        files=dict(zip(image.channels, [file.name for file in image.files()], strict=False)),
        spacing=grid.spacing,
        unit=grid.unit,
        outputs=tuple((image.relative.parent / output).as_posix() for output in outputs),
        memory=needs[0][1].process if large is None else large.memory,
        message="; ".join([*_describe_group(name, options.group), *header.notes, *filter(None, [excess])]),
        large=large,
    )


def _describe_group(image: str, grouping: Grouping | None) -> list[str]:
    values = None if grouping is None else grouping.values(image)
    pairs = zip(grouping.names, values, strict=True) if grouping is not None and values is not None else ()
    return [f"{name} {value}" for name, value in pairs]
