"""Small files of the kinds that the README's table of jobs names, beside the samples."""

import json
import shutil

import numpy as np
import tifffile

from biounet.files import LabelledImage, ReadOptions, export_formats, read_volume, write_export
from biounet.files.outlines.trace import trace
from support.dicom_files import classic
from support.microscopes import Picture, write_nd2

WELLS = {"control_A1_f1": "nuclei", "control_A2_f1": "dim", "drug_B1_f1": "crowded", "drug_B2_f1": "nuclei"}


def write_lab_files(folder):
    """Write what the tables of jobs name into a folder that has the samples."""
    _write_annotations(folder)
    _write_series(folder / "scanner" / "case_1", folder / "cases" / "case_1")
    fields = np.stack([tifffile.imread(folder / "images" / f"{name}.tif") for name in ("nuclei", "dim")])
    write_nd2(folder / "plate.nd2", Picture(fields, "PYX", {"X": 0.5, "Y": 0.5}), ("A1", "A2"))
    image = tifffile.imread(folder / "images" / "dim.tif")
    moving = np.stack([np.roll(image, 2 * t, axis=1) for t in range(3)])
    tifffile.imwrite(folder / "movie.tif", moving, imagej=True, metadata={"axes": "TYX"})
    shutil.copytree(folder / "labels", folder / "cellpose")
    (folder / "plate").mkdir()
    for name, sample in WELLS.items():
        shutil.copy(folder / "images" / f"{sample}.tif", folder / "plate" / f"{name}.tif")
    (folder / "stained").mkdir()
    nuclei = tifffile.imread(folder / "images" / "nuclei.tif")
    metadata = {"axes": "CYX", "unit": "um", "Labels": ["DAPI", "GFP", "RFP"]}
    planes = np.stack([nuclei, nuclei[::-1], nuclei[:, ::-1]])
    tifffile.imwrite(folder / "stained" / "cells.tif", planes, imagej=True, resolution=(2.0, 2.0), metadata=metadata)


def _write_annotations(folder):
    """Write the labels of the samples as other programs do: ``rois/``, ``qupath/`` and ``annotated/``, of several."""
    for path in sorted((folder / "labels").glob("*.tif")):
        labels = read_volume(path)
        labelled = LabelledImage(path.stem, labels.array[0].astype(np.int32), labels.grid, "objects", {})
        for program, name in (("rois", "roi"), ("qupath", "geojson")):
            _export(labelled, name, folder / program)
        if path.stem == "nuclei":
            _write_labelme(folder / "annotated" / "nuclei.json", labelled.labels)
        elif path.stem == "dim":
            tifffile.imwrite(folder / "annotated" / "dim_cp_masks.tif", labelled.labels.astype(np.uint16))
        else:
            _export(labelled, "coco", folder / "annotated")


def _export(labelled, name, folder):
    folder.mkdir(exist_ok=True)
    write_export(labelled, *export_formats([name]), folder)


def _write_labelme(path, labels):
    shapes = [
        {"label": "nucleus", "shape_type": "polygon", "group_id": label, "points": exterior[:, ::-1].tolist()}
        for label, polygons in trace(labels)
        for exterior, *_ in polygons
    ]
    size = {"imageHeight": labels.shape[0], "imageWidth": labels.shape[1]}
    path.write_text(json.dumps({"version": "5.5.0", "imagePath": f"{path.stem}.tif", "shapes": shapes, **size}))


def _write_series(folder, case):
    """Write the contrasts of a case as DICOM series in one folder, as a scanner exports them."""
    for number, name in enumerate(("flair", "t1c")):
        volume = read_volume(case / f"{name}.nii.gz", ReadOptions(dims=3))
        affine = np.vstack([volume.grid.affine, [0, 0, 0, 1]])
        pixels = np.rint(volume.array[0]).astype(np.int16)
        classic(
            folder, pixels, affine, series=name, name=f"{name}{{:04d}}", SeriesDescription=name, SeriesNumber=number
        )
