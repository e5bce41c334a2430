"""What working on an image in super-blocks would take: said before anything runs."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import numpy as np
import torch

from biounet.batch.large_image import LargeImage
from biounet.batch.records import BatchOptions
from biounet.core import BiounetError, Grid, Volume, available_cores, format_seconds
from biounet.large_images import Cluster, parse_cluster
from biounet.network import Model, model_predictor
from biounet.segmentation import segment
from biounet.synthetic import FieldSettings, StackSettings, make_field, make_stack

_SAMPLE = {2: (768, 768), 3: (48, 128, 128)}  # voxels that are segmented to see how fast it is
_CROWDED = 0.5  # of the area of the sample
_REST = 2.4  # times the sample's time: halos, reading and writing, joining; on a confluent field of 8192 x 8192
# Seconds until the first super-block, and of each with nothing in it, which is looked for and noted at every stage; on
# empty fields of 100 000 and 320 000 pixels a side.
_START, _LOOK = 5.0, 0.01


@dataclass(frozen=True)
class LargePreview:
    """How an image would be cut, by whom it would be worked on, and what that takes.

    Attributes
    ----------
    number, edge
        Of super-blocks.
    workers
        Super-blocks that are worked on at a time; None where only a scheduler knows.
    memory
        Estimated bytes of all processes on this machine, or of one worker on others.
    disk
        Estimated bytes of the results and of the work folder beside them.
    seconds
        About how long it takes at the speed of this machine, or how long one worker would where the number of workers
        is unknown; None if it cannot be told.
    labels
        ``OME-Zarr``, ``TIFF`` or ``NIfTI``.
    """

    number: int
    edge: int
    workers: int | None
    memory: int
    disk: int
    seconds: float | None
    labels: str

    def describe(self) -> tuple[str, ...]:
        """Return the super-blocks, workers, disk, time and labels in words."""
        each = f"{self.number} of {self.edge}"
        workers = "as the scheduler has" if self.workers is None else str(self.workers)
        time = "" if self.seconds is None else f"about {format_seconds(self.seconds)}"
        if time and self.workers is None:
            time += " of one worker"
        return each, workers, f"about {math.ceil(self.disk / 2**20)} MiB", time, self.labels


@dataclass
class Speedometer:
    """How long this machine takes for a sample voxel; measured once for all images of a batch."""

    model: Model
    options: BatchOptions
    _seconds: dict[tuple[float, ...] | None, float | None] | None = None

    def seconds_per_voxel(self, grid: Grid) -> float | None:
        """Return the seconds of one thread, or of the GPU, for a voxel of such an image; None if it has no sample."""
        if self._seconds is None:
            self._seconds = {}
        if grid.spacing not in self._seconds:
            try:
                self._seconds[grid.spacing] = self._measure(grid)
            except BiounetError:  # such as an image that does not fit the model, which its own row says
                self._seconds[grid.spacing] = None
        return self._seconds[grid.spacing]

    def _measure(self, grid: Grid) -> float:
        shape, card = _SAMPLE[grid.dims], self.model.card
        predictor = model_predictor(self.model, self.options.device)
        array = np.repeat(_draw_sample(grid.dims)[None], len(card.inputs), axis=0)
        sample = Volume(array, Grid(shape, grid.spacing, grid.unit))
        diameter = self.options.segment.diameter
        options = replace(self.options.segment, diameter="native" if diameter in (None, "auto") else diameter)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as each worker has
        try:
            for _ in range(2):  # the first compiles, and makes what is kept
                start = time.perf_counter()
                segment(sample, predictor, card, options)
                seconds = time.perf_counter() - start
        finally:
            torch.set_num_threads(threads)
        return seconds / math.prod(shape)


def _draw_sample(dims: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint16]]:
    if dims == 2:
        return make_field(0, FieldSettings(shape=_SAMPLE[2], coverage=_CROWDED))[0]  # type: ignore[arg-type]
    return make_stack(0, StackSettings(shape=_SAMPLE[3]))[0]  # type: ignore[arg-type]


def preview_large(large: LargeImage, speed: Speedometer, options: BatchOptions) -> LargePreview:
    """Return what working on an image in super-blocks would take; no pixel of it is read."""
    grid, size = large.image.grid, large.size
    cluster = None if options.cluster is None else parse_cluster(options.cluster)
    workers = size.workers if cluster is None else cluster.workers
    number = math.prod(-(-length // size.edge) for length in grid.shape)
    at_a_time, each = min(workers or 1, number), speed.seconds_per_voxel(grid)
    if cluster is None or cluster.local:
        at_a_time = min(at_a_time, available_cores())
    return LargePreview(
        number=number,
        edge=size.edge,
        workers=workers,
        memory=size.memory,
        disk=size.disk,
        seconds=None if each is None else _START + _LOOK * number + _REST * each * size.stored / at_a_time,
        labels=large.label_format,
    )


def describe_cluster(options: BatchOptions) -> str:
    """Return what ``--cluster`` would start, in words, and of SLURM the job; empty without a cluster.

    Raises
    ------
    SettingsError
        If it says no cluster, or its file is wrong.
    """
    if options.cluster is None:
        return ""
    return _describe_cluster(parse_cluster(options.cluster))


def _describe_cluster(cluster: Cluster) -> str:
    if cluster.slurm:
        jobs = cluster.slurm.jobs
        return f"jobs of SLURM: up to {jobs}, each of them\n{cluster.job_script().rstrip()}"
    if cluster.local:
        return f"processes on this machine: {cluster.local}, with one thread each"
    return f"workers: those of the scheduler at {cluster.address}, which is not asked now"
