"""Whether an exported model computes what the network does: both are run on the same synthetic images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from biounet.core import PROBABILITY_MAX
from biounet.labelling import label_objects
from biounet.model_export.onnx_file import INPUT
from biounet.network import Card, Model, fold_batch_norms
from biounet.preprocessing import scale_intensities
from biounet.segmentation import pad_to_stride
from biounet.synthetic import draw_field_settings, draw_stack_settings, make_field, make_head, make_stack

Maps = NDArray[np.float32]  # probabilities (k, [z,] y, x)

_SHAPE = {2: (333, 250), 3: (21, 67, 90)}  # no multiples of a stride
_SEEDS = 2, 6  # of images with objects that touch


@dataclass(frozen=True)
class Parity:
    """How far an exported model is from the network.

    Attributes
    ----------
    largest, mean
        Absolute difference of probabilities over all images.
    objects, own_objects
        Found in all images with either; 0 for models of classes.
    """

    largest: float
    mean: float
    objects: int
    own_objects: int

    def __str__(self) -> str:
        text = f"probabilities differ by {self.mean:.1g} on average and {self.largest:.1g} at most"
        return f"{text}; objects: {self.objects}, and {self.own_objects} with biounet" if self.own_objects else text


def compare(path: Path, model: Model) -> Parity:
    """Run an ONNX file and the network that it was made from, in float32, on synthetic images."""
    session = open_session(path)
    return compare_with(lambda image: run_session(session, image), model)


def compare_with(run: Callable[[NDArray[Any]], Maps], model: Model) -> Parity:
    """Compare a function from images ``(c, [z,] y, x)`` to maps with the network of a model, on synthetic images."""
    network = fold_batch_norms(model.network)
    differences, objects = [], []
    for image in synthetic_images(model):
        found = run(image)
        scaled = pad_to_stride(scale_intensities(image, model.card.recipe.normalise).image, network.stride)
        with torch.inference_mode():
            logits = network(torch.from_numpy(scaled)[None])
            maps = logits.softmax(1) if model.card.recipe.data.exclusive else logits.sigmoid()
        own = maps[0].numpy()[(slice(None), *(slice(size) for size in image.shape[1:]))]
        differences.append(np.abs(found - own))
        objects.append((count_objects(found, model.card), count_objects(own, model.card)))
    counts = np.sum(objects, 0)
    return Parity(
        largest=float(max(each.max() for each in differences)),
        mean=float(np.mean([each.mean() for each in differences])),
        objects=int(counts[0]),
        own_objects=int(counts[1]),
    )


def open_session(path: Path) -> Any:  # noqa: ANN401 - onnxruntime has no types
    """Open an ONNX file with onnxruntime, on one core of the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run_session(session: Any, image: NDArray[Any]) -> Maps:  # noqa: ANN401
    """Return the probabilities of an image ``(c, [z,] y, x)``, all outputs after one another."""
    maps: Maps = np.concatenate(session.run(None, {INPUT: image[None].astype(np.float32)}), axis=1)[0]
    return maps


def count_objects(maps: Maps, card: Card) -> int:
    """Return the number of objects in probabilities of a model of objects; 0 of one of classes."""
    kind, integers = card.recipe.data.kind, np.rint(maps * PROBABILITY_MAX).astype(np.uint16)
    if kind == "classes":
        return 0
    settings = card.label.model_copy(update={"min_size_unit": "px"})
    if kind == "scribbles":
        return len(label_objects(PROBABILITY_MAX - integers[0], None, None, settings).count)
    foreground, contour, distance = integers
    return len(label_objects(foreground, contour, distance, settings).count)


def synthetic_images(model: Model) -> Iterator[NDArray[Any]]:
    """Yield images ``(c, [z,] y, x)`` of the kind that a model is for."""
    for seed in _SEEDS:
        yield synthetic_image(model, seed, _SHAPE[model.network.dims])


def synthetic_image(model: Model, seed: int, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return an image ``(c, [z,] y, x)`` of the kind that a model is for."""
    recipe, size, channels = model.card.recipe, cast(Any, shape), range(len(model.card.inputs))
    if recipe.data.dims == 2:
        return np.stack([make_field(seed + n, draw_field_settings(seed, size))[0] for n in channels])
    if recipe.normalise.method == "zscore":
        contrasts = [*make_head(seed, size)[0].values()]
        return np.stack([contrasts[n % len(contrasts)] for n in channels])
    return np.stack([make_stack(seed + n, draw_stack_settings(seed, size))[0] for n in channels])
