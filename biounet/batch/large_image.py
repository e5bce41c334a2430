"""One image of a batch that does not fit into memory: segmented in super-blocks, by whoever carries calls."""

from __future__ import annotations

import math
import os
import shutil
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event

import numpy as np

from biounet.batch.names import image_name
from biounet.batch.parts_done import PartsClock, log_parts
from biounet.batch.records import BatchOptions
from biounet.core import (
    PROGRAM_RAM,
    CanonicalImage,
    InputError,
    LazyImage,
    MachineError,
    Volume,
    available_cores,
    least_ram,
)
from biounet.files import (
    STORE_SUFFIX,
    FoundImage,
    Locks,
    StoreOptions,
    can_open_lazy,
    find_temporary_files,
    image_state,
    label_suffix,
    open_label_store,
    open_lazy,
    stream_labels,
    translate_write_errors,
    write_label_store,
)
from biounet.large_images import (
    InThisProcess,
    LargePlan,
    LargeResult,
    LargeRun,
    Means,
    TaskRunner,
    Work,
    WorkerSettings,
    WorkFolder,
    WorkSize,
    begin,
    choose_size,
    connect,
    find_objects,
    find_scale_of_image,
    open_work,
    parse_cluster,
    segment_large,
)
from biounet.measurement import as_ring, ring_reach
from biounet.network import Model
from biounet.reporting import (
    MOST_CSV_ROWS,
    OutputOptions,
    large_picture_paths,
    make_folder,
    part_path,
    remove_files,
    view_folder,
    write_joined_table,
    write_large_pictures,
    write_partitioned_table,
)
from biounet.segmentation import (
    LARGEST_SEARCHED,
    MemoryNeed,
    Segmentation,
    SegmentOptions,
    memory_needs,
    model_zoom,
    resolve_diameter,
)

LARGEST_TIFF = 2**30
"""Voxels up to which label images are TIFF: above, one takes 4 GB uncompressed, which few programs open."""

WORK_FOLDER = ".large"
"""Folder below that of the results in which large images are worked on."""

_SMALL_FILE = 2**24  # bytes of a file whose image mostly fits into memory: it is opened when it does not
_CLUSTER_WORKER = 2**32  # bytes that a worker on another machine has, unless --ram says it
_LASTING = 2**25  # voxels from which the seconds in which a process of its own starts are few beside the work


@dataclass(frozen=True)
class LargeImage:
    """An image of a batch that is worked on in super-blocks, and how large these are."""

    found: FoundImage
    image: LazyImage
    size: WorkSize
    as_zarr: bool  # whether its labels stay a label store

    def has_own_process(self, options: BatchOptions) -> bool:
        """Whether it is worked on in a process of its own, which may die without the others.

        The workers of a cluster are such processes.
        """
        return options.cluster is None and math.prod(self.image.grid.shape) >= _LASTING

    @property
    def label_suffix(self) -> str:
        """Suffix of the name of its label image."""
        return STORE_SUFFIX if self.as_zarr else label_suffix(self.image.grid)

    @property
    def label_format(self) -> str:
        """What its label image is, in words."""
        if self.as_zarr:
            return "OME-Zarr"
        return "TIFF" if self.label_suffix.endswith(".tif") else "NIfTI"


