"""DICOM SEG, read by highdicom: the same labels in the same place, with references to their series."""

from dataclasses import replace

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread

from biounet.core import DataSettings, Grid, InputError, Volume
from biounet.evaluation import evaluate
from biounet.files import (
    LabelledImage,
    export_formats,
    find_pairs,
    read_annotation,
    read_volume,
    write_export,
    write_labels,
)
from support.dicom_files import classic, enhanced, uid
from support.nifti import VOLUME

VOXELS = np.random.default_rng(0).integers(0, 999, (6, 8, 10)).astype(np.int16)
AFFINE = np.array([[-0.4, 0.2, 0, 10], [0.3, 0.5, 0, -20], [0, 0, 2.5, 31.5], [0, 0, 0, 1.0]])
AFFINE[:2, 0] /= np.linalg.norm(AFFINE[:2, 0]) / 0.5
AFFINE[:2, 1] = np.array([-AFFINE[1, 0], AFFINE[0, 0]]) * -1.4  # at a right angle to x, 0.7 mm
CLASSES = {1: "oedema", 2: "necrosis", 3: "enhancing"}
LABELS = np.zeros(VOXELS.shape, np.int32)
LABELS[1:4, 2:6, 3:8], LABELS[2, 3:5, 4:6], LABELS[4, 0, 9] = 1, 2, 3
CONSTANT = ("PatientName", "PatientID", "StudyInstanceUID", "FrameOfReferenceUID")


def write(volume, folder, name, labels=LABELS, **changes):
    fields = {"kind": "classes", "class_names": CLASSES, "model": "brain (abc)", "identity": "run:p1"} | changes
    image = LabelledImage("p1", labels, volume.grid, columns={}, image=volume, **fields)
    return write_export(image, export_formats([name])[0], folder)


SOURCES = {
    "classic": lambda folder: classic(folder, VOXELS, AFFINE, order=(3, 1, 4, 0, 2, 5)),
    "enhanced": lambda folder: enhanced(folder / "e.dcm", VOXELS, AFFINE, order=range(5, -1, -1)),
}


@pytest.mark.parametrize("form", ["dicom-seg", "dicom-seg-labelmap"])
@pytest.mark.parametrize("source", SOURCES)
def test_highdicom_gives_the_labels_back(tmp_path, source, form):
    SOURCES[source](tmp_path / "p1")
    volume = read_volume(tmp_path / "p1", VOLUME)
    path = write(volume, tmp_path, form)
    segmentation = hd.seg.segread(path)
    affine = np.vstack([np.array(volume.grid.affine) * [[-1], [-1], [1]], (0, 0, 0, 1)])[:, [2, 1, 0, 3]]
    frame = segmentation.FrameOfReferenceUID
    place = hd.VolumeGeometry(affine, LABELS.shape, coordinate_system="PATIENT", frame_of_reference_uid=frame)
    read = segmentation.get_volume(combine_segments=True)
    assert len(read.array) == 4  # slices without a label are left out
    np.testing.assert_array_equal(read.match_geometry(place, tol=1e-3).array, LABELS)
    first = next((tmp_path / "p1").iterdir())
    original = dcmread(first)
    assert all(segmentation[name].value == original[name].value for name in CONSTANT)
    (referenced,) = segmentation.ReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == original.SeriesInstanceUID
    instances = {one.ReferencedSOPInstanceUID for one in referenced.ReferencedInstanceSequence}
    assert instances == {dcmread(file).SOPInstanceUID for file in (tmp_path / "p1").iterdir()}
    segments = [one for one in segmentation.SegmentSequence if one.SegmentNumber]
    assert [one.SegmentLabel for one in segments] == [*CLASSES.values()]
    meanings = [one.SegmentedPropertyTypeCodeSequence[0].CodeMeaning for one in segments]
    assert meanings == ["Edema", "Necrosis", "Neoplasm"]
    algorithm = segments[0].SegmentationAlgorithmIdentificationSequence[0]
    assert algorithm.AlgorithmName == "biounet"
    assert "brain (abc)" in algorithm.AlgorithmVersion


def test_the_same_result_has_the_same_identifiers(tmp_path):
    SOURCES["classic"](tmp_path / "p1")
    volume = read_volume(tmp_path / "p1", VOLUME)
    first, again = (dcmread(write(volume, tmp_path, "dicom-seg")) for _ in range(2))
    other = dcmread(write(volume, tmp_path, "dicom-seg", identity="run:p2"))
    names = ("SOPInstanceUID", "SeriesInstanceUID")
    assert all(first[name].value == again[name].value != other[name].value for name in names)
    assert first.SOPInstanceUID.startswith("2.25.")


def test_one_volume_of_a_series_is_segmented_in_its_own_place(tmp_path):
    for b in (0, 1000):
        classic(tmp_path / "p1", VOXELS + b, AFFINE, name=f"b{b}_{{}}", DiffusionBValue=float(b))
    scene = f"{uid('series', '1')} b=1000"
    volume = read_volume(tmp_path / "p1", replace(VOLUME, scene=scene))
    path = write(volume, tmp_path, "dicom-seg")
    referenced = dcmread(path).ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert len(referenced) == 6
    annotation = read_annotation(path, DATA, volume.grid)
    np.testing.assert_array_equal(annotation.labels, LABELS)


