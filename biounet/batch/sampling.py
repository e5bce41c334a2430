"""Images drawn at random from the results of a batch, to be counted by hand.

The order in which the images of a group are drawn is that of the hashes of their names with the seed: it can be drawn
again, and what a table of hand counts holds can be checked to be a draw and not a choice.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from biounet.batch.manifest import Manifest
from biounet.batch.recorded_files import recorded_image, resolve_recorded_path
from biounet.batch.records import Row
from biounet.batch.run_file import RunFile, read_run
from biounet.core import InputError, MachineError, SettingsError, as_path
from biounet.files import FoundImage, atomic_folder, atomic_path, is_zarr, read_volume, stem_of, write_picture
from biounet.measurement import Columns, Grouping, read_grouping
from biounet.reporting import draw_overlay, make_folder, write_table

if TYPE_CHECKING:
    import pandas as pd

_Key = tuple[str, ...]


@dataclass(frozen=True)
class RunGroups:
    """The counted images of a run by group: their rows by the values of `names`, in the order of the run."""

    names: tuple[str, ...]
    rows: dict[_Key, tuple[Row, ...]]


@dataclass(frozen=True)
class Sample:
    """Images drawn at random.

    Attributes
    ----------
    names
        Of the groups that were drawn from.
    images
        Names of the images, as in ``counts.csv``.
    groups
        Values of `names` for each image.
    of
        For each image, the number of images of its group that it was drawn from.
    files
        Copies for counting, relative to the table; empty where there are none.
    """

    names: tuple[str, ...]
    seed: int
    images: tuple[str, ...]
    groups: tuple[_Key, ...]
    of: tuple[int, ...]
    files: tuple[str, ...] = ()

    def columns(self) -> Columns:
        """Return the columns of the table to fill in: that of the hand counts is empty."""
        n = len(self.images)
        columns: Columns = {"image": np.array(self.images, object)}
        columns |= {name: np.array([key[i] for key in self.groups], object) for i, name in enumerate(self.names)}
        columns["file"] = np.array(self.files or [""] * n, object)
        columns |= {"seed": np.full(n, self.seed), "of": np.array(self.of, np.int64)}
        return columns | {"hand": np.array([""] * n, object)}

    @property
    def table(self) -> pd.DataFrame:
        """The `columns` as a pandas DataFrame."""
        import pandas as pd  # slow to import

        return pd.DataFrame(self.columns())


def sample(
    run: str | Path,
    n: int = 20,
    *,
    by: str | Path | None = None,
    seed: int = 1,
    out: str | Path | None = None,
    copies: str | None = "files",
) -> Sample:
    """Draw images at random from the results of a batch, to count them by hand.

    Parameters
    ----------
    run
        Folder of results.
    n
        Number of images from each group; all of a group that has fewer.
    by
        Names of groups of the run, separated by commas, or a pattern or table as for
        `biounet.measurement.read_grouping`; None: all images are one group.
    seed
        Another seed draws other images.
    out
        The table to write, a CSV with an empty column ``hand``; None: nothing is written.
    copies
        What is put beside the table, in a folder: ``"files"``, copies of the images; ``"pictures"``, PNGs with good
        contrast; None, nothing. The result is shown in neither: who counts must not see it.

    Raises
    ------
    SettingsError, InputError, MachineError
        If there is no such group, nothing was counted, the table exists, or an image is no longer there.
    """
    folder = as_path(run, "the folder of results")
    drawn = draw(groups_of_run(read_run(folder), by), n, seed)
    if out is None:
        return drawn
    table = as_path(out, "the table")
    if table.exists():
        hint = "choose another name with -o, or remove it"
        raise SettingsError("is there already, and may hold hand counts", path=table, hint=hint)
    if copies is not None:
        drawn = _with_copies(drawn, folder, table.with_name(f"{table.stem}_images"), copies == "pictures")
    write_table(table, drawn.columns())
    return drawn


def draw(groups: RunGroups, n: int, seed: int) -> Sample:
    """Draw `n` images from each group, or all of a group that has fewer."""
    if n < 1:
        raise SettingsError(f"--n {n}: at least 1 image is drawn from each group")
    chosen = {name: (key, len(rows)) for key, rows in groups.rows.items() for name in drawing_order(rows, seed)[:n]}
    names = sorted(chosen, key=_random_key(seed))  # of all groups in turn: who counts changes with time
    keys, of = zip(*map(chosen.__getitem__, names), strict=True)
    return Sample(groups.names, seed, tuple(names), tuple(keys), tuple(of))


def drawing_order(rows: Iterable[Row], seed: int) -> list[str]:
    """Return the names of images in the order in which a seed draws them."""
    return sorted((row.image for row in rows), key=_random_key(seed))


def _random_key(seed: int) -> Callable[[str], bytes]:
    return lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest()


def groups_of_run(run: RunFile, by: str | Path | None) -> RunGroups:
    """Return the counted images of a run by group; raise `SettingsError` if there are none, or no such groups."""
    counted = [row for row in run.rows if row.status != "failed" and row.count is not None]
    if not counted:
        raise SettingsError("no image of this run has a count")
    if any(row.frames for row in counted):
        raise SettingsError("time series cannot be sampled: give their frames as images of their own")
    names, values = _values_by(run, by, [row.image for row in counted])
    rows: dict[_Key, list[Row]] = defaultdict(list)
    for row in counted:
        rows[values(row.image)].append(row)
    return RunGroups(names, {key: tuple(inside) for key, inside in rows.items()})


def _values_by(run: RunFile, by: str | Path | None, images: Sequence[str]) -> tuple[_Key, Callable[[str], _Key]]:
    """Return the names of groups, and a function for their values."""
    if by is None:
        return (), lambda image: ()
    grouping, names = run.options.group, tuple(map(str.strip, str(by).split(",")))
    if grouping is None or not {*names} <= {*grouping.names}:
        grouping = _other_grouping(by, grouping)
        names = grouping.names
    chosen = grouping
    chosen.check(images)
    places = [chosen.names.index(name) for name in names]
    return names, lambda image: tuple((chosen.values(image) or ())[place] for place in places)


def _other_grouping(by: str | Path, grouping: Grouping | None) -> Grouping:
    """Return the grouping of a pattern or table; a name that the run does not have is a `SettingsError`."""
    if isinstance(by, str) and by.replace(",", "").replace(" ", "").isidentifier():
        has = f"it has {', '.join(grouping.names)}" if grouping else "it has none"
        hint = "segment again with --group, which computes nothing twice; or give a pattern or CSV here"
        raise SettingsError(f"--by {by}: this run has no such group, {has}", hint=hint)
    return read_grouping(by)


def _with_copies(drawn: Sample, run: Path, folder: Path, pictures: bool) -> Sample:
    """Return a sample whose images lie in a folder, called by their numbers in the table."""
    manifest, read = Manifest(run), read_run(run).options.read
    if pictures and read.dims == 3:
        raise SettingsError("stacks cannot be counted on a picture", hint="leave --pictures out: files are copied")
    sources = [_input_image(name, manifest, run, alone=not pictures) for name in drawn.images]
    make_folder(folder)
    files = []
    for number, image in enumerate(sources, 1):  # by numbers: names may say what was done to a well
        stem = folder / f"{number:0{len(str(len(sources)))}d}"
        files.append([stem.with_suffix(".png")] if pictures else _copy_all(image.files(), stem))
        if pictures:
            array = read_volume(image.files(), image.read_options(read)).array
            write_picture(files[-1][0], draw_overlay(array, np.zeros(array.shape[-2:], np.int32)))
    names = tuple(f"{folder.name}/{paths[0].name}" for paths in files)
    return replace(drawn, files=names)


def _input_image(name: str, manifest: Manifest, run: Path, *, alone: bool) -> FoundImage:
    """Return an image of a run, which must be there; `alone`, in files that hold no others."""
    record = manifest.get(name)
    paths = [resolve_recorded_path(file.path, run) for file in record.inputs] if record is not None else []
    if not paths or not all(os.path.isfile(path) or is_zarr(path) for path in paths):  # noqa: PTH113 - as `is_file`
        where = paths[0] if paths else run
        raise InputError(f"the image {name} is not there any more", path=where, hint="draw with --no-copies")
    image = recorded_image(name, paths, record.row.details if record is not None else {})
    if alone and image.scene:
        cause = f"{name} is one of the images of a file, which cannot be copied without the others"
        raise InputError(cause, path=paths[0], hint="draw with --pictures, or --no-copies")
    return image


def _copy_all(paths: Sequence[Path], stem: Path) -> list[Path]:
    """Copy the files of an image to `stem` and their suffixes; several, its channels, are numbered."""
    ends = [path.name.removeprefix(stem_of(path)) for path in paths]
    if len(paths) > 1:
        ends = [f"_{number}{end}" for number, end in enumerate(ends)]
    targets = [stem.with_name(f"{stem.name}{end}") for end in ends]
    for path, target in zip(paths, targets, strict=True):
        _copy(path, target)
    return targets


def _copy(path: Path, target: Path) -> None:
    try:
        if path.is_dir():
            with atomic_folder(target) as temporary:
                shutil.copytree(path, temporary)
            return
        with atomic_path(target) as temporary:
            shutil.copyfile(path, temporary)
    except MachineError:  # which says that the disk is full
        raise
    except OSError as error:
        raise MachineError(f"cannot be copied: {error.strerror}", path=path) from error
