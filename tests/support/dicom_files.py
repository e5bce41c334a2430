"""DICOM files made from arrays: classic series, enhanced multi-frame files, and what scanners add to them."""

from pathlib import Path

import nibabel as nib
import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])


def uid(*parts):
    """A UID that follows from texts, so that files are the same in each run."""
    return generate_uid(entropy_srcs=[str(part) for part in parts])


def slices_of(array, affine):
    """The slices of a volume ``(z, y, x)`` as a scanner stores them, with the position of each and the directions.

    The y axis of volumes runs from the last row of a slice to the first, as dcm2niix has it.
    """
    matrix = RAS_TO_LPS @ np.asarray(affine, float)[:3]
    spacing = np.linalg.norm(matrix[:, :3], axis=0)
    x, y, z = (matrix[:, axis] for axis in range(3))
    rows = array.shape[1]
    positions = [matrix[:, 3] + z * number + y * (rows - 1) for number in range(len(array))]
    orientation = [*(x / spacing[0]), *(-y / spacing[1])]
    return array[:, ::-1], positions, orientation, (spacing[1], spacing[0])


def _numbers(values):
    return [f"{value:.10g}"[:16] for value in values]


def header(sop_class, series, instance, syntax=ExplicitVRLittleEndian, **fields):
    """A data set with the elements that every image has."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, instance
    meta.TransferSyntaxUID = syntax
    data = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID, data.SOPInstanceUID = sop_class, instance
    data.StudyInstanceUID, data.SeriesInstanceUID = uid("study"), series
    data.FrameOfReferenceUID = uid("frame")
    data.PatientName, data.PatientID, data.PatientBirthDate, data.PatientSex = "Doe^Jane", "P1", "19700101", "F"
    data.StudyDate, data.StudyTime, data.StudyID, data.AccessionNumber = "20260101", "120000", "1", "A1"
    data.ReferringPhysicianName, data.Manufacturer, data.PositionReferenceIndicator = "", "phantom", ""
    data.Modality, data.ImageType, data.InstanceNumber = "MR", ["ORIGINAL", "PRIMARY", "M"], 1
    data.SeriesNumber, data.SeriesDescription = 3, "T1w MPRAGE"
    for name, value in fields.items():
        setattr(data, name, value)
    return data


def add_pixels(data, pixels, *, frames=1):
    """Add pixels ``([n,] y, x)`` of 16 bits."""
    data.Rows, data.Columns = pixels.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = pixels.itemsize * 8
    data.HighBit, data.PixelRepresentation = data.BitsStored - 1, int(pixels.dtype.kind == "i")
    if frames > 1:
        data.NumberOfFrames = frames
    data.PixelData = np.ascontiguousarray(pixels).tobytes()


def save(data, path, *, implicit=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, implicit_vr=implicit, little_endian=True, enforce_file_format=True)
    return path


def classic(folder, array, affine, *, series="1", name="IM{:04d}", order=None, each=None, implicit=False, **fields):
    """Write a volume as a series of single-frame files; `each` changes the data set of a slice."""
    pixels, positions, orientation, spacing = slices_of(array, affine)
    fields = {"SOP": CTImageStorage if fields.get("Modality") == "CT" else MRImageStorage} | fields
    sop_class, paths = fields.pop("SOP"), []
    for place, number in enumerate(order if order is not None else range(len(array))):
        data = header(sop_class, uid("series", series), uid("series", series, name, number, fields.items()), **fields)
        data.InstanceNumber = place + 1
        data.ImagePositionPatient = _numbers(positions[number])
        data.ImageOrientationPatient = _numbers(orientation)
        data.PixelSpacing, data.SliceThickness = _numbers(spacing), "99"  # which is not used
        add_pixels(data, pixels[number])
        if each is not None:
            each(data, number)
        paths.append(save(data, folder / name.format(place + 1), implicit=implicit))
    return paths


def item(**fields):
    data = Dataset()
    for name, value in fields.items():
        setattr(data, name, value)
    return Sequence([data])


def enhanced(path, array, affine, *, series="1", order=None, each=None, rescale=(1, 0), **fields):
    """Write a volume as one multi-frame file; `each` changes the functional groups of a slice."""
    pixels, positions, orientation, spacing = slices_of(array, affine)
    order = [*(order if order is not None else range(len(array)))]
    data = header(EnhancedMRImageStorage, uid("series", series), uid("enhanced", series, fields.items()), **fields)
    shared, frames = Dataset(), []
    shared.PlaneOrientationSequence = item(ImageOrientationPatient=_numbers(orientation))
    shared.PixelMeasuresSequence = item(PixelSpacing=_numbers(spacing), SliceThickness="99")
    slope, intercept = rescale
    shared.PixelValueTransformationSequence = item(RescaleSlope=slope, RescaleIntercept=intercept, RescaleType="US")
    for place, number in enumerate(order):
        own = Dataset()
        own.PlanePositionSequence = item(ImagePositionPatient=_numbers(positions[number]))
        own.FrameContentSequence = item(
            StackID="1", InStackPositionNumber=place + 1, DimensionIndexValues=[1, place + 1]
        )
        if each is not None:
            each(own, place)
        frames.append(own)
    data.SharedFunctionalGroupsSequence = Sequence([shared])
    data.PerFrameFunctionalGroupsSequence = Sequence(frames)
    add_pixels(data, pixels[order], frames=len(order))
    return save(data, path)


def as_scanned(image):
    """The voxels ``(z, y, x)`` of an image of nibabel in the order of dcm2niix for an axial series, with the affine."""
    codes = nib.orientations.axcodes2ornt("LAS")
    turned = image.as_reoriented(nib.orientations.ornt_transform(nib.orientations.io_orientation(image.affine), codes))
    return np.asarray(turned.dataobj).T, turned.affine


def export_cases(cases, folder):
    """Write folders of cases with ``flair.nii.gz`` and ``t1c.nii.gz`` as a scanner exports them."""
    for case in sorted(path for path in Path(cases).iterdir() if path.is_dir()):
        for number, name, text in ((3, "flair", "FLAIR tra"), (5, "t1c", "T1 MPRAGE +C")):
            voxels, affine = as_scanned(nib.load(case / f"{name}.nii.gz"))
            fields = {"SeriesNumber": number, "SeriesDescription": text, "StudyInstanceUID": uid(case.name)}
            series = Path(folder) / case.name / "DICOM" / f"SE{number}"
            classic(series, voxels.astype(np.int16), affine, series=f"{case.name} {name}", **fields)
