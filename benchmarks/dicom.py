"""Volumes of real patients as NIfTI and as DICOM: whether array, place and labels are the same, and the time it takes.

python benchmarks/dicom.py [--data ../shared/data]

Each volume is written as a NIfTI file as dcm2niix stores it, and as DICOM: classic and multi-frame, forward, reversed
and mixed order of slices, turned by angles, with other voxel sizes, and compressed. What is read is compared voxel by
voxel, and the places of the corners in mm. Labels are written as DICOM SEG and read back by highdicom.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
from pydicom.uid import JPEGLSLossless, RLELossless
from scipy.spatial.transform import Rotation

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from biounet.files import LabelledImage, ReadOptions, export_formats, read_volume, write_export
from support.dicom_files import as_scanned, classic, enhanced

VOLUME = ReadOptions(dims=3)
TURN = Rotation.from_euler("xyz", (17, -8, 31), degrees=True).as_matrix()


def integers(voxels):
    """Voxels as 16-bit integers, and the slope that gives their values."""
    if np.array_equal(voxels, voxels.astype(np.int16)):
        return voxels.astype(np.int16), 1.0
    return np.round(voxels * 1000).astype(np.int16), 0.001


def write_nifti(path, stored, affine, slope):
    image = nib.Nifti1Image(stored.T, affine)
    image.header.set_xyzt_units("mm")
    image.header.set_sform(affine, code=1)
    content = bytearray(image.to_bytes())
    content[112:120] = np.array([slope, 0], np.float32).tobytes()
    path.write_bytes(content)


def compress(syntax):
    return lambda data, _: data.compress(syntax)


def cases(affine):
    """Yield what is written: its name, the affine, and how."""
    turned, uneven = affine.copy(), affine.copy()
    turned[:3] = TURN @ affine[:3]
    uneven[:3, :3] = affine[:3, :3] @ np.diag([0.4, 0.9, 5.5])
    yield "classic", affine, classic, {}
    yield "classic, reversed", affine, classic, {"order": lambda n: range(n - 1, -1, -1)}
    yield "classic, mixed order", affine, classic, {"order": lambda n: np.random.default_rng(0).permutation(n).tolist()}
    yield "classic, oblique", turned, classic, {}
    yield "classic, anisotropic", uneven, classic, {}
    yield "classic, RLE", affine, classic, {"each": compress(RLELossless)}
    yield "classic, JPEG-LS", affine, classic, {"each": compress(JPEGLSLossless)}
    yield "multi-frame", affine, enhanced, {}
    yield "multi-frame, reversed", affine, enhanced, {"order": lambda n: range(n - 1, -1, -1)}
    yield "multi-frame, oblique", turned, enhanced, {}


def place_error(one, other):
    """Largest distance in mm between the places of a corner by two affines."""
    corners = np.array([(x, y, z, 1) for z, y, x in np.ndindex(2, 2, 2)]) * (*(n - 1 for n in one.shape[::-1]), 1)
    return float(np.linalg.norm(corners @ (np.array(one.affine) - np.array(other.affine)).T, axis=1).max())


def compare(folder, stored, slope, case):
    name, affine, write, options = case
    options = {key: value(len(stored)) if key == "order" else value for key, value in options.items()}
    write_nifti(folder / "a.nii", stored, affine, slope)
    if write is classic:
        path = folder / "series"
        classic(path, stored, affine, RescaleSlope=str(slope), RescaleIntercept="0", **options)
    else:
        path = folder / "e.dcm"
        enhanced(path, stored, affine, rescale=(slope, 0), **options)
    start = time.perf_counter()
    own = read_volume(path, VOLUME)
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    expected = read_volume(folder / "a.nii", VOLUME)
    nifti_seconds = time.perf_counter() - start
    differing = int(np.count_nonzero(own.array != expected.array))
    return name, differing, place_error(own.grid, expected.grid), seconds, nifti_seconds, own


def round_trip(folder, volume, labels, form):
    """Return the number of labels that highdicom reads otherwise from a DICOM SEG, its size in MB, and seconds."""
    image = LabelledImage("a", labels, volume.grid, "classes", {}, class_names=dict(enumerate("abcd", 1)), image=volume)
    start = time.perf_counter()
    path = write_export(image, export_formats([form])[0], folder)
    seconds = time.perf_counter() - start
    affine = np.vstack([np.array(volume.grid.affine) * [[-1], [-1], [1]], (0, 0, 0, 1)])[:, [2, 1, 0, 3]]
    read = hd.seg.segread(path).get_volume(combine_segments=True)
    frame = read.frame_of_reference_uid
    place = hd.VolumeGeometry(affine, labels.shape, coordinate_system="PATIENT", frame_of_reference_uid=frame)
    found = read.match_geometry(place, tol=1e-3).array
    return int(np.count_nonzero(found != labels)), path.stat().st_size / 1e6, seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    arguments = parser.parse_args()
    patients = sorted((arguments.data / "brain-tumour").glob("*/t1c.nii.gz"))
    print("volume | case | voxels that differ | mm | seconds, DICOM | seconds, NIfTI")
    for patient in patients:
        voxels, affine = as_scanned(nib.load(patient))
        labels = as_scanned(nib.load(patient.with_name("tumour.nii.gz")))[0].astype(np.int32)
        stored, slope = integers(voxels)
        for case in cases(affine):
            with tempfile.TemporaryDirectory() as folder:
                name, differing, millimetres, seconds, nifti, volume = compare(Path(folder), stored, slope, case)
                print(f"{patient.parent.name} | {name} | {differing} | {millimetres:.1e} | {seconds:.2f} | {nifti:.2f}")
                for form in ("dicom-seg", "dicom-seg-labelmap") if name in ("classic", "multi-frame") else ():
                    wrong, size, spent = round_trip(Path(folder), volume, labels, form)
                    print(f"  {form}: {wrong} labels differ, {size:.2f} MB, {spent:.1f} s", flush=True)


if __name__ == "__main__":
    main()
