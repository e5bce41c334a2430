"""Folders of images and of results: the commands ``segment`` and ``evaluate`` in Python."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from biounet.api.keywords import BatchKeywords, check_names, parse_keywords, spell_out
from biounet.api.progress import show_batch
from biounet.api.segmenter import Segmenter, load
from biounet.batch import BatchOptions, Row, count_columns, export_run, plan_batch, segment_batch
from biounet.core import DataSettings, Recipe, SettingsError, as_bytes, as_path, find_recipe, list_some, read_recipe
from biounet.evaluation import ClassEvaluation, Evaluation
from biounet.evaluation import evaluate as compare
from biounet.files import (
    ReaderPool,
    ReadOptions,
    describe_skipped,
    resolve_images,
    search_images,
    split_formats,
)
from biounet.measurement import Grouping, read_grouping
from biounet.segmentation import SegmentOptions

if TYPE_CHECKING:
    import pandas as pd

PathLike = str | Path
_SHOWN = 3  # failed images in a message
_log = logging.getLogger(__name__)


@spell_out(BatchKeywords)
def segment_folder(
    images: PathLike | Iterable[PathLike],
    out: PathLike,
    model: PathLike | Segmenter = "nuclei",
    *,
    progress: bool | None = None,
    options: SegmentOptions | None = None,
    **keywords: Unpack[BatchKeywords],
) -> pd.DataFrame:
    """Segment images into a folder, as ``biounet segment`` does: tables, label images, overlays and a report.

    What an earlier call has done is not done again; an image that fails gets a row, and the others go on.

    Parameters
    ----------
    images
        A folder, file or pattern, or several.
    out
        Folder of the results, which is created; it mirrors that of the images.
    model
        Built-in name, path, or what `biounet.load` returned.
    progress
        Whether to show how far it is; None: for several images, in a notebook or terminal.
    options
        How to segment, as one object; what keywords say goes before it.
    **keywords
        The others are the options of ``biounet segment``; see `biounet.api.BatchKeywords`.

    Returns
    -------
    A row for each image, with the columns of ``counts.csv``: image, status, count, …, seconds, message.

    Raises
    ------
    InputError, SettingsError, MachineError
        If there is no image; if an option cannot be used, or the folder holds results of other settings; if the disk is
        full.
    """
    paths = [images] if isinstance(images, str | Path) else list(images)
    segmenter = model if isinstance(model, Segmenter) else load(model)
    data, out = segmenter.card.recipe.data, as_path(out, "the folder of results")
    paths = [as_path(path, "an image, folder or pattern") for path in paths]
    formats = split_formats(keywords.pop("export", None) or (), keywords.pop("columns", None))
    batch = _batch_options(keywords, segmenter, options)
    search = search_images(paths, data.channels, data.annotation, batch.read.series)
    with ReaderPool() as readers:
        batch = replace(batch, skipped=tuple(search.skipped), readers=readers)
        found = resolve_images(search.images, batch.read, readers)
        plan = plan_batch(found, segmenter.model, out, batch)
        with show_batch(plan, lambda row: None, shown=progress) as report:
            rows = segment_batch(found, segmenter.model, out, replace(batch, on_parts=report.parts), report)
    if formats:
        export(out, formats, overwrite=batch.overwrite)
    if failed := [f"{row.image} ({row.message})" for row in rows if row.status == "failed"]:
        _log.warning("%d of %d images failed: %s", len(failed), len(rows), list_some(failed, _SHOWN))
    if surprising := [file for file in search.skipped if not file.expected]:
        _log.warning("%s", describe_skipped(surprising))
    return _as_table(rows)


def export(
    results: PathLike, formats: str | Sequence[str] = (), *, columns: str | None = None, overwrite: bool = False
) -> list[Path]:
    """Write results in the formats of other programs, as ``biounet export`` does: beside the label images.

    What is there already, of the same labels, is not written again. An image that fails is logged.

    Parameters
    ----------
    results
        Folder that `segment_folder` or ``biounet segment`` wrote.
    formats
        One or several, such as ``"geojson"``.
    columns
        A further table with names and units of another program: ``"cellprofiler"``.
    overwrite
        Whether files of these names are replaced that biounet did not write, or somebody changed.

    Returns
    -------
    The paths of all that are there now.

    Raises
    ------
    SettingsError
        If there is no such format.
    InputError, MachineError
        If the folder holds no results; if the disk is full.
    """
    out = as_path(results, "the folder of results")
    rows = export_run(out, split_formats(formats, columns), overwrite=overwrite)
    if failed := [f"{row.image or row.path} as {row.format} ({row.message})" for row in rows if row.status == "failed"]:
        _log.warning("%d of %d exports failed: %s", len(failed), len(rows), list_some(failed, _SHOWN))
    return [out / row.path for row in rows if row.status != "failed"]


def _batch_options(keywords: Mapping[str, Any], segmenter: Segmenter, options: SegmentOptions | None) -> BatchOptions:
    """Return the options of a batch that keywords say."""
    check_names(keywords, BatchKeywords)
    given = {name: value for name, value in keywords.items() if value is not None}
    names = {field.name for field in fields(BatchOptions)}
    own = {"device": segmenter.device} | {name: value for name, value in given.items() if name in names}
    own |= {"ram": as_bytes(own["ram"])} if "ram" in own else {}
    group, unit = own.pop("group", None), given.pop("unit", None)
    if group is None and unit is not None:
        raise SettingsError("unit without group", hint="say with group how images are grouped")
    if group is not None and not isinstance(group, Grouping):
        group = read_grouping(group, unit)
    others = {name: value for name, value in given.items() if name not in names}
    choices = parse_keywords(others, segmenter.card, options)
    choices.segment.check_model(segmenter.card.recipe.data)
    return BatchOptions(choices.read, choices.segment, **own, group=group)


def _as_table(rows: Sequence[Row]) -> pd.DataFrame:
    import pandas as pd  # slow to import

    table = pd.DataFrame(count_columns(rows)).infer_objects()
    table["count"] = pd.array([row.count for row in rows], dtype="Int64")
    return table


def evaluate(
    results: PathLike,
    truth: PathLike,
    recipe: PathLike | Recipe | DataSettings = "nuclei_2d",
    tolerance: float = 1.0,
    options: ReadOptions | None = None,
) -> Evaluation | ClassEvaluation:
    """Compare results with annotations, as ``biounet evaluate`` does.

    Parameters
    ----------
    results, truth
        Folders. Results without an annotation are left out.
    recipe
        What the annotations hold: a recipe, its path, or the name of a built-in one.
    tolerance
        Distance up to which the surfaces of classes in volumes agree, in the unit of the files.
    options
        Axes, pixel size, channel and plane of the label images, where their files do not say them or there is a choice.

    Returns
    -------
    Figures over all pairs that can be compared, with those of each; what is wrong with the others is in `failed`.

    Raises
    ------
    InputError
        If an annotation has no result, or no pair can be compared.
    SettingsError
        If there is no such recipe, or the tolerance is no length.
    """
    if not isinstance(recipe, DataSettings):
        recipe = (recipe if isinstance(recipe, Recipe) else read_recipe(find_recipe(recipe))).data
    options = options or ReadOptions(dims=recipe.dims)
    results, truth = as_path(results, "the folder of results"), as_path(truth, "the folder of annotations")
    return compare(results, truth, recipe, tolerance, options)