def find_large(
    found: FoundImage, model: Model, options: BatchOptions, needs: Sequence[tuple[SegmentOptions, MemoryNeed]] = ()
) -> LargeImage | None:
    """Return an image that has to be worked on in super-blocks, or whose labels are to be OME-Zarr; None for others.

    Images of which other diameters have to be tried are worked on in memory.

    Parameters
    ----------
    needs
        What it takes in memory, where that is known, as of a file so small that only its header was read: a slide of
        which little was scanned.

    Raises
    ------
    InputError, SettingsError
        If the image does not fit the model, or the ring not the image; if memory is too little for the smallest
        super-blocks, or with a model of classes, for the image.
    """
    if found.problem or options.read.frames is not None:
        return None
    limit = options.image_limit
    if model.card.recipe.data.kind == "classes":
        _check_in_memory(needs, options.ram)
        return None
    if needs and (limit is None or needs[-1][1].total <= limit):
        return None
    if not all(_may_be_large(path, scene, whatever_size=bool(needs)) for path, scene in found.parts):
        return None
    image = open_lazy(found.files(), found.read_options(options.read))
    voxels, segment = math.prod(image.grid.shape), options.segment
    as_zarr = options.label_format == "zarr" or (options.label_format == "auto" and voxels > LARGEST_TIFF)
    needs = needs or memory_needs(_blank(image), model, segment, options.device)
    is_sought = resolve_diameter(segment.diameter, model.card) == "auto" and voxels <= LARGEST_SEARCHED
    if is_sought or (not as_zarr and (limit is None or needs[-1][1].total <= limit)):
        return None
    if image.measured and (ring := as_ring(segment.ring)) is not None:
        ring_reach(image.grid, ring)  # a ring that cannot be measured is told before all the work
    whole = None if as_zarr else PROGRAM_RAM + needs[-1][1].total
    return LargeImage(found, image, _choose_size(image, model, options, whole), as_zarr)


def _check_in_memory(needs: Sequence[tuple[SegmentOptions, MemoryNeed]], ram: int | None) -> None:
    """Raise `InputError` for an image that is not worked on in super-blocks and does not fit into `ram`."""
    if needs and ram is not None and (least := PROGRAM_RAM + needs[-1][1].total) > ram:
        cause = f"{ram // 2**20} MiB of memory are too little: a model of classes works on the image as a whole"
        raise InputError(cause, hint=least_ram(least))


def describe_excess(needs: Sequence[tuple[SegmentOptions, MemoryNeed]], model: Model, options: BatchOptions) -> str:
    """Return, of an image that is worked on in memory, that it takes more than `BatchOptions.ram`; empty otherwise."""
    total = PROGRAM_RAM + needs[-1][1].total
    if options.ram is None or total <= options.ram:
        return ""
    is_sought = resolve_diameter(options.segment.diameter, model.card) == "auto"
    advice = "; with --diameter native, or a number, it may be worked on in parts" if is_sought else ""
    return f"worked on in memory, of which it takes about {total / 2**30:.2g} GiB, more than --ram{advice}"


def _choose_size(image: LazyImage, model: Model, options: BatchOptions, whole: int | None) -> WorkSize:
    """Return the size of super-blocks; arguments as of `choose_size`."""
    image = CanonicalImage.of(image)
    zoom = model_zoom(image, model.card, options.segment.diameter)
    return choose_size(image, model, _means(options), zoom, whole)


def _means(options: BatchOptions) -> Means:
    """Return what an image is worked on with: processes of a cluster have the libraries and a super-block each."""
    if options.cluster is None:
        return Means(available_cores(), options.ram, pictures=options.overlay)
    kind, _, number = options.cluster.partition(":")
    if kind != "local":
        return Means(1, options.ram or _CLUSTER_WORKER)
    processes = int(number) if number.isdecimal() and int(number) else available_cores()
    return Means(processes, options.ram, processes=True)


def _may_be_large(path: Path, scene: str, whatever_size: bool) -> bool:
    """Whether an image is read region by region, and its file is not so small that it mostly fits into memory."""
    try:
        is_small = not (whatever_size or path.is_dir() or path.stat().st_size > _SMALL_FILE)
        return not is_small and can_open_lazy(path, scene)
    except OSError:
        return False


def _blank(image: LazyImage) -> Volume:
    """Return an image of zeros that takes no memory."""
    zeros = np.broadcast_to(np.zeros((), image.dtype), (image.channels, *image.grid.shape))
    measured = {name: np.broadcast_to(np.zeros((), dtype), image.grid.shape) for name, dtype in image.measured.items()}
    return Volume(zeros, image.grid, image.source, measured=measured)


def work_folder(found: FoundImage, out: Path) -> Path:
    """Return the folder in which a large image is worked on.

    It does not hold those of images in a folder of the same name.
    """
    return out / WORK_FOLDER / found.relative.parent / f"{found.stem}.work"


