"""Exports of labels and tables to other programs: read again by these programs' own libraries, sizes and seconds.

    python benchmarks/exports.py [--side 8192]

Truth of `nuclei2d/val` and of a tumour in ../shared/data stands for results. Each image is exported as OME-Zarr,
OME-TIFF, AnnData, Parquet and a table of CellProfiler, and read again. Then one field of `--side` pixels, made of the
images of `nuclei2d-u2os/val`, is written in each format, beside the seconds that its label TIFF takes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray
from skimage.measure import regionprops_table

from biounet.core import Grid, Volume
from biounet.files import (
    LabelledImage,
    ReadOptions,
    channel_types,
    export_formats,
    read_volume,
    write_export,
    write_labels,
)
from biounet.measurement import measure_classes, measure_objects

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
FORMATS = ("ome-zarr", "ome-tiff", "h5ad", "parquet", "cellprofiler", "itk-snap", "slicer", "fsleyes")
UM = 0.5


def as_result(name: str, labels: NDArray[Any], image: Volume, classes: dict[int, str] | None = None) -> LabelledImage:
    """Return labels and their table, as a run would hold them."""
    grid = image.grid
    if classes:
        columns = measure_classes(labels, list(classes.values()), grid).columns
    else:
        columns = measure_objects(labels, image.array, grid, None, ("DAPI",)).columns
    kind = "classes" if classes else "objects"
    kinds = channel_types(columns, image)
    return LabelledImage(name, labels, grid, kind, columns, class_names=classes or {}, image=image, channel_types=kinds)


def nuclei() -> Iterator[LabelledImage]:
    for path in sorted((DATA / "nuclei2d/val/labels").iterdir()):
        labels = np.unique(tifffile.imread(path), return_inverse=True)[1].reshape(-1)
        labels = labels.reshape(tifffile.imread(path).shape).astype(np.int32)
        pixels = read_volume(next((DATA / "nuclei2d/val/images").glob(f"{path.stem}.*"))).array[:1]
        yield as_result(path.stem, labels, Volume(pixels, Grid(labels.shape, (UM, UM), "um"), channel_names=("DAPI",)))


def tumour() -> LabelledImage:
    folder = next(path for path in sorted((DATA / "brain-tumour").iterdir()) if path.is_dir())
    image = read_volume(next(folder.glob("*t1c*")), ReadOptions(dims=3))
    labels = read_volume(next(folder.glob("*tumour*")), ReadOptions(dims=3)).array[0].astype(np.int32)
    names = {1: "necrosis", 2: "oedema", 3: "non-enhancing", 4: "enhancing"}
    return as_result(folder.name, labels, image, names)


def field(side: int) -> LabelledImage:
    """Return one field of the images of `nuclei2d-u2os/val`, repeated, with labels of its own for each."""
    folder = DATA / "nuclei2d-u2os/val"
    paths = sorted((folder / "labels").iterdir())
    tiles = [tifffile.imread(path).astype(np.int32) for path in paths]
    images = [tifffile.imread(next((folder / "images").glob(f"{path.stem}.*"))) for path in paths]
    height, width = tiles[0].shape
    labels, pixels, count, number = np.zeros((side, side), np.int32), np.zeros((side, side), images[0].dtype), 0, 0
    for y in range(0, side - height + 1, height):
        for x in range(0, side - width + 1, width):
            tile = np.unique(tiles[number % len(tiles)], return_inverse=True)[1].reshape(height, width)
            labels[y : y + height, x : x + width] = np.where(tile > 0, tile + count, 0)
            pixels[y : y + height, x : x + width] = images[number % len(images)]
            count, number = count + int(tile.max()), number + 1
    return as_result("field", labels, Volume(pixels[None], Grid(labels.shape, (UM, UM), "um"), channel_names=("DAPI",)))


def differences(image: LabelledImage, folder: Path) -> dict[str, float]:
    """Export an image, read it again, and return what differs in each format, in pixels or in the largest ratio."""
    import anndata
    import pyarrow.csv as csv
    import pyarrow.parquet as pq
    from ome_zarr_models.v05 import Image

    paths = {one.name: write_export(image, one, folder) for one in export_formats(FORMATS[:4])}
    store = zarr.open_group(paths["ome-zarr"], mode="r")
    Image.from_zarr(store)
    found = {
        "ome-zarr": float((store[f"labels/{image.element}/0"][:] != image.labels).sum()),
        "ome-tiff": float((tifffile.imread(paths["ome-tiff"]).reshape(image.labels.shape) != image.labels).sum()),
    }
    table, adata = pq.read_table(paths["parquet"]).to_pydict(), anndata.read_h5ad(paths["h5ad"])
    found["parquet"] = sum(table[name] != column.tolist() for name, column in image.columns.items())
    found["h5ad"] = sum(
        not np.array_equal(adata[:, name].X[:, 0], image.columns[name], equal_nan=True) for name in adata.var_names
    )
    if image.kind == "objects":
        path = write_export(image, export_formats(["cellprofiler"])[0], folder)
        cells = csv.read_csv(path).to_pydict()
        expected = regionprops_table(image.labels, properties=("area", "perimeter", "axis_major_length", "orientation"))
        sources = {"Area": "area", "Perimeter": "perimeter", "MajorAxisLength": "axis_major_length"}
        ratios = [np.abs(np.array(cells[f"AreaShape_{a}"]) - expected[b]).max(initial=0) for a, b in sources.items()]
        turned = np.abs(np.array(cells["AreaShape_Orientation"]) - np.degrees(expected["orientation"]))
        found["cellprofiler"] = float(max(*ratios, np.minimum(turned, 180 - turned).max(initial=0)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", type=int, default=8192)
    side = parser.parse_args().side
    with tempfile.TemporaryDirectory() as name:
        results = [*nuclei(), tumour()]
        worst: dict[str, float] = {}
        for image in results:
            for kind, value in differences(image, Path(name)).items():
                worst[kind] = max(worst.get(kind, 0), value)
        print(
            f"{len(results)} images, {sum(len(image.values) for image in results)} labels; largest difference: {worst}"
        )
        image = field(side)
        print(f"\n{side} x {side} pixels, {len(image.values)} objects")
        start = time.perf_counter()
        write_labels(Path(name, "field_labels.tif"), image.labels, image.grid)
        base = time.perf_counter() - start
        print(f"label TIFF: {base:.2f} s")
        export_formats(FORMATS)
        print("\n| format | s | of the label TIFF | MB |\n|---|---|---|---|")
        for one in export_formats(FORMATS):
            start = time.perf_counter()
            path = write_export(image, one, Path(name))
            seconds = time.perf_counter() - start
            files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
            size = sum(file.stat().st_size for file in files) / 1e6
            print(f"| `{one.name}` | {seconds:.2f} | {seconds / base:.2f} | {size:.1f} |")


if __name__ == "__main__":
    main()
