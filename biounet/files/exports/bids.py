"""Segmentations as a BIDS derivative dataset: ``bids/`` in the folder of results.

Names and fields are those of the Brain Imaging Data Structure 1.10, "Imaging data: derivatives".
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from biounet.core import InputError, __version__
from biounet.files.atomic import atomic_path
from biounet.files.exports.labelled_image import ExportedImage, LabelledImage
from biounet.files.formats.nifti import write_nifti

DATASET_DESCRIPTION = "bids/dataset_description.json"
"""The description of the dataset, below the folder of a run."""

_BIDS_VERSION = "1.10.0"
# The suffix is missing in the name of a case of several contrasts.
_NAME = re.compile(r"(?P<entities>sub-[a-zA-Z0-9]+(_[a-zA-Z0-9]+-[a-zA-Z0-9+]+)*)(_(?P<suffix>[a-zA-Z0-9]+))?")
# Entities that stand after `space`, in their order; all others stand before it.
_LATE = ("space", "split", "recording", "chunk", "atlas", "seg", "scale", "res", "den", "label", "desc")
_DATA_TYPES = {"bold": "func", "sbref": "func", "cbv": "func", "dwi": "dwi", "pet": "pet", "asl": "perf"}  # else anat
_SOURCE = "raw"  # what the dataset of the images is called in URIs


def bids_path(name: str) -> str:
    """Return where the segmentation of an image of this name goes, below the folder of results, without suffix.

    ``sub-01_ses-2_T1w`` gives ``bids/sub-01/ses-2/anat/sub-01_ses-2_space-T1w_desc-biounet``: the labels lie in the
    space of the image, by which those of two images of a subject differ. Other names are taken as they are.
    """
    if (parsed := _parse(name)) is None:
        return f"bids/{name}_desc-biounet"
    entities, suffix = parsed[0] | {"desc": "biounet"}, parsed[1]
    if suffix:
        entities.setdefault("space", suffix)
    order = sorted(entities, key=lambda entity: _LATE.index(entity) if entity in _LATE else -1)
    stem = "_".join(f"{entity}-{entities[entity]}" for entity in order)
    return f"bids/{_folder(entities, suffix)}/{stem}"


def _parse(name: str) -> tuple[dict[str, str], str] | None:
    """Return the entities and the suffix of a name; None if it is none of BIDS."""
    if (match := _NAME.fullmatch(name)) is None:
        return None
    return dict(part.split("-", 1) for part in match["entities"].split("_")), match["suffix"] or ""


def _folder(entities: dict[str, str], suffix: str) -> str:
    folders = [f"{entity}-{entities[entity]}" for entity in ("sub", "ses") if entity in entities]
    return "/".join([*folders, _DATA_TYPES.get(suffix, "anat")])


def write_bids(image: LabelledImage, path: Path) -> None:
    """Write labels as NIfTI with the header of their source.

    Raise `InputError` if the source is no NIfTI, or its name none of BIDS.
    """
    if image.grid.header is None:
        raise InputError("BIDS segmentations are of NIfTI images, and this is none", hint="export ome-zarr or ome-tiff")
    if _parse(image.name) is None:
        raise InputError(f"'{image.name}' is no name of BIDS", hint="call images like sub-01_ses-1_T1w.nii.gz")
    frames = len(image.times)
    write_nifti(path, image.labels, image.grid.header, packed=True, values=image.kind, frames=frames)


def write_bids_sidecar(image: LabelledImage, path: Path) -> None:
    """Write what is to be known of a segmentation, as JSON."""
    folder = _folder(*(_parse(image.name) or ({}, "")))
    source = f"bids:{_SOURCE}:{folder}/{image.file_name or f'{image.name}.nii.gz'}"
    described = {
        "Description": f"{image.element.capitalize()} found by biounet with the model {image.model or 'unknown'}",
        "Manual": False,
        "Sources": [source],
        "SpatialReference": source,
    }
    path.write_text(f"{json.dumps(described, indent=2)}\n", encoding="utf-8")


def write_dataset_description(images: Sequence[ExportedImage], folder: Path) -> None:
    """Write ``dataset_description.json`` below the folder of a run; it says where the dataset of the images is."""
    path = folder / DATASET_DESCRIPTION
    described: dict[str, object] = {
        "Name": "Segmentations by biounet",
        "BIDSVersion": _BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "biounet", "Version": __version__}],
    }
    roots = {root for image in images if (root := _dataset_of(image)) is not None}
    if len(roots) == 1:
        described["DatasetLinks"] = {_SOURCE: Path(os.path.relpath(roots.pop(), path.parent)).as_posix()}
    path.parent.mkdir(exist_ok=True)
    with atomic_path(path) as part:
        part.write_text(f"{json.dumps(described, indent=2)}\n", encoding="utf-8")


def _dataset_of(image: ExportedImage) -> Path | None:
    """Return the folder that holds the subject of an image, where the image lies as BIDS has it."""
    if image.source is None:
        return None
    subject = next((folder for folder in image.source.parents if folder.name.startswith("sub-")), None)
    return None if subject is None else subject.parent