@contextmanager
def _opened(large: LargeImage, model: Model, out: Path, options: BatchOptions, stop: Event) -> Iterator[_Opened]:
    """Begin, or continue, the work on an image."""
    folder = work_folder(large.found, out)
    states = tuple(image_state(path, scene) for path, scene in large.found.parts)
    read = large.found.read_options(options.read)
    edges = (large.size.edge,) * large.image.grid.dims
    plan = LargePlan(large.found.files(), states, read, model.sha256, options.segment, edges)
    check_disk(out, folder, large.size.disk)
    make_folder(out / WORK_FOLDER)
    with Locks(out / WORK_FOLDER, stop) as locks, locks.exclusive("begin"):  # jobs of an array begin together
        plan = begin(folder, plan, model, overwrite=options.overwrite, is_shard=options.shard is not None)
    device = "auto" if options.cluster else options.device
    workers = WorkerSettings(device, 1, min(large.size.block, *plan.edges))
    work = open_work(folder, replace(workers, device=options.device))
    with Locks(folder, stop) as locks, _starting(large, folder, options) as runner:
        find_scale_of_image(work, locks, stop)  # while workers start
        progress = PartsClock(image_name(large.found), options.on_parts or log_parts())
        store = folder / f"{large.found.stem}{STORE_SUFFIX}"
        yield _Opened(work, LargeRun(folder, store, runner.result(), workers, stop, progress), locks)


@dataclass(frozen=True)
class _Opened:
    work: Work
    run: LargeRun
    locks: Locks


@contextmanager
def _starting(large: LargeImage, folder: Path, options: BatchOptions) -> Iterator[Future[TaskRunner]]:
    """Provide who carries calls, before all processes of this machine have started; they end with it."""
    with ExitStack() as stack, ThreadPoolExecutor(1) as starter:
        runner = starter.submit(stack.enter_context, _runner(large, folder, options))
        if options.cluster is not None and not parse_cluster(options.cluster).local:
            runner.result()  # that no scheduler answers is told at once
        yield runner


@contextmanager
def _runner(large: LargeImage, folder: Path, options: BatchOptions) -> Iterator[TaskRunner]:
    if options.cluster is None:
        yield InThisProcess(large.size.workers)
        return
    with connect(options.cluster, folder, options.ram) as runner:
        yield runner


def check_disk(out: Path, folder: Path, needed: int) -> None:
    """Raise `MachineError` if the disk has not the room that an image is estimated to take, with its work folder.

    What an earlier run left in the work folder counts as room that is taken already.
    """
    done = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0
    needed, free = needed - done, shutil.disk_usage(out).free
    if free < needed:
        more = " more" if done else ""
        cause = f"about {needed / 2**30:.2g} GiB{more} are needed, and {free / 2**30:.2g} GiB are free on this disk"
        raise MachineError(cause, path=out, hint="free some space, or choose another folder with -o")


def segment_share(large: LargeImage, model: Model, out: Path, options: BatchOptions, stop: Event) -> int:
    """Predict the super-blocks of the shard of `options`; return how many of the image are left to others."""
    with _opened(large, model, out, options, stop) as opened:
        return find_objects(opened.work, opened.run, options.shard)


def write_large(
    large: LargeImage, model: Model, out: Path, options: BatchOptions, stop: Event, protected: Collection[Path]
) -> tuple[LargeResult, list[Path]]:
    """Segment an image and write its outputs, each of them whole; return what was found, and their paths.

    The work folder stays, until `remove_work`.
    """
    parent = out / large.found.relative.parent
    make_folder(parent)
    with _opened(large, model, out, options, stop) as opened:
        result = segment_large(opened.work, opened.run, opened.locks)
    stem, table = large.found.stem, "_objects.csv" if result.count <= MOST_CSV_ROWS else "_objects.parquet"
    pictures = large_picture_paths(parent, stem, result.count, picture_options(model, out, options, parent))
    outputs = _Outputs(parent / f"{stem}{table}", pictures, parent / f"{stem}{large.label_suffix}")
    for path in outputs.paths:
        if path in protected:
            cause = f"{path.name} is among the results and was not written by biounet, or changed since"
            raise InputError(cause, path=path, hint="move it elsewhere, or choose another folder for the results")
    try:
        _write_outputs(outputs, large, opened, result.count, excel=options.excel)
    except InputError:  # as of a shard damaged since: what no record names would be taken for a file of somebody else
        remove_files([outputs.table, *pictures])
        raise
    return result, outputs.paths


