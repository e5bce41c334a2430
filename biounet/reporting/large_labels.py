"""Label images that do not fit into memory: their tables are written part by part, with the bytes of memory."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from biounet.core import Grid, InputError, LazyImage, Note, SettingsError, least_ram, usable_memory
from biounet.files import LazyLabelFile, ReadOptions, lay_file_on_grid, open_label_image, open_lazy
from biounet.measurement import (
    Columns,
    FoundIds,
    LargeLabels,
    MeasuredChannels,
    MeasureOptions,
    PlainGrid,
    TableSummary,
    as_ring,
    count_pieces,
    describe_crossing,
    describe_pieces,
    find_ids,
    join_summaries,
    measure_owned,
)
from biounet.reporting.outputs import make_folder
from biounet.reporting.table_parts import (
    MOST_CSV_ROWS,
    part_path,
    write_joined_table,
    write_partitioned_table,
    write_table_part,
)

_EDGES = {2: (4096, 2048, 1024, 512), 3: (256, 128, 64)}  # of super-blocks
_PROGRAM = 250 * 2**20  # bytes of the libraries
_PER_VOXEL = 40  # bytes beside the pixels of channels: labels, runs, numbers, rings, pairs with larger objects
_REACH = 1.3  # times a super-block: what is read around it, of objects that begin in it
_SMALL = 2**22  # voxels that always fit into memory


def check_ram(ram: int | None) -> None:
    """Raise `SettingsError` for an amount of memory that is too little for any label image."""
    if ram is not None and ram <= _PROGRAM:
        cause = f"ram of {ram / 2**20:.0f} MiB: too little for any label image"
        raise SettingsError(cause, hint=f"the program itself takes {_PROGRAM // 2**20} MiB")


@dataclass(frozen=True)
class LabelFiles:
    """A label image, its image and the larger objects that it lies in, opened to be read region by region."""

    labels: LazyLabelFile
    image: LazyImage
    channels: MeasuredChannels
    inside: LazyLabelFile | None = None

    @classmethod
    def open(
        cls, labels: Path, image: Path | Mapping[str, Path] | None, inside: Path | None, options: MeasureOptions
    ) -> LabelFiles:
        """Open files as `biounet.measurement.measure` reads them.

        Raises
        ------
        InputError
            If one cannot be read region by region, does not lie on the others, or is damaged.
        """
        file = open_label_image(labels, options.reading())
        read = options.reading(file.grid.dims)
        ring = as_ring(options.ring)
        if image is None:
            if read.spacing is not None:
                file = replace(file, grid=Grid(file.grid.shape, read.spacing, file.grid.unit or options.unit))
            source: LazyImage = PlainGrid.of(file.grid, labels)
            channels = MeasuredChannels()
        else:
            source = _open_image(image, replace(read, channel=0, measure=("all",), scene=str(options.scene)))
            first = source.channel_names[0] if source.channel_names else "channel_0"
            channels = MeasuredChannels((first,), further=True, ring=ring)
            file = lay_file_on_grid(file, source.grid)
        larger = None
        if inside is not None:
            larger = lay_file_on_grid(open_label_image(inside, options.reading()), source.grid, "the labels")
        return cls(file, source, channels, larger)

    @cached_property
    def pixel_bytes(self) -> int:
        """Bytes of all channels of a voxel."""
        return sum(dtype.itemsize for dtype in self.channels.types(self.image).values())

    def edge(self, limit: int | None) -> int:
        """Return the largest super-block that can be worked on in so many bytes; raise `InputError` without any."""
        edges = _EDGES[self.image.grid.dims]
        needs = {edge: self._bytes_of(edge) for edge in edges}
        for edge, need in needs.items():
            if limit is None or need <= limit:
                return edge
        least = min(needs.values())
        cause = f"{(limit or 0) / 2**30:.2g} GiB of memory are too little: it takes {least / 2**30:.3g} GiB"
        raise InputError(cause, path=self.labels.path, hint=least_ram(least))

    def _bytes_of(self, edge: int) -> int:
        voxels = math.prod(min(edge, size) for size in self.image.grid.shape)
        return int(_PROGRAM + _REACH * voxels * (_PER_VOXEL + self.pixel_bytes))


def open_large(
    labels: Path,
    image: Path | Mapping[str, Path] | None,
    inside: Path | None,
    options: MeasureOptions,
    ram: int | None,
) -> tuple[LabelFiles, int] | None:
    """Open what does not fit into memory, with the edge of its super-blocks; None for what fits.

    Labels that cannot be read region by region are left to the way through memory, and so are damaged ones.

    Parameters
    ----------
    ram
        Bytes; None: most of what is free.

    Raises
    ------
    InputError
        If an image does not fit into memory and cannot be read region by region; if memory is too little for the
        smallest super-blocks.
    """
    try:
        voxels = math.prod(open_label_image(labels, options.reading()).grid.shape)
    except InputError:
        return None
    limit = ram if ram is not None else usable_memory()
    if limit is None or (voxels <= _SMALL and ram is None):
        return None
    try:
        files = LabelFiles.open(labels, image, inside, options)
    except InputError:
        if _PROGRAM + voxels * _PER_VOXEL <= limit:
            return None
        raise  # memory would not do either
    need = _PROGRAM + voxels * (_PER_VOXEL + files.pixel_bytes)
    return None if need <= limit else (files, files.edge(limit))


@dataclass(frozen=True)
class LargeTables:
    """What is known of the tables of a label image that were written.

    Attributes
    ----------
    paths
        The tables: CSV or, of many rows, folders of Parquet.
    objects, parents
        Summaries of the tables.
    found
        What was found of the ids.
    without_objects
        Number of larger objects in which there are none.
    notes
        Warnings for the user.
    """

    paths: tuple[Path, ...]
    objects: TableSummary
    found: FoundIds
    parents: TableSummary | None = None
    without_objects: int = 0
    notes: tuple[Note, ...] = ()


def write_large_tables(
    files: LabelFiles,
    edge: int,
    paths: list[Path],
    *,
    excel: bool = False,
    protected: Collection[Path] = (),
) -> LargeTables:
    """Write the tables of a label image, and of the larger objects, each of them whole.

    Parameters
    ----------
    paths
        Of the tables, in this order, as CSV. A table of more than `MOST_CSV_ROWS` rows is a folder of Parquet of this
        name with another suffix, as of images that are segmented.
    protected
        Folders of others, which are not replaced.

    Raises
    ------
    InputError
        If a part of a file is damaged, or a protected folder is in the way.
    MachineError
        If the disk is full.
    """
    make_folder(paths[0].parent)
    targets = [_Target(path, excel, protected) for path in paths]
    with tempfile.TemporaryDirectory(dir=paths[0].parent, prefix=".measuring-") as folder:
        job = LargeLabels(files.labels, files.image, files.channels, Path(folder) / "objects", edge)
        path, summary, found = _write_table(job, targets[0], files.inside, None)
        notes: tuple[Note, ...] = ()
        if found.only:
            pieces = count_pieces(files.labels, files.image.grid.shape, job.cores, job.folder)
            notes = describe_pieces(pieces, found.only)
        if files.inside is None:
            return LargeTables((path,), summary, found, notes=notes)
        job = replace(job, labels=files.inside, folder=Path(folder) / "parents")
        parents_path, parents, _ = _write_table(job, targets[1], None, found)
    with_objects = 0 if found.inside is None else len(found.inside[0])
    notes += describe_crossing(found.crossing, found.count)
    return LargeTables((path, parents_path), summary, found, parents, parents.rows - with_objects, notes)


def parquet_path(path: Path) -> Path:
    """Return the folder that is in place of a table of CSV where there are many rows."""
    return path.with_name(f"{path.name.removesuffix('.csv')}.parquet")


@dataclass(frozen=True)
class _Target:
    """Where a table is written, and how; the fields are as of `write_large_tables`."""

    path: Path
    excel: bool
    protected: Collection[Path]

    def in_format(self, rows: int) -> Path:
        """Return the path of a table of so many rows."""
        path = self.path if rows <= MOST_CSV_ROWS else parquet_path(self.path)
        if path in self.protected:
            hint = "move it elsewhere, or choose another folder for the results"
            raise InputError("there already, and not written by biounet", path=path, hint=hint)
        return path

    def write(self, parts: list[Path], rows: int, finish: Callable[[Columns], Columns]) -> None:
        """Write the rows of all parts."""
        path = self.in_format(rows)
        if path == self.path:
            write_joined_table(path, parts, rows, excel=self.excel, finish=finish)
        else:
            write_partitioned_table(path, parts, rows, {}, finish=finish)


def _write_table(
    job: LargeLabels, target: _Target, larger: LazyLabelFile | None, inside: FoundIds | None
) -> tuple[Path, TableSummary, FoundIds]:
    """Write the table of the objects, or with `inside` of the larger objects that have been found to hold them."""
    job.folder.mkdir()
    found = find_ids(job, larger)
    path = target.in_format(found.count)
    parts, summaries = [], []
    for number, table in measure_owned(job, larger=larger is not None):
        write_table_part(job.folder, number, table.columns)
        parts.append(part_path(job.folder, number))
        summaries.append(TableSummary.of(table))

    def finish(columns: Columns) -> Columns:
        """Return rows as they are in memory: with their own ids, and empty for no parent."""
        ids = columns["id"]
        rows = {name: column for name, column in columns.items() if name != "id"} | {"label": ids}
        if "parent" in rows:
            parents = np.ma.masked_equal(rows["parent"], 0)
            rows["parent"] = np.array(parents.tolist(), object) if path == target.path else parents
        if inside is not None and inside.inside is not None:
            rows["count_inside"] = _counts_of(ids, *inside.inside)
        return rows

    target.write(parts, found.count, finish)
    return path, join_summaries(summaries), found


def _open_image(image: Path | Mapping[str, Path], read: ReadOptions) -> LazyImage:
    if isinstance(image, Mapping):
        return open_lazy(list(image.values()), replace(read, channels=tuple(image)))
    return open_lazy(image, read)


def _counts_of(ids: NDArray[np.integer], known: NDArray[np.integer], counts: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return the counts of some ids; 0 of those that are not known."""
    if not len(known):
        return np.zeros(len(ids), np.int64)
    place = np.minimum(np.searchsorted(known, ids), len(known) - 1)
    return np.where(known[place] == ids, counts[place], 0).astype(np.int64)
