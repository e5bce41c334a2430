"""What the header of a DICOM file says of its series, its frames, and how they are stored.

A frame is a slice of a multi-frame file, or the one of a classic file: what follows does not tell them apart.
"""

from __future__ import annotations

import math
import stat
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biounet.core import InputError, require_extra
from biounet.files.formats.raw import translate_errors
from biounet.files.retry import read_first_bytes

if TYPE_CHECKING:
    from pydicom import Dataset

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
EXTRA = "dicom"
DIRECTORY_NAME = "DICOMDIR"
DIRECTORY = "1.2.840.10008.1.3.10"
SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")  # binary or fractional; label map

_MAGIC_AT, _MAGIC = 128, b"DICM"
# Little-endian elements of group 2 or 8 that a file without preamble begins with, as old scanners write it
_BARE = tuple(bytes((group, 0, element, 0)) for group in (2, 8) for element in (0, 1, 5, 8, 0x10, 0x12, 0x16))
_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # and those below it
_NO_VOLUME = {"1.2.840.10008.5.1.4.1.1.481.2": "a radiation dose", "1.2.840.10008.5.1.4.1.1.77.1.6": "a whole slide"}
_IMAGE_NAME = "Image Storage"  # how the names of kinds of files end that have pixels
_CACHED = 2**16  # headers of about 2 kB
_MOST_DEFLATED = 2**21  # bytes, of a file that is inflated whole to read its header, 1 000 times as large at most
_TAGS: tuple[str | int, ...] = (
    *("SpecificCharacterSet", "ImageType", "SOPClassUID", "SOPInstanceUID", "AcquisitionTime", "Modality"),
    *("SeriesDescription", "ProtocolName", "ContrastBolusAgent", "InversionTime", "EchoTime", "EchoNumbers"),
    *("TriggerTime", "DiffusionBValue", "DiffusionGradientOrientation", "SeriesInstanceUID", "SeriesNumber"),
    *("AcquisitionNumber", "InstanceNumber", "ImagePositionPatient", "ImageOrientationPatient"),
    *("TemporalPositionIdentifier", "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows"),
    *("Columns", "PixelSpacing", "BitsAllocated", "BitsStored", "PixelRepresentation", "RescaleIntercept"),
    *("RescaleSlope", "ModalityLUTSequence", "EncryptedAttributesSequence", "SharedFunctionalGroupsSequence"),
    *("PerFrameFunctionalGroupsSequence", "ReferencedSeriesSequence", "StudyInstanceUID"),
    *("PatientID", "FrameOfReferenceUID"),
    *(0x0019100C, 0x00431039, 0x20011003),  # b-values of Siemens, GE and Philips
)
_B_VALUES = ("DiffusionBValue", 0x0019100C, 0x00431039, 0x20011003)
_RESCALING = {"RescaleSlope": 1.0, "RescaleIntercept": 0.0}  # and what they are where the header has none
_GE_OFFSET = 1e9  # that GE adds to b-values

Vector = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Frame:
    """One slice.

    Attributes
    ----------
    position, orientation, spacing
        Of the centre of the first pixel, x, y, z in mm, LPS; the directions of a row and of a column; distance of rows
        and of columns in mm. None where the file does not say.
    slope, intercept
        Of the values that pixels stand for.
    traits
        What distinguishes images of one place in one series, such as ``echo`` and ``b``, as text.
    """

    file: Path
    number: int  # in its file, from 0
    position: Vector | None
    orientation: Vector | None
    spacing: Vector | None
    slope: float
    intercept: float
    traits: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class DicomFile:
    """The header of a file; texts are empty where it does not say.

    `refusal` says what it is that is no image to segment, empty if it is one; `problem`, what is wrong with an image,
    and what to do.
    """

    path: Path
    size: int
    sop_class: str
    instance: str
    study: str
    series: str
    referenced: str  # the series that a segmentation is of
    number: int | None
    description: str
    modality: str
    is_contrast: bool  # whether a contrast agent was given
    shape: tuple[int, int]  # rows and columns
    samples: int
    photometric: str
    bits: tuple[int, int]  # allocated and stored
    is_signed: bool
    syntax: str  # UID of the transfer syntax
    frames: tuple[Frame, ...]
    refusal: str = ""
    problem: tuple[str, str] | None = None
    patient: str = ""
    reference: str = ""  # UID of the frame of reference, in which positions are

    @property
    def is_segmentation(self) -> bool:
        """Whether it is a DICOM SEG."""
        return self.sop_class in SEGMENTATIONS


