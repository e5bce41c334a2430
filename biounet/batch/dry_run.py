"""What a batch would do: how its images are understood, what it would write and how much memory it would take."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np

from biounet.batch.process_image import own_words
from biounet.batch.records import BatchOptions, is_in_shard, name_of
from biounet.batch.runner import mark_collisions
from biounet.core import BiounetError, Unit, canonical_grid
from biounet.files import FoundImage, IsolatedReader, ReaderPool, label_suffix
from biounet.network import Model
from biounet.reporting import output_names
from biounet.segmentation import check_model_fits, expected_bytes, model_zoom


@dataclass(frozen=True)
class Preview:
    """How one image is understood, from its headers alone.

    Attributes
    ----------
    image
        Its name.
    axes
        Of the array in the file, and how they are known.
    shape
        ``(c, [z,] y, x)``.
    spacing, unit
        Pixel size, None where unknown.
    outputs
        Files that would be written, relative to the output folder.
    memory
        Bytes that it would take, about; None where nothing would be done.
    message
        What is wrong, or remarks.
    failed
        Whether it could not be segmented.
    """

    image: str
    axes: str = ""
    shape: tuple[int, ...] = ()
    spacing: tuple[float, ...] | None = None
    unit: Unit | None = None
    outputs: tuple[str, ...] = ()
    memory: int | None = None
    message: str = ""
    failed: bool = False

    def as_row(self) -> tuple[str, ...]:
        """Return a row of text, as `PREVIEW_HEADER` names its cells."""
        unit = "µm" if self.unit == "um" else self.unit
        spacing = f"{' x '.join(f'{s:.4g}' for s in self.spacing)} {unit}" if self.spacing else "unknown"
        memory = "" if self.memory is None else f"{math.ceil(self.memory / 2**20)} MiB"
        shape = " x ".join(map(str, self.shape))
        return (self.image, self.axes, shape, spacing, memory, ", ".join(self.outputs), self.message)


_LONGEST = 255  # bytes of a file name, on the disks of today
PREVIEW_HEADER = ("image", "axes", "shape", "pixel size", "memory", "outputs", "notes")


def preview(images: Sequence[FoundImage], model: Model, options: BatchOptions) -> list[Preview]:
    """Say what `biounet.batch.segment_batch` would do; nothing is written, and no pixel is read."""
    mine = [image for image in mark_collisions(images) if is_in_shard(name_of(image), options.shard)]
    with nullcontext(options.readers) if options.readers else ReaderPool() as readers, readers.borrow() as reader:
        return [_preview_one(image, model, options, reader) for image in mine]


def _preview_one(image: FoundImage, model: Model, options: BatchOptions, reader: IsolatedReader) -> Preview:
    try:
        whole, (axes, axes_source) = reader.inspect(image.files(), options.read)
        grid, turned = whole.grid, canonical_grid(whole.grid)
        blank = np.broadcast_to(whole.array.flat[0], (whole.channels, *turned.shape))  # takes no memory
        volume = replace(whole, array=blank, grid=turned)
        check_model_fits(volume, model.card)
        zoom = model_zoom(volume, model.card, options.segment.diameter)
    except BiounetError as error:
        return Preview(name_of(image), message=own_words(error), failed=True)
    names = output_names(image.stem, label_suffix(grid), overlay=options.overlay)
    if max(len(os.fsencode(name)) for name in names) > _LONGEST:
        cause = "the names of its results would be too long (hint: choose a shorter name)"
        return Preview(name_of(image), message=cause, failed=True)
    return Preview(
        image=name_of(image),
        axes=f"{axes} ({axes_source})",
        shape=whole.array.shape,
        spacing=grid.spacing,
        unit=grid.unit,
        outputs=tuple((image.relative.parent / name).as_posix() for name in names),
        memory=expected_bytes(volume, zoom, model.network, options.segment, options.device),
        message="; ".join(volume.notes),
    )
