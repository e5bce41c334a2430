"""One large image as a worker sees it: what the plan names is opened once in each process."""

from __future__ import annotations

import json
import math
import threading
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from biounet.core import (
    CanonicalImage,
    InputError,
    LabelSettings,
    LazyImage,
    canonical_transform,
    keep_little_memory,
)
from biounet.files import image_state, open_lazy
from biounet.labelling import ObjectFilter, SuperBlockLattice, smallest_object
from biounet.large_images.plan import LargePlan, load_plan
from biounet.large_images.predicted_blocks import BlockLabeller
from biounet.large_images.work_folder import WorkFolder
from biounet.measurement import (
    AcquiredExtent,
    AcquiredPart,
    ChannelSearch,
    MeasuredChannels,
    TrainingReference,
    as_ring,
)
from biounet.network import Model, Predictor, load_model, model_predictor
from biounet.preprocessing import ImageStatistics, IntensityScale, Resampling, Zoom, sampled_statistics
from biounet.segmentation import check_model_fits, model_zoom, training_reference

FIND, GAPS, PAINT, MEASURE = "find", "gaps", "paint", "measure"
"""Stages of a super-block."""

EXTENT = ".extent"
"""Suffix of the file of what was acquired in a super-block, of images with areas that were not, if anything was."""


@dataclass(frozen=True)
class Work:
    """One large image: its work folder, and what its plan names.

    Attributes
    ----------
    stored
        The image as it is stored, with the channels to measure.
    block
        Edge of the blocks that are predicted at once; None: the default.
    """

    folder: WorkFolder
    plan: LargePlan
    stored: LazyImage
    model: Model
    predictor: Predictor
    block: int | None = None

    @cached_property
    def image(self) -> LazyImage:
        """The image in the orientation that the model works on."""
        return CanonicalImage.of(self.stored)

    @cached_property
    def zoom(self) -> Zoom:
        """Factor along each axis from the grid of the image to that of the model."""
        return model_zoom(self.image, self.model.card, self.plan.segment.diameter)

    @cached_property
    def lattice(self) -> SuperBlockLattice:
        """The super-blocks, in the orientation that the model works on; each is a shard of the stored labels."""
        transform = canonical_transform(self.stored.grid)
        edges = tuple(self.plan.edges[axis] for axis in transform.axes)
        return SuperBlockLattice(self.image.grid.shape, edges, tuple(transform.flipped))

    @cached_property
    def scale(self) -> IntensityScale:
        """What `find_scale` found in the whole image."""
        return IntensityScale.from_dict(json.loads(self.folder.scale.read_text(encoding="utf-8")))

    @cached_property
    def settings(self) -> LabelSettings:
        """How objects are found on the grid of the image."""
        return self.plan.segment.on_grid(self.model.card.label, self.image.grid, self.zoom)

    @property
    def voxel_um(self) -> float | None:
        """Area (µm²) or volume (µm³) of a voxel; None where it is unknown."""
        steps = self.image.grid.steps_um
        return None if steps is None else math.prod(steps)

    @property
    def smallest(self) -> int:
        """Number of voxels of the smallest object."""
        return smallest_object(self.settings, self.voxel_um)

    @property
    def keep(self) -> ObjectFilter:
        """The objects that the user wants."""
        segment = self.plan.segment
        largest = None if segment.largest is None else segment.largest.as_largest(self.image.grid)
        return ObjectFilter(largest, segment.min_confidence, segment.exclude_border)

    @property
    def training(self) -> TrainingReference:
        """What the model was trained on."""
        return training_reference(self.model.card)

    @cached_property
    def statistics(self) -> ImageStatistics:
        """What the image looks like in figures."""
        return sampled_statistics(self.image, self.scale, self.zoom)

    @cached_property
    def acquired_part(self) -> AcquiredPart | None:
        """The part of the image that was acquired; None if it is no rectangle. All super-blocks have been predicted."""
        if not self.scale.has_unacquired:
            return AcquiredPart.whole(self.stored.grid)
        extent = AcquiredExtent()
        for index in range(len(self.lattice)):
            path = self.folder.file(FIND, index, EXTENT)
            if not path.is_file():
                continue
            raw = json.loads(path.read_text(encoding="utf-8"))
            extent += AcquiredExtent(tuple(raw["low"]), tuple(raw["high"]), raw["voxels"])
        return extent.part

    @property
    def channels(self) -> MeasuredChannels:
        """The channels that are measured, without what is found in them."""
        return MeasuredChannels.of(self.stored, self.model.card.inputs, as_ring(self.plan.segment.ring))

    def channel_search(self) -> ChannelSearch:
        """Return what is known of these channels by now."""
        try:
            return ChannelSearch.from_dict(json.loads(self.folder.channels.read_text(encoding="utf-8")))
        except FileNotFoundError:
            channels = self.channels
            return ChannelSearch(channels.types(self.stored), background=channels.ring is not None)

    @property
    def known_channels(self) -> MeasuredChannels:
        """The channels that are measured; the search in them has ended. Where labels were lost, it begins anew."""
        search, voxels = self.channel_search(), math.prod(self.stored.grid.shape)
        return replace(self.channels, background=search.backgrounds, wide=search.wide(voxels))

    @cached_property
    def labeller(self) -> BlockLabeller:
        """What labels a part of the image."""
        has_distance = self.model.card.recipe.data.kind == "instances"
        way = Resampling.zoomed(self.image.grid.shape, self.zoom)
        return BlockLabeller(self.image, self.scale, self.predictor, self.settings, has_distance, way, self.block)


@dataclass(frozen=True)
class WorkerSettings:
    """How a worker works: nothing of it changes the result.

    Attributes
    ----------
    device
        As `biounet.network.pick_device`.
    threads
        Of torch in each call; None: as it is.
    block
        As `Work.block`.
    """

    device: str = "cpu"
    threads: int | None = None
    block: int | None = None


_opened: dict[tuple[Path, WorkerSettings], tuple[int, Work]] = {}
_opening = threading.Lock()


def open_work(folder: Path, settings: WorkerSettings) -> Work:
    """Return the work in a folder, opened once in each process.

    Raises
    ------
    InputError
        If the folder, the image or the model is not there on this machine, or the image has changed.
    """
    plan_file = WorkFolder(folder).path / "plan.json"
    with _opening:
        try:
            state = plan_file.stat().st_mtime_ns
        except OSError as error:
            hint = "results have to lie where every worker sees them under the same path"
            raise InputError("the work folder is not there", path=folder, hint=hint) from error
        known = _opened.get((folder, settings))
        if known is None or known[0] != state:
            _opened.clear()  # of another image: models and files of one at a time
            known = _opened[folder, settings] = (state, _open(WorkFolder(folder), settings))
        return known[1]


def _open(folder: WorkFolder, settings: WorkerSettings) -> Work:
    keep_little_memory()
    plan = load_plan(folder.path)
    if plan is None:
        raise InputError("no plan of a large image", path=folder.path)
    check_unchanged(plan)
    model = load_model(folder.model)
    predictor = model_predictor(model, settings.device)
    image = open_lazy(plan.files, plan.read)
    check_model_fits(image, model.card)
    return Work(folder, plan, image, model, predictor, settings.block)


def check_unchanged(plan: LargePlan) -> None:
    """Raise `InputError` if a file of the image is not there any more, or was changed since the work began."""
    for path, state in zip(plan.files, plan.states, strict=True):
        try:
            now = image_state(path, plan.read.scene)
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}", path=path) from error
        if now != state:
            hint = "run the command again with --overwrite when it is complete"
            raise InputError("changed while it was worked on", path=path, hint=hint)