def looks_like_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM does, or has the suffix of DICOM."""
    try:
        state = path.stat()
    except (OSError, ValueError):  # no such file, or a name that no file can have
        return False
    return stat.S_ISREG(state.st_mode) and _looks_like_dicom(path, state.st_size, state.st_mtime_ns)


@lru_cache(_CACHED)
def _looks_like_dicom(path: Path, _size: int, _time: int) -> bool:
    head = _head(path)
    return head[_MAGIC_AT:] == _MAGIC or head.startswith(_BARE) or path.suffix.lower() in DICOM_SUFFIXES


def is_certainly_dicom(path: Path) -> bool:
    """Whether a file that cannot be read is a damaged one and not of another format: it has the mark or the suffix."""
    return _head(path)[_MAGIC_AT:] == _MAGIC or path.suffix.lower() in DICOM_SUFFIXES


def _head(path: Path) -> bytes:
    try:
        return read_first_bytes(path, _MAGIC_AT + len(_MAGIC))
    except OSError:
        return b""


def read_header(path: Path) -> DicomFile:
    """Read the header of a file; what is read once is remembered as long as the file has that size and time.

    Raise `InputError` if it is not DICOM or is damaged, or if pydicom is not installed.
    """
    require_extra(EXTRA, "pydicom", "DICOM", path)
    state = path.stat()
    return _read_header(path, state.st_size, state.st_mtime_ns)


@contextmanager
def quietly() -> Iterator[None]:
    """Ignore warnings about values that are not as the standard says: what is used of them is checked."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@lru_cache(_CACHED)
@translate_errors
def _read_header(path: Path, size: int, _time: int) -> DicomFile:
    import pydicom

    if size == 0:
        raise InputError("empty file", path=path)
    with quietly():
        if size > _MOST_DEFLATED and _is_deflated(path):
            cause = f"a deflated file of {size / 1e6:.3g} MB, which could take all memory"
            raise InputError(cause, path=path, hint="convert it with gdcmconv or dcmconv")
        data = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS), force=True)
        return _parse(data, path, size)


def _is_deflated(path: Path) -> bool:
    from pydicom.filereader import read_file_meta_info
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    if _head(path)[_MAGIC_AT:] != _MAGIC:
        return False
    return bool(read_file_meta_info(path).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian)


def _parse(data: Dataset, path: Path, size: int) -> DicomFile:
    from pydicom.uid import UID

    sop_class = str(data.get("SOPClassUID") or data.file_meta.get("MediaStorageSOPClassUID") or "")
    rows, columns = int(data.get("Rows") or 0), int(data.get("Columns") or 0)
    if not sop_class:
        if data.get("EncryptedAttributesSequence"):
            raise InputError("encrypted DICOM", path=path, hint="export it without encryption")
        raise InputError("not a DICOM file, or encrypted", path=path, hint="export it again, without encryption")
    syntax = str(data.file_meta.get("TransferSyntaxUID") or "")
    if (declared := int(data.get("NumberOfFrames") or 1)) > size:
        raise InputError(f"damaged: it declares {declared} frames in {size} bytes", path=path)
    frames = tuple(_frames(data, path)) if rows and columns else ()
    has_series = bool(data.get("SeriesInstanceUID")) or sop_class == DIRECTORY
    if not frames and (not has_series or UID(sop_class).name.endswith(_IMAGE_NAME)):
        cause = "cut short, before its pixels, or without Rows and Columns"
        raise InputError(cause, path=path, hint="copy it again from where it came from")
    return DicomFile(
        path=path,
        size=size,
        sop_class=sop_class,
        instance=str(data.get("SOPInstanceUID") or path),
        study=str(data.get("StudyInstanceUID") or ""),
        series=str(data.get("SeriesInstanceUID") or ""),
        referenced=_referenced(data),
        number=_integer(data.get("SeriesNumber")),
        description=str(data.get("SeriesDescription") or data.get("ProtocolName") or "").strip(),
        modality=str(data.get("Modality") or ""),
        is_contrast=bool(str(data.get("ContrastBolusAgent") or "").strip()),
        shape=(rows, columns),
        samples=int(data.get("SamplesPerPixel") or 1),
        photometric=str(data.get("PhotometricInterpretation") or ""),
        bits=(int(data.get("BitsAllocated") or 16), int(data.get("BitsStored") or data.get("BitsAllocated") or 16)),
        is_signed=bool(data.get("PixelRepresentation")),
        syntax=syntax,
        frames=frames,
        refusal=_refusal(data, sop_class, frames),
        problem=_problem(data, syntax, size, len(frames)),
        patient=str(data.get("PatientID") or ""),
        reference=str(data.get("FrameOfReferenceUID") or ""),
    )


