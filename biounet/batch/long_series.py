"""A time series of a batch that does not fit into memory: its frames lie on the disk, and one at a time in memory."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from biounet.batch.input_hashes import HashUntil, work_while_hashed
from biounet.batch.large_image import check_disk, work_folder
from biounet.batch.records import BatchOptions
from biounet.core import InputError, Volume
from biounet.files import FileState, FoundImage, LazySeries, open_series
from biounet.network import Model
from biounet.reporting import make_folder
from biounet.segmentation import MemoryNeed, SegmentOptions, memory_needs

_LABEL_BYTES = 4  # of a voxel


@dataclass(frozen=True)
class LongSeries:
    """A time series whose frames are read one by one, and what working on one of them takes."""

    found: FoundImage
    series: LazySeries
    needs: list[tuple[SegmentOptions, MemoryNeed]]

    def read(self, out: Path, stop: Event, hash_file: HashUntil) -> tuple[Volume, tuple[FileState, ...]]:
        """Read the series to the disk of the results, while its files are hashed."""
        folder = out / self.found.relative.parent
        make_folder(folder)
        header = self.series.header
        pixels = header.array.nbytes + sum(channel.nbytes for channel in header.measured.values())
        check_disk(out, work_folder(self.found, out), pixels + _LABEL_BYTES * header.array[0].size)
        return work_while_hashed(self.found, hash_file, stop, lambda: self.series.read_to_disk(folder, stop))


def find_long(found: FoundImage, model: Model, options: BatchOptions) -> LongSeries | None:
    """Return a time series that does not fit into memory; None for others, and for what is read as a whole.

    Raises
    ------
    InputError
        If it does not fit the model.
    """
    if found.problem or options.read.frames is None:
        return None
    series = None
    with suppress(InputError):  # of files that are read in memory, or not at all
        series = open_series(found.files(), found.read_options(options.read))
    limit = options.image_limit
    if series is None or limit is None:
        return None
    header, how = series.header, (model, options.segment, options.device)
    if memory_needs(header, *how)[-1][1].total <= limit:
        return None
    return LongSeries(found, series, memory_needs(header.frame(0), *how))