DATA = DataSettings(kind="classes", dims=3, classes=tuple(CLASSES.values()))


@pytest.mark.parametrize("form", ["dicom-seg", "dicom-seg-labelmap"])
def test_a_segmentation_is_an_annotation(tmp_path, form):
    for name in ("p1", "p2"):
        classic(tmp_path / "img" / name, VOXELS, AFFINE, series=name)
    volume = read_volume(tmp_path / "img" / "p2", VOLUME)
    (tmp_path / "ann").mkdir()
    write(volume, tmp_path / "ann", form).rename(tmp_path / "ann" / "IM0001")
    (tmp_path / "img" / "p1").rename(tmp_path / "p1")
    (pair,) = find_pairs(tmp_path / "img", tmp_path / "ann")
    assert pair.image.name == "p2"  # by the series that it refers to
    np.testing.assert_array_equal(read_annotation(pair.label, DATA, volume.grid).labels, LABELS)
    swapped = DATA.model_copy(update={"classes": ("necrosis", "enhancing", "oedema")})
    expected = np.array([0, 3, 1, 2])[LABELS]
    np.testing.assert_array_equal(read_annotation(pair.label, swapped, volume.grid).labels, expected)
    affine = np.array(volume.grid.affine)
    affine[:, 3] += 0.3
    moved = replace(volume.grid, affine=tuple(map(tuple, affine.tolist())))
    with pytest.raises(InputError, match="does not lie on the voxels of its image"):
        read_annotation(pair.label, DATA, moved)


def test_results_are_compared_with_a_segmentation(tmp_path):
    classic(tmp_path / "p1", VOXELS, AFFINE)
    volume = read_volume(tmp_path / "p1", VOLUME)
    for name in ("out", "truth"):
        (tmp_path / name).mkdir()
    write(volume, tmp_path / "truth", "dicom-seg").rename(tmp_path / "truth" / "p1.dcm")
    half = np.where(np.arange(10) < 5, LABELS, 0)
    write_labels(tmp_path / "out" / "p1_3_T1w-MPRAGE_labels.nii.gz", half, volume.grid, "classes")
    scores = {row["class"]: row["dice"] for row in evaluate(tmp_path / "out", tmp_path / "truth", DATA).cases}
    oedema = LABELS == 1
    assert scores["oedema"] == pytest.approx(2 * (half == 1).sum() / (oedema.sum() + (half == 1).sum()))


def test_objects_are_segments_of_their_own_and_too_many_are_refused(tmp_path):
    SOURCES["classic"](tmp_path / "p1")
    volume = read_volume(tmp_path / "p1", VOLUME)
    many = np.zeros(1200, np.int32)
    labels = (np.arange(LABELS.size, dtype=np.int32) * (np.arange(LABELS.size) < 5)).reshape(LABELS.shape)
    objects = {"kind": "objects", "class_names": {}, "class_name": "nucleus"}
    path = write(volume, tmp_path, "dicom-seg", labels, **objects)
    assert [one.SegmentLabel for one in dcmread(path).SegmentSequence] == [f"nucleus {n}" for n in range(1, 5)]
    large = Grid((1, 30, 40), (1.0, 1.0, 1.0), "mm")
    many = np.arange(1200, dtype=np.int32).reshape(large.shape)
    source = Volume(many[None].astype(np.int16), large, tmp_path / "p1")
    with pytest.raises(InputError, match=r"1199 objects.*export dicom-seg-labelmap"):
        write(source, tmp_path, "dicom-seg", many, **objects)


def test_an_image_without_any_object_has_a_segmentation(tmp_path):
    SOURCES["classic"](tmp_path / "p1")
    volume = read_volume(tmp_path / "p1", VOLUME)
    path = write(volume, tmp_path, "dicom-seg", LABELS * 0)
    assert not hd.seg.segread(path).get_volume(combine_segments=True).array.any()


def test_what_is_no_dicom_is_refused_with_another_way(tmp_path):
    volume = Volume(VOXELS[None], Grid(VOXELS.shape, (1.0, 1.0, 1.0), "mm"), tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match=r"not read from a DICOM series.*NIfTI"):
        write(volume, tmp_path, "dicom-seg")


def test_elements_that_anonymisation_removed_are_empty(tmp_path):
    def anonymise(data, _):
        for name in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"):
            del data[name]
        for name in ("AccessionNumber", "ReferringPhysicianName", "StudyID", "PositionReferenceIndicator"):
            del data[name]

    classic(tmp_path / "p1", VOXELS, AFFINE, each=anonymise)
    volume = read_volume(tmp_path / "p1", VOLUME)
    assert str(dcmread(write(volume, tmp_path, "dicom-seg")).PatientName) == ""