def _referenced(data: Dataset) -> str:
    series = data.get("ReferencedSeriesSequence")
    return str(series[0].get("SeriesInstanceUID") or "") if series else ""


def _refusal(data: Dataset, sop_class: str, frames: Sequence[Frame]) -> str:
    """Return what a file is that is no image of a patient; empty if it is one."""
    from pydicom.uid import UID

    kinds = [str(kind).upper() for kind in _values(data.get("ImageType"))]
    name = str(data.get("SeriesDescription") or "").casefold()
    if sop_class in SEGMENTATIONS:
        return "a segmentation"
    if not frames:
        return str(UID(sop_class).name).removesuffix(" Storage")
    if sop_class in _NO_VOLUME:
        return _NO_VOLUME[sop_class]
    if "LOCALIZER" in kinds or any(word in name for word in ("localizer", "localiser", "scout", "topogram", "survey")):
        return "a localiser"
    if sop_class == _CAPTURE or sop_class.startswith(f"{_CAPTURE}."):
        return "a secondary capture"
    is_colour = int(data.get("SamplesPerPixel") or 1) > 1
    return "pictures in colours" if is_colour and any(frame.position for frame in frames) else ""


def _problem(data: Dataset, syntax: str, size: int, frames: int) -> tuple[str, str] | None:
    """Return why an image cannot be read, and what to do: pixels that are no grey slice, or more than its bytes."""
    from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

    if "MOSAIC" in map(str, _values(data.get("ImageType"))):
        return "a mosaic of Siemens, whose slices are tiles of one picture", "convert it to .nii.gz with dcm2niix"
    if data.get("PhotometricInterpretation") == "PALETTE COLOR":
        return "colours of a palette are not supported", "export it in grey"
    if not frames or (syntax and (UID(syntax).is_compressed or syntax == DeflatedExplicitVRLittleEndian)):
        return None
    samples = 2 if data.get("PhotometricInterpretation") == "YBR_FULL_422" else int(data.get("SamplesPerPixel") or 1)
    needed = int(data.Rows) * int(data.Columns) * samples * frames * int(data.get("BitsAllocated") or 16) // 8
    cause = f"truncated: its pixels need {needed} bytes, it has {size}"
    return (cause, "copy it again from where it came from") if size < needed else None


def _frames(data: Dataset, path: Path) -> Iterator[Frame]:
    shared = (data.get("SharedFunctionalGroupsSequence") or [None])[0]
    for number, own in enumerate(data.get("PerFrameFunctionalGroupsSequence") or ()):
        yield _functional_frame(_Groups(own, shared, data), path, number)
    if not data.get("PerFrameFunctionalGroupsSequence"):
        for number in range(int(data.get("NumberOfFrames") or 1)):
            yield _classic_frame(data, path, number)


def _classic_frame(data: Dataset, path: Path, number: int) -> Frame:
    is_single = int(data.get("NumberOfFrames") or 1) == 1
    return Frame(
        file=path,
        number=number,
        position=_vector(data.get("ImagePositionPatient"), 3) if is_single else None,
        orientation=_vector(data.get("ImageOrientationPatient"), 6) if is_single else None,
        spacing=_vector(data.get("PixelSpacing"), 2),
        slope=_rescaling("RescaleSlope", [data.get("RescaleSlope")], path),
        intercept=_rescaling("RescaleIntercept", [data.get("RescaleIntercept")], path),
        traits=_traits(
            type="/".join(map(str, _values(data.get("ImageType"))[2:])),
            echo=data.get("EchoTime"),
            inversion=data.get("InversionTime"),
            b=_b_value(data),
            direction=data.get("DiffusionGradientOrientation"),
            time=data.get("TemporalPositionIdentifier"),
            trigger=data.get("TriggerTime"),
            acquisition=data.get("AcquisitionNumber"),
            acquired=data.get("AcquisitionTime"),
        ),
    )


