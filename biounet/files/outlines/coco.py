"""Objects as COCO JSON: run-length masks or polygons, with areas, boxes and categories."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import __version__
from biounet.files.exports.labelled_image import LabelledImage
from biounet.files.outlines.coco_masks import encode_masks
from biounet.files.outlines.trace import trace

_Entry = dict[str, Any]
_Shapes = Callable[[NDArray[np.integer[Any]]], Iterator[Any]]


def write_coco(image: LabelledImage, path: Path) -> None:
    """Write objects or classes as COCO JSON with compressed run-length masks.

    A volume or time series has an image for each slice, all of one ``file_name``, told apart by ``z`` and ``t``; the
    annotations of one object there have the same ``track_id``. Objects with a confidence have it as ``score``.
    """
    _write(image, path, None)


def write_coco_polygons(image: LabelledImage, path: Path) -> None:
    """Write COCO JSON as `write_coco` does, with polygons along the corners of pixels, which have no holes."""
    _write(image, path, _polygons)


def _polygons(plane: NDArray[np.integer[Any]]) -> Iterator[list[list[int]]]:
    """Yield the polygons of each object in ascending order: x and y of the corners in turn."""
    for _, polygons in trace(plane):
        yield [rings[0][:, ::-1].reshape(-1).tolist() for rings in polygons]


def _write(image: LabelledImage, path: Path, shapes: _Shapes | None) -> None:
    height, width = image.grid.shape[-2:]
    places = [_place(t, z) for t, z, _ in image.planes()]
    size = {"width": width, "height": height, "file_name": image.file_name or image.name}
    images = [{"id": number, **size, **place} for number, place in enumerate(places, 1)]
    values = sorted({*image.values.tolist(), *image.class_names}) if image.kind == "classes" else [1]
    categories = [{"id": value, "name": image.class_of(value)} for value in values]
    info = {"description": f"{image.name}, segmented by {image.model or 'biounet'}", "version": __version__}
    with path.open("w", encoding="utf-8", newline="\n") as file:
        head = json.dumps({"info": info, "images": images, "categories": categories})
        file.write(f'{head[:-1]}, "annotations": [')
        for number, entry in enumerate(_annotations(image, shapes), 1):
            file.write(f"{',' * (number > 1)}\n{json.dumps({'id': number, **entry})}")
        file.write("\n]}\n")


def _place(t: int | None, z: int | None) -> dict[str, int]:
    """Return frame and slice of a plane, as far as there are several."""
    return {name: number for name, number in (("t", t), ("z", z)) if number is not None}


def _annotations(image: LabelledImage, shapes: _Shapes | None) -> Iterator[_Entry]:
    size, scores = list(image.grid.shape[-2:]), _scores(image)
    for number, (t, z, plane) in enumerate(image.planes(), 1):
        masks, place = encode_masks(plane), _place(t, z)
        drawn = ({"size": size, "counts": text} for text in masks.texts) if shapes is None else shapes(plane)
        for label, area, box, shape in zip(*map(np.ndarray.tolist, masks[:3]), drawn, strict=True):
            score = scores.get((t or 0, label))
            yield {
                "image_id": number,
                "category_id": label if image.kind == "classes" else 1,
                "iscrowd": 0,
                "area": area,
                "bbox": box,
                **({"track_id": label} if place else {}),
                **({"score": score} if score is not None else {}),
                "segmentation": shape,
            }


def _scores(image: LabelledImage) -> Mapping[tuple[int, int], float]:
    """Return the confidence of objects by their frame and label."""
    if image.kind == "classes" or not {"label", "confidence"} <= image.columns.keys():
        return {}
    labels, confidence = image.columns["label"], image.columns["confidence"]
    times = image.columns.get("t", np.zeros(len(labels), np.int64))
    known = zip(times.tolist(), labels.tolist(), confidence.tolist(), strict=True)
    return {(int(t), int(label)): round(score, 4) for t, label, score in known if score is not None and score == score}
