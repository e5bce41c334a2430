"""Outlines of other programs as annotations: whether they are the labels they were made of, and what COCO costs.

python benchmarks/drawn.py [--side 4096] [--objects 5000] [--images 1000] [--val ../shared/data/nuclei2d/val/labels]

Seconds are of the process on its core, so that other processes count little.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import tifffile

from biounet.core import DataSettings, Grid, InputError
from biounet.files import LabelledImage, export_formats, find_pairs, read_annotation, read_labels, write_export

FORMATS = ("roi", "geojson", "coco")


def make_labels(side: int, objects: int) -> np.ndarray:
    """Return discs on a grid."""
    per_row = math.ceil(math.sqrt(objects))
    pitch = side // per_row
    y, x = np.mgrid[:pitch, :pitch] - (pitch - 1) / 2
    disc = y**2 + x**2 < (0.45 * pitch) ** 2
    labels = np.zeros((side, side), np.int32)
    for number in range(objects):
        top, left = number // per_row * pitch, number % per_row * pitch
        labels[top : top + pitch, left : left + pitch][disc] = number + 1
    return labels


def as_image(labels: np.ndarray, name: str = "x") -> LabelledImage:
    columns = {"label": np.arange(1, labels.max() + 1)}
    return LabelledImage(name, labels, Grid(labels.shape), "objects", columns, file_name=f"{name}.tif")


def seconds(function, *arguments, **keywords):
    start = time.process_time()
    result = function(*arguments, **keywords)
    return result, time.process_time() - start


def decode(path: Path, step: int = 1) -> np.ndarray:
    """Return the label image as pycocotools decodes it, of every so many objects, since each is a mask of the image."""
    from pycocotools.coco import COCO

    warnings.simplefilter("ignore", DeprecationWarning)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(path)
    labels = np.zeros((coco.imgs[1]["height"], coco.imgs[1]["width"]), np.int32)
    for one in [*coco.anns.values()][::step]:
        labels[coco.annToMask(one) > 0] = one["id"]
    return labels


def time_coco(side: int, objects: int, folder: Path) -> None:
    labels = make_labels(side, objects)
    export_to(as_image(labels[:50, :50].copy(), "first"), "coco-polygons", folder)  # compiles
    for name in ("coco", "coco-polygons"):
        path, writing = seconds(export_to, as_image(labels), name, folder)
        found, reading = seconds(read_annotation, path, DataSettings(), Grid(labels.shape))
        same = bool((found.labels == labels).all())
        print(f"{name}: {objects} objects in {side}²: written in {writing:.2f} s, {path.stat().st_size / 1e6:.1f} MB,")
        print(f"  read as an annotation in {reading:.2f} s, the same labels: {same}")
    step = max(1, objects // 100)
    decoded = decode(folder / "x_coco.json", step)
    same = bool((decoded == np.where(labels % step == 1 % step, labels, 0)).all())
    print(f"  every {step}th object by pycocotools: the same mask: {same}")


def export_to(image: LabelledImage, name: str, folder: Path) -> Path:
    (chosen,) = export_formats([name])
    return write_export(image, chosen, folder)


def compare_real(folder: Path, out: Path) -> None:
    """Export the true labels of real images, read them again, and count the objects whose masks differ."""
    objects = images = by_pycocotools = 0
    differing = dict.fromkeys(FORMATS, 0)
    for path in sorted(folder.iterdir()):
        _, labels = np.unique(np.append(0, read_labels(path)), return_inverse=True)
        labels = labels[1:].reshape(tifffile.imread(path).shape).astype(np.int32)
        images, objects = images + 1, objects + int(labels.max())
        for name in FORMATS:
            written = export_to(as_image(labels, path.stem), name, out)
            try:
                found = read_annotation(written, DataSettings(), Grid(labels.shape)).labels
            except InputError:  # of what `biounet check` finds implausible in these labels too
                found = read_annotation(written, DataSettings(kind="classes", classes=("object",)), Grid(labels.shape))
                found = np.where(found.labels > 0, labels, 0)
            differing[name] += np.unique(labels[found != labels]).size
        decoded = decode(out / f"{path.stem}_coco.json")
        by_pycocotools += np.unique(labels[decoded != labels]).size
    shown = ", ".join(f"{name} {count}" for name, count in differing.items())
    print(f"{folder}: {objects} objects of {images} images; masks that differ:")
    print(f"  {shown}, COCO by pycocotools {by_pycocotools}")


def time_index(images: int, folder: Path) -> None:
    """Find the annotations of many images: LabelMe beside each, or one COCO file, and other JSON among them."""
    sidecar = json.dumps({"RepetitionTime": 2.5, "SliceTiming": [*range(100)]})
    labelme = {"version": "5", "flags": {}, "shapes": [], "imagePath": "x", "imageData": "A" * 300_000}
    entries = [{"id": n, "file_name": f"{n}.tif", "height": 8, "width": 8} for n in range(images)]
    square = [[1, 1, 4, 1, 4, 4, 1, 4]]
    drawn = [{"id": n, "image_id": n % images, "segmentation": square * 10} for n in range(20 * images)]
    for name in ("label images and sidecars", "LabelMe", "COCO"):
        root = folder / name
        root.mkdir()
        for number in range(images):
            tifffile.imwrite(root / f"{number}.tif", np.zeros((8, 8), np.uint8))
            if name == "LabelMe":
                (root / f"{number}.json").write_text(json.dumps(labelme))
            elif name == "label images and sidecars":
                tifffile.imwrite(root / f"{number}_masks.tif", np.zeros((8, 8), np.uint8))
                (root / f"{number}.json").write_text(sidecar)
        if name == "COCO":
            (root / "all.json").write_text(json.dumps({"images": entries, "annotations": drawn}))
        pairs, finding = seconds(find_pairs, root)
        print(f"{name}: {len(pairs)} images paired in {finding:.2f} s", end="")
        if name == "COCO":
            read = [seconds(read_annotation, one.label, DataSettings(kind="classes", classes=("a",)), Grid((8, 8)),
                            image=one.image)[1] for one in pairs]  # fmt: skip
            size = (root / "all.json").stat().st_size / 1e6
            print(f", read in {sum(read):.2f} s from one file of {size:.1f} MB", end="")
        print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--objects", type=int, default=5000)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--val", type=Path, default=Path("../shared/data/nuclei2d/val/labels"))
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        time_coco(chosen.side, chosen.objects, Path(folder))
        if chosen.val.is_dir():
            (Path(folder) / "val").mkdir()
            compare_real(chosen.val, Path(folder) / "val")
        if chosen.images:
            time_index(chosen.images, Path(folder))


if __name__ == "__main__":
    main()
