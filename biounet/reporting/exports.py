"""A segmentation in the formats of other programs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from biounet.files import LabelledImage, channel_types, export_formats, write_export
from biounet.reporting.outputs import make_folder

if TYPE_CHECKING:
    from biounet.segmentation import Segmentation


def export_segmentation(result: Segmentation, folder: Path, name: str, formats: Sequence[str]) -> list[Path]:
    """Write a segmentation in formats of `biounet.files.export_formats` to a folder; return the paths.

    `name` is how the names of the files begin. Files of these names that are there are replaced.

    Raises
    ------
    SettingsError
        If there is no such format.
    InputError
        If a format cannot hold this result.
    """
    chosen = export_formats(formats)
    labelled = _as_labelled(result, name)
    make_folder(folder)
    return [write_export(labelled, export, folder) for export in chosen]


def _as_labelled(result: Segmentation, name: str) -> LabelledImage:
    labels = np.ascontiguousarray(result.labels, np.int32)
    return LabelledImage(
        name=name,
        labels=labels,
        grid=result.volume.grid,
        kind=result.kind,
        columns=result.columns,
        class_names=result.class_names,
        times=result.volume.times,
        interval=result.volume.interval,
        identity=f"{name}:{hashlib.sha256(labels.tobytes()).hexdigest()}",
        image=result.volume,
        channel_types=channel_types(result.columns, result.volume),
    )
