"""Count objects with nothing but numpy and onnxruntime: ``python onnx_count.py nuclei_int8.onnx image.npy ...``.

The model comes from ``biounet export nuclei --format onnx-int8`` and has its settings in it. An image is a 2D array:
put a camera or a reader of files in place of ``np.load``. Pixels climb to a peak of the predicted distance, less the
contour; peaks are one object where the border between them is almost as high.
"""

import json
import sys

import numpy as np
import onnxruntime


def count_objects(foreground, contour, distance, label):
    """Return the number of objects in three maps ``(1, 1, y, x)``, by the label settings of the model."""
    surface = np.pad(np.maximum(distance - label["contour"] * contour, 0)[0, 0], 1, "edge")
    surface = surface[:-2] + 2 * surface[1:-1] + surface[2:]  # smoothed by 1-2-1 along y, and then along x
    surface = (surface[:, :-2] + 2 * surface[:, 1:-1] + surface[:, 2:]) / 16
    surface = np.pad(np.where(foreground[0, 0] >= label["foreground"], np.maximum(surface, 1e-6), 0), 1)
    height, inside, top = surface.ravel(), np.flatnonzero(surface), np.arange(surface.size)
    steps = np.array([[y * surface.shape[1] + x] for y in (-1, 0, 1) for x in (-1, 0, 1)])
    top[inside] += steps[height[inside + steps].argmax(0), 0]  # the highest neighbour, and then its, up to the peak
    while (top[inside] != top[top[inside]]).any():
        top[inside] = top[top[inside]]
    peaks, top[inside], size = np.unique(top[inside], return_inverse=True, return_counts=True)
    here, there, crest, group = np.tile(inside, 4), (inside + steps[5:]).ravel(), height[peaks], np.arange(len(peaks))
    low = np.minimum(height[here], height[there])
    here, there, low = (each[(low > 0) & (top[here] != top[there])] for each in (here, there, low))
    pairs, border = np.unique(np.sort([top[here], top[there]], axis=0), axis=1, return_inverse=True)
    saddle = np.bincount(border, low) / np.bincount(border) / 2
    np.maximum.at(saddle, border, saddle[border] + low / 2)
    for n in np.argsort(-saddle):
        one, other = sorted(group[pairs[:, n]], key=crest.__getitem__)
        if saddle[n] >= label["join"] * crest[one] or crest[one] < label["min_peak"]:
            group[group == one] = other
    return int(((np.bincount(group, size, len(group)) >= label["min_size"]) & (crest >= label["min_peak"])).sum())


model = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
settings = json.loads(model.get_modelmeta().custom_metadata_map["label_settings"])
for path in sys.argv[2:]:
    print(path, count_objects(*model.run(None, {"image": np.load(path)[None, None].astype(np.float32)}), settings))
