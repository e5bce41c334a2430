"""Open paths in napari by the reader of biounet, and print what its layers say, as JSON; a program of its own.

napari and Qt stay out of the process of the tests.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np

MANIFEST = Path(__file__).parents[2] / "biounet" / "plugins" / "napari.yaml"


def main(paths: list[str]) -> None:
    os.environ["QT_QPA_PLATFORM"] = "offscreen"
    from napari.components import ViewerModel
    from npe2 import PluginManager, PluginManifest

    manager = PluginManager.instance()
    if "biounet" not in manager._manifests:  # of an installed biounet napari finds it by itself
        manager.register(PluginManifest.from_file(MANIFEST))
    viewer = ViewerModel()
    for path in paths:
        viewer.open(path, plugin="biounet")
    sys.stdout.write(json.dumps([describe(layer) for layer in viewer.layers]))


def describe(layer):
    """Return how a layer lies, and what it says of the label of most voxels."""
    pixels = layer.data[0] if layer.multiscale else layer.data
    described = {
        "kind": type(layer).__name__,
        "name": layer.name,
        "shape": pixels.shape,
        "levels": len(layer.data) if layer.multiscale else 1,
        "extent": layer.extent.world.tolist(),
        "units": [str(unit) for unit in layer.units],
        "visible": layer.visible,
    }
    if described["kind"] == "Labels":
        pixels = np.asarray(pixels)
        label = np.bincount(pixels[pixels > 0]).argmax()
        at = layer.data_to_world(np.argwhere(pixels == label)[0])
        described |= {
            "features": list(layer.features),
            "label": int(label),
            "status": layer.get_status(at, world=True)["coordinates"],
        }
    return described


if __name__ == "__main__":
    main(sys.argv[1:])