class _Groups:
    """The functional groups of a frame, its own before those that all frames share."""

    def __init__(self, own: Dataset, shared: Dataset | None, data: Dataset) -> None:
        self._levels = [own, *([] if shared is None else [shared])]
        self.data = data

    def get(self, sequence: str, name: str) -> Any:  # noqa: ANN401 - any value of DICOM
        for level in self._levels:
            for item in level.get(sequence) or ():
                if (value := item.get(name)) is not None:
                    return value
        return None

    def stated(self, sequence: str, name: str) -> list[Any]:
        """Return what the frame, and then what the whole file says."""
        return [self.get(sequence, name), self.data.get(name)]

    def nested(self, sequence: str, inner: str, name: str) -> Any:  # noqa: ANN401
        items = self.get(sequence, inner)
        return items[0].get(name) if items else None


def _functional_frame(groups: _Groups, path: Path, number: int) -> Frame:
    transform = "PixelValueTransformationSequence"
    return Frame(
        file=path,
        number=number,
        position=_vector(groups.get("PlanePositionSequence", "ImagePositionPatient"), 3),
        orientation=_vector(groups.get("PlaneOrientationSequence", "ImageOrientationPatient"), 6),
        spacing=_vector(groups.get("PixelMeasuresSequence", "PixelSpacing"), 2),
        slope=_rescaling("RescaleSlope", groups.stated(transform, "RescaleSlope"), path),
        intercept=_rescaling("RescaleIntercept", groups.stated(transform, "RescaleIntercept"), path),
        traits=_traits(
            type=groups.get("MRImageFrameTypeSequence", "ComplexImageComponent"),
            echo=groups.get("MREchoSequence", "EffectiveEchoTime"),
            inversion=groups.get("MRModifierSequence", "InversionTimes"),
            b=groups.get("MRDiffusionSequence", "DiffusionBValue"),
            direction=groups.nested(
                "MRDiffusionSequence", "DiffusionGradientDirectionSequence", "DiffusionGradientOrientation"
            ),
            time=groups.get("FrameContentSequence", "TemporalPositionIndex"),
            trigger=groups.get("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
            acquisition=groups.get("FrameContentSequence", "FrameAcquisitionNumber"),
            stack=groups.get("FrameContentSequence", "StackID"),
        ),
    )


def _b_value(data: Dataset) -> float | None:
    """Return the b-value by the element of the standard, or else by that of the maker."""
    for tag in _B_VALUES:
        element = data.get(tag) if isinstance(tag, str) else data[tag].value if tag in data else None
        if element is None:
            continue
        value = _values(element)[0] if _values(element) else None
        if isinstance(value, bytes):  # of implicit VR
            value = value.decode("ascii", "replace").split("\\")[0].strip(" \0")
        number = _number(value, -1.0)
        if number >= 0:
            return number % _GE_OFFSET if number >= _GE_OFFSET else number
    return None


def _traits(**values: Any) -> tuple[tuple[str, str], ...]:  # noqa: ANN401 - any values of DICOM
    return tuple((name, text) for name, value in values.items() if (text := _text(value)))


def _text(value: Any) -> str:  # noqa: ANN401
    if value is None:
        return ""
    numbers = _values(value)
    parts = [f"{float(one):.6g}" if isinstance(one, int | float) else str(one).strip() for one in numbers]
    return "/".join(parts).replace(" ", "_")


def _values(value: Any) -> list[Any]:  # noqa: ANN401
    if value is None:
        return []
    return [value] if isinstance(value, str | bytes) or not isinstance(value, Sequence) else [*value]


def _rescaling(name: str, stated: Sequence[Any], path: Path) -> float:
    """Return a number by which pixels are rescaled, the first that is stated.

    Without one pixels are as they are stored, but with one that is not understood they would be wrong: `InputError`.
    """
    value = next((value for value in stated if _values(value) and value != ""), _RESCALING[name])
    number = _number(value, float("nan"))
    if not math.isfinite(number):
        hint = "correct it, or export the series again from the scanner"
        raise InputError(f"its header states {name} {value}, which is no number", path=path, hint=hint)
    return number


def _vector(value: Any, length: int) -> Vector | None:  # noqa: ANN401
    numbers = tuple(_number(one, float("nan")) for one in _values(value))
    return numbers if len(numbers) == length and all(number == number for number in numbers) else None


def _number(value: Any, default: float) -> float:  # noqa: ANN401
    try:
        return float(value)
    except (TypeError, ValueError):
        return default


def _integer(value: Any) -> int | None:  # noqa: ANN401
    number = _number(value, float("nan"))
    return int(number) if number == number else None
