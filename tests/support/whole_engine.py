"""Images that are segmented in super-blocks and in memory, by a predictor that costs nothing and is as exact."""

import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch
from scipy import ndimage

from biounet.core import PROBABILITY_MAX, ArrayImage, Grid, Volume
from biounet.core.recipe import parse_recipe
from biounet.files import Locks, ReadOptions, open_label_store
from biounet.large_images import LargePlan, LargeRun, Work, WorkerSettings, segment_large, stages
from biounet.large_images.work_folder import WorkFolder
from biounet.network import Card, output_channels
from biounet.reporting import part_path, write_joined_table, write_table
from biounet.segmentation import SegmentOptions, segment

STRIDE, REACH = 4, 2
MICROSCOPE = 0.5  # µm between pixels, and in 3D between voxels along y and x, on which the model works
CODES = ("RAS", "LAS", "LPI", "SRA", "PIR")


@dataclass(frozen=True)
class LocalPredictor:
    """Maps from sums over 5 voxels along each axis, which depend on where a voxel lies in the stride of a network."""

    dims: int
    softmax: bool = False
    arithmetic: str = "fp32"
    pipeline: None = None
    make_substitute: None = None
    crops: bool = True
    shortages: tuple = ()
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def network(self):
        each = {"receptive_radius": (REACH,), "stride": (STRIDE,), "shuffle_factors": (1,)}
        return SimpleNamespace(**{name: value * self.dims for name, value in each.items()})

    def __call__(self, image, keep=None):
        assert not any(size % STRIDE for size in image.shape[1:])
        sums = image[0]
        for axis in range(self.dims):
            sums = ndimage.correlate1d(sums, [0.1, 0.2, 0.4, 0.2, 0.1], axis, mode="constant")
        phases = np.indices(sums.shape).sum(0) % STRIDE
        maps = [image[0], np.zeros_like(sums), sums - 0.01 * phases.astype(np.float32)]
        found = np.rint(np.clip(maps, 0, 1) * PROBABILITY_MAX).astype(np.uint16)
        return found if keep is None else found[(slice(None), *keep)]


class SparseImage(ArrayImage):
    """An image whose regions of one value are not stored."""

    def constant_value(self, region):
        part = self.read(region).reshape(self.channels, -1)
        return tuple(part[:, 0]) if (part == part[:, :1]).all() else None


def card_of(dims):
    """Return the card of a model of objects that works at one voxel size."""
    size = {"pixel_size_um": MICROSCOPE} if dims == 2 else {"voxel_size": [1.0, MICROSCOPE, MICROSCOPE]}
    recipe = parse_recipe({"data": {"dims": dims, "kind": "instances", **size}, "network": {"widths": [4, 4]}})
    return Card(recipe=recipe, inputs=("intensity",), outputs=output_channels(recipe), object_size_px=8.0)


def draw_volume(random, dims, *, zoom=True, turned=True, longest=None):
    """Return an image with objects of all sizes and holes in them, sometimes with an area that was not acquired."""
    longest = longest or {2: 70, 3: 24}[dims]
    shape = tuple(int(size) for size in random.integers(longest // 3, longest + 1, dims))
    values = ndimage.gaussian_filter(random.random(shape), random.choice([1.0, 1.8, 3.0]))
    ranks = values.ravel().argsort().argsort().reshape(shape) / values.size
    if random.random() < 0.5:  # ridges around basins: objects with holes in holes
        ranks = np.abs(2 * ranks - 1)
    array = (ranks ** random.choice([0.4, 1.0, 2.0]) * 200 + 20).astype(random.choice([np.uint8, np.uint16]))
    if random.random() < 0.4:  # not acquired, or dark, or saturated
        array[tuple(slice(0, int(size * random.uniform(0.4, 1))) for size in shape)] = random.choice(
            [0, array.min(), array.max()]
        )
    factors = np.exp(random.uniform(-0.9, 0.6, dims)) if zoom else np.ones(dims)
    spacing = [MICROSCOPE * float(factors[0])] * 2 if dims == 2 else (factors * MICROSCOPE * (2, 1, 1)).tolist()
    codes = str(random.choice(CODES)) if dims == 3 and turned else None
    return Volume(array[None], Grid(shape, tuple(spacing), "um", axcodes=codes))


def draw_options(random):
    """Return settings by which objects are joined, filled and dropped."""
    return SegmentOptions(
        diameter="native",
        foreground=float(random.choice([0.15, 0.5, 0.8])),
        join=float(random.choice([0.0, 0.5, 0.9, 0.98])),
        fill_holes=bool(random.random() < 0.7),
        min_size=float(random.choice([0, 5])),
        exclude_border=bool(random.random() < 0.2),
    )


@dataclass(frozen=True)
class ShuffledOrder:
    """Carries calls one by one, in an order that is drawn."""

    random: np.random.Generator

    def run(self, function, tasks, stop, is_done=None, keep_going=False):
        tasks = list(tasks)
        for number in self.random.permutation(len(tasks)):
            yield tasks[number], function(tasks[number])


@dataclass(frozen=True)
class Outcome:
    """What is found: labels, the bytes of the table, and what is said of the image."""

    labels: np.ndarray
    table: bytes
    count: int
    notes: tuple
    figures: dict

    def differences(self, other):
        """Return what differs from another outcome."""
        same = {name: getattr(self, name) == getattr(other, name) for name in ("table", "count", "notes", "figures")}
        same["labels"] = self.labels.shape == other.labels.shape and bool((self.labels == other.labels).all())
        return [name for name, is_same in same.items() if not is_same]


def in_memory(volume, options):
    """Segment an image as a whole."""
    dims = volume.grid.dims
    found = segment(volume, LocalPredictor(dims), card_of(dims), options)
    with tempfile.TemporaryDirectory() as folder:
        write_table(Path(folder) / "table.csv", found.columns)
        table = (Path(folder) / "table.csv").read_bytes()
    return Outcome(found.labels, table, found.count, found.notes, found.figures)


def in_super_blocks(volume, options, edges, block, random):
    """Segment an image in super-blocks, each stage in an order that is drawn."""
    dims = volume.grid.dims
    card, stop = card_of(dims), Event()
    plan = LargePlan((), (), ReadOptions(), "", replace(options, block=None), edges)
    with tempfile.TemporaryDirectory() as temporary:
        folder, store = Path(temporary) / "work", Path(temporary) / "labels.ome.zarr"
        folder.mkdir()
        model = SimpleNamespace(card=card, sha256="")
        work = Work(WorkFolder(folder), plan, SparseImage.of(volume), model, LocalPredictor(dims), block)
        run = LargeRun(folder, store, ShuffledOrder(random), WorkerSettings(), stop)
        with mock.patch.object(stages, "open_work", return_value=work), Locks(folder, stop) as locks:
            result = segment_large(work, run, locks)
        parts = (part_path(work.folder.tables, index) for index in range(len(work.lattice)))
        parts = [path for path in parts if path.is_file()]  # where no object begins, there is none
        write_joined_table(folder / "table.csv", parts, result.count)
        labels = open_label_store(store).read(tuple(slice(0, size) for size in volume.grid.shape))
        table = (folder / "table.csv").read_bytes()
    return Outcome(labels, table, result.count, result.notes, result.figures)
