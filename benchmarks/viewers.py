"""Results and models in other programs: what napari shows in place, and what a package of bioimage.io computes.

    python benchmarks/viewers.py ../shared/data

Images of ``nuclei2d/val`` and ``nuclei3d-embryo/val`` are segmented and exported as OME-Zarr; napari, without a window,
opens the folder of results, label image after label image, and each OME-Zarr. The packages of both built-in models are
then run on the same images by their descriptions: `scale_range`, onnxruntime, decoder.
"""

import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import torch

from biounet.api import load
from biounet.core import PROBABILITY_MAX
from biounet.files import ReadOptions, read_volume
from biounet.labelling import label_objects
from biounet.model_export import export_model
from biounet.model_export.decoder import LabelObjects
from biounet.model_export.package import package_runner
from biounet.model_export.package_description import WEIGHTS, decoder_settings
from biounet.network import fold_batch_norms
from biounet.plugins import get_reader
from biounet.preprocessing import scale_intensities
from biounet.segmentation import pad_to_stride

_SAME = 0.9  # IoU
SETS = {"nuclei": "nuclei2d/val/images", "nuclei3d": "nuclei3d-embryo/val/images"}


def main(data: Path) -> None:
    for name, folder in SETS.items():
        with tempfile.TemporaryDirectory() as out:
            show_results(name, data / folder, Path(out))
            run_package(name, data / folder, Path(out))


def show_results(name, images, out):
    command = [sys.executable, "-c", "from biounet.cli import main; main()", "segment", images, "-m", name, "-o", out]
    subprocess.run([*command, "--export", "ome-zarr", "--no-overlay", "--quiet"], check=True)
    for what in ("*_labels.tif", "*.ome.zarr"):
        paths, began = sorted(out.glob(what)), time.perf_counter()
        placed = sum(is_in_place(path) for path in paths)
        seconds = (time.perf_counter() - began) / len(paths)
        print(f"{name}: {what}: labels in place in {placed} of {len(paths)}, {seconds:.2f} s each")


def is_in_place(path):
    """Whether napari lays image and labels on each other, with the same unit."""
    from napari.components import ViewerModel
    from napari.layers import Layer

    viewer = ViewerModel()
    for layer in get_reader(str(path))(str(path)):
        viewer.add_layer(Layer.create(*layer))
    image, labels = viewer.layers
    same = np.array_equal(image.extent.world, labels.extent.world) and image.units == labels.units
    return same and type(labels).__name__ == "Labels" and "index" in labels.features


def run_package(name, images, out):
    model = load(name).model
    path = export_model(model, "bioimageio", out / "package.zip").path
    with zipfile.ZipFile(path) as package:
        (out / WEIGHTS).write_bytes(package.read(WEIGHTS))
    run, decode = package_runner(model.card, out / WEIGHTS), LabelObjects(**decoder_settings(model.card))
    network, settings = fold_batch_norms(model.network), model.card.label
    paths, same, objects, differing, cleaned = sorted(images.iterdir()), 0, 0, 0, 0
    for image in paths:
        volume = read_volume(image, ReadOptions(dims=model.network.dims, inputs=1))
        labels = decode(*run(volume.array)[:, None, None])[0, 0]
        scaled = scale_intensities(volume.array, model.card.recipe.normalise)
        padded = torch.from_numpy(pad_to_stride(scaled.image, network.stride))
        with torch.inference_mode():
            maps = network(padded[None])[0].sigmoid().numpy()
        maps = maps[(slice(None), *map(slice, volume.grid.shape))]
        own = label_objects(*np.rint(maps * PROBABILITY_MAX).astype(np.uint16), settings).labels
        same += np.array_equal(labels, own)
        objects += own.max()
        cleaned += bool(scaled.hot) or scaled.acquired is not None
        differing += sum(iou < _SAME for iou in best_ious(own, labels))
    print(f"{name}: package: {same} of {len(paths)} label images identical; {cleaned} have hot or unacquired pixels")
    print(f"{name}: package: {differing} of {objects} objects have no partner of IoU {_SAME}")


def best_ious(own, labels):
    """Yield the IoU of each object with the one that overlaps it most."""
    pairs, counts = np.unique(np.stack([own.ravel(), labels.ravel()]), axis=1, return_counts=True)
    sizes = np.bincount(own.ravel()), np.bincount(labels.ravel())
    for label in range(1, own.max() + 1):
        chosen = (pairs[0] == label) & (pairs[1] > 0)
        unions = sizes[0][label] + sizes[1][pairs[1][chosen]] - counts[chosen]
        yield max(counts[chosen] / unions, default=0.0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
