"""DICOM SEG: labels of a DICOM series, with references to its slices.

Patient, study and frame of reference are those of the series, names of patients included, as the standard asks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_OID, uuid5

import numpy as np
from numpy.typing import NDArray

from biounet.core import InputError, __version__, require_extra
from biounet.files.exports.labelled_image import LabelledImage
from biounet.files.formats.dicom.geometry import Stack
from biounet.files.formats.dicom.headers import EXTRA, looks_like_dicom, quietly
from biounet.files.formats.dicom.read import stack_of_series
from biounet.files.formats.dicom.series import holds_dicom

if TYPE_CHECKING:
    from highdicom.seg import SegmentDescription
    from pydicom import Dataset

_MOST_BINARY = 1000  # segments, each with frames of its own
_MOST = 65_535  # segments of a file
_SERIES_NUMBER = 1000  # that the number of the source is added to
# Names of classes and objects by words in them: category and type, of SNOMED CT with their meanings
_ABNORMAL, _STRUCTURE = ("49755003", "Morphologically Altered Structure"), ("91723000", "Anatomical Structure")
_TISSUE = ("85756007", "Tissue")
_TYPES = (
    ("necro", _ABNORMAL, ("6574001", "Necrosis")),
    ("o?edema", _ABNORMAL, ("79654002", "Edema")),
    ("tumou?r|enhancing|neoplasm|(?<![a-z])core|glioma|metastas", _ABNORMAL, ("108369006", "Neoplasm")),
    ("lesion", _ABNORMAL, ("52988006", "Lesion")),
    ("nucle", _STRUCTURE, ("84640000", "Nucleus")),
    ("cell", _STRUCTURE, ("4421005", "Cell")),
    ("hippocamp", _STRUCTURE, ("3640004", "Hippocampus")),
    ("cord|spinal", _STRUCTURE, ("2748008", "Spinal cord")),
)


def write_dicom_seg(image: LabelledImage, path: Path) -> None:
    """Write one binary segment for each class or object, as every viewer reads it."""
    if image.kind == "objects" and len(image.values) > _MOST_BINARY:
        cause = f"{len(image.values)} objects, and more than {_MOST_BINARY} segments make a file that no viewer opens"
        raise InputError(cause, path=path, hint="export dicom-seg-labelmap")
    _write(image, path, "BINARY")


def write_dicom_labelmap(image: LabelledImage, path: Path) -> None:
    """Write a label map, which is smaller and which only new viewers read."""
    if len(image.values) > _MOST:
        cause = f"{len(image.values)} objects, and a DICOM SEG holds {_MOST} segments"
        raise InputError(cause, path=path, hint="export ome-zarr")
    _write(image, path, "LABELMAP")


def _write(image: LabelledImage, path: Path, kind: str) -> None:
    require_extra(EXTRA, "highdicom", "DICOM SEG", path)
    source, scene = _source(image, path)
    _, stack = stack_of_series(source, scene)
    if (len(stack.frames), *image.grid.shape[1:]) != image.grid.shape or image.times:
        raise InputError("its labels do not lie on a volume of a DICOM series", path=path)
    import pydicom
    from highdicom.seg import Segmentation

    with quietly():
        files = {frame.file: None for frame in stack.frames}
        sources = [pydicom.dcmread(file, stop_before_pixels=True, force=True) for file in files]
        _complete(sources)
        series, instance = _uid(image, f"{kind} series"), _uid(image, kind)
        segmentation = Segmentation(
            source_images=sources,
            pixel_array=_pixels(image.labels[:, ::-1], stack, sources),
            segmentation_type=kind,
            segment_descriptions=_describe_segments(image),
            series_instance_uid=series,
            series_number=_SERIES_NUMBER + int(sources[0].get("SeriesNumber") or 0),
            sop_instance_uid=instance,
            instance_number=1,
            manufacturer="biounet",
            manufacturer_model_name="biounet",
            software_versions=__version__,
            device_serial_number=_model_name(image),
            series_description=f"biounet: {image.element}",
            omit_empty_frames=bool(image.values.size),
            content_description=f"{image.element} found by biounet",
            transfer_syntax_uid="1.2.840.10008.1.2.5" if kind == "LABELMAP" else "1.2.840.10008.1.2.1",
        )
        segmentation.save_as(path)


def _source(image: LabelledImage, path: Path) -> tuple[Path, str]:
    """Return the path and the scene of the DICOM series that an image was read from."""
    volume = image.image
    if volume is not None and volume.source is not None and volume.grid.affine is not None:
        source = volume.source
        if holds_dicom(source) if source.is_dir() else looks_like_dicom(source):
            return source, volume.scene
    hint = "the label image opens on a NIfTI in 3D Slicer and ITK-SNAP as it is; a DICOM SEG needs DICOM as input"
    raise InputError("its image was not read from a DICOM series, which a DICOM SEG refers to", path=path, hint=hint)


def _pixels(labels: NDArray[Any], stack: Stack, sources: Sequence[Dataset]) -> Any:  # noqa: ANN401 - array or Volume
    """Return labels ``(z, y, x)``, whose rows are in the order of DICOM, as highdicom lays them on the sources.

    In the order of their frames; or, where these are some of many, as a volume with its place in space.
    """
    from highdicom import Volume

    labels = np.ascontiguousarray(labels.astype(np.uint16 if labels.max(initial=0) > 255 else np.uint8))
    frames = sum(int(source.get("NumberOfFrames") or 1) for source in sources)
    if frames == len(stack.frames) and (len(sources) == 1 or frames == len(sources)):
        return labels[np.argsort([frame.number for frame in stack.frames])] if len(sources) == 1 else labels
    x, y, z, last_row = stack.affine.T
    first = last_row + y * (labels.shape[1] - 1)
    affine = np.vstack([np.column_stack([z, -y, x, first]), (0, 0, 0, 1)])
    frame = sources[0].get("FrameOfReferenceUID")
    return Volume(labels, affine, coordinate_system="PATIENT", frame_of_reference_uid=frame)


def _describe_segments(image: LabelledImage) -> list[SegmentDescription]:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentDescription
    from pydicom.sr.codedict import codes

    largest = int(image.values.max(initial=0))
    last = max(largest, *image.class_names) if image.class_names else max(largest, 1)
    family = codes.DCM.ArtificialIntelligence
    version = f"{__version__}, {image.model}" if image.model else __version__
    algorithm = AlgorithmIdentificationSequence("biounet", family=family, version=version[:64])
    described = []
    for label in range(1, last + 1):
        name = image.label_name(label)
        category, kind = _codes(image.class_of(label))
        described.append(
            SegmentDescription(
                segment_number=label,
                segment_label=name[:64],
                segmented_property_category=category,
                segmented_property_type=kind,
                algorithm_type="AUTOMATIC",
                algorithm_identification=algorithm,
                tracking_uid=_uid(image, f"segment {label}"),
                tracking_id=f"{image.name}: {name}"[:64],
            )
        )
    return described


def _codes(name: str) -> tuple[Any, Any]:
    """Return the coded category and type of what is called so; tissue, if no word of it is known."""
    from pydicom.sr.coding import Code

    found = ((category, kind) for words, category, kind in _TYPES if re.search(words, name.casefold()))
    category, kind = next(found, (_TISSUE, _TISSUE))
    return Code(category[0], "SCT", category[1]), Code(kind[0], "SCT", kind[1])


def _model_name(image: LabelledImage) -> str:
    return image.model[:64] or "unknown"


def _uid(image: LabelledImage, what: str) -> str:
    """Return a UID that follows from the identity of the result: exported again, it is the same."""
    return f"2.25.{uuid5(NAMESPACE_OID, f'{image.identity}:DICOM SEG:{what}').int}"


def _complete(sources: Sequence[Dataset]) -> None:
    """Add what the standard asks of every image, empty, where anonymisation removed it."""
    empty: Mapping[str, str] = dict.fromkeys(
        ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"), ""
    ) | dict.fromkeys(("AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator"), "")
    for source in sources:
        for name, value in empty.items():
            if name not in source:
                setattr(source, name, value)