@dataclass(frozen=True)
class _Outputs:
    """Where the outputs of an image go."""

    table: Path
    pictures: list[Path]
    labels: Path

    @property
    def paths(self) -> list[Path]:
        return [self.table, *self.pictures, self.labels]


def _write_outputs(outputs: _Outputs, large: LargeImage, opened: _Opened, count: int, *, excel: bool) -> None:
    """Write table and pictures from what the work left, and move the labels to their place."""
    work, store, labels = opened.work, opened.run.store, outputs.labels
    all_parts = (part_path(work.folder.tables, index) for index in range(len(work.lattice)))
    parts = [path for path in all_parts if path.is_file()]  # where no object begins, there is none
    if outputs.table.suffix == ".csv":
        write_joined_table(outputs.table, parts, count, excel=excel)
    else:
        write_partitioned_table(outputs.table, parts, count, {})
    for left in find_temporary_files(store).values():
        remove_files(left)  # of processes that were killed while they wrote a shard
    # An earlier run may have been ended after it had moved the store.
    found = open_label_store(store if store.is_dir() else labels)
    write_large_pictures(outputs.pictures, work.stored, found, parts, count, opened.run.stop)
    if not large.as_zarr:
        stream_labels(labels, found, large.image.grid, count, "objects")
    elif store.is_dir():
        _move(store, labels)


def picture_options(model: Model, out: Path, options: BatchOptions, parent: Path) -> OutputOptions:
    """Return which pictures are written of an image whose results lie in a folder, and what the model is called."""
    views = out / view_folder(parent.relative_to(out)) if options.overlay else None
    return OutputOptions(options.overlay, options.excel, views, f"{model.card.recipe.name} ({model.sha256[:12]})")


def _move(store: Path, final: Path) -> None:
    """Move a store to its place; what is there goes into the work folder, with which it is removed.

    Whenever this is cut short, the store is in one of the two places, whole.
    """
    with translate_write_errors(final):
        if os.path.lexists(final):
            former = store.with_name(f"former-{uuid.uuid4().hex}")
            final.rename(former)
        store.rename(final)


def write_as_zarr(
    found: FoundImage, result: Segmentation, pinned: Mapping[str, str], paths: Sequence[Path]
) -> list[Path]:
    """Replace the label image among the outputs of an image by a label store; return the outputs.

    `pinned` are the model and the arithmetic, as in stores of images in super-blocks.
    """
    grid = result.volume.grid
    old = next(path for path in paths if path.name.endswith(label_suffix(grid)))
    store = old.with_name(f"{found.stem}{STORE_SUFFIX}")
    edges = ({2: 4096, 3: 256}[grid.dims],) * grid.dims
    title = store.name.removesuffix(".ome.zarr")
    write_label_store(store, result.labels, grid, StoreOptions(edges, title=title, pinned=pinned))
    old.unlink()
    return [store if path == old else path for path in paths]


def remove_work(found: FoundImage, out: Path) -> None:
    """Remove the work folder of an image that is done, and those above it that are empty then."""
    folder, root = work_folder(found, out), out / WORK_FOLDER
    if not folder.is_dir():
        return
    with suppress(MachineError):
        WorkFolder(folder).remove(ignore_errors=True)
    with suppress(OSError):  # other processes may do the same, or begin in these folders
        for parent in folder.relative_to(root).parents[:-1]:
            (root / parent).rmdir()
        if not any(path.is_dir() for path in root.iterdir()):
            shutil.rmtree(root)  # with the file of locks
