"""What a model is for, how to use it and how good it is, as a text for those who get its file."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from biounet.core import DataSettings, builtin_models
from biounet.network.model_file import Card

_WIDTH = 100
_ALL = 0.9995  # share of labelled pixels that is shown as all of them
_BUILTIN_LICENCES = {
    "nuclei": "Apache-2.0, as biounet. Learned from BBBC038 and BBBC039, which are in the public domain (CC0), and "
    "from synthetic images.",
    "nuclei3d": "Apache-2.0, as biounet. Learned from synthetic stacks.",
}
_NO_LICENCE = (
    "Not stated. A model may be subject to the licence of the images that it learned from: write here what that is and "
    'who may use the model, or state it in the recipe, as licence = "CC-BY-4.0", before training.'
)
# What figures mean, by the begin of their names; for others the name has to do.
_MEANINGS = {
    "ap": "average precision TP / (TP + FP + FN) of objects, mean over IoU thresholds 0.5 to 0.9",
    "ap50": "average precision of objects at IoU 0.5: found, and roughly of the right shape",
    "ap75": "average precision of objects at IoU 0.75",
    "ap90": "average precision of objects at IoU 0.9: outlined closely",
    "f1_50": "F1 of objects at IoU 0.5",
    "pq": "panoptic quality of objects",
    "count_mae": "objects by which the count of an image is off, on average",
    "count_error": "share by which the count of all images together is off",
    "doubtful_below": "confidence below which at least half of the objects are wrong",
    "dice": "Dice, mean over classes or regions",
    "iou": "intersection over union, mean over classes or regions",
    "lesion_f1": "F1 of lesions",
    "lesion_dice": "Dice of lesions, 0 for those missed",
}


def describe_use(card: Card, model: Path) -> str:
    """Return a plain text that tells how a model is used, on what, and how good it is; `model` is its file.

    All figures are those of the card.
    """
    name = next((name for name, path in builtin_models().items() if path == model), model.name)
    sections = {f"{name}: a model of biounet": [card.recipe.purpose or "What it is for is not stated."]}
    sections |= {"How to use it": _commands(name, card), **use_sections(card, name)}
    parts = [f"{title}\n{'-' * len(title)}\n{_paragraphs(lines)}" for title, lines in sections.items()]
    return "\n\n".join(parts) + "\n"


def use_sections(card: Card, name: str) -> dict[str, list[str]]:
    """Return lines on images, training, scores, limits and licence by their titles; figures are indented.

    `name` is that of a built-in model, or how the file of another one is called.
    """
    return {
        "Images": [*_images(card)],
        "Training": [*_training(card)],
        "Scores": [*_scores(card)],
        "Limits": [*_limits(card)],
        "Licence": [licence_of(card, name) or _NO_LICENCE],
    }


def licence_of(card: Card, name: str) -> str:
    """Return the licence of a built-in model, or the one that a recipe states; empty where neither is known."""
    stated = f"{card.recipe.licence}, as its recipe states." if card.recipe.licence else ""
    return _BUILTIN_LICENCES.get(name, stated)


def _paragraphs(lines: Sequence[str]) -> str:
    return "\n".join(
        line if line.startswith(" ") else textwrap.fill(line, _WIDTH, break_on_hyphens=False) for line in lines
    )


def _commands(name: str, card: Card) -> list[str]:
    images, call = "images/", '"images/"'
    if len(card.inputs) > 1:
        images = " ".join(f"{channel}=FILE" for channel in card.inputs)
        call = "{" + ", ".join(f'"{channel}": FILE' for channel in card.inputs) + "}"
    return [
        f"    biounet segment {images} -m {name} -o out/",
        f'    biounet.load("{name}")({call})    # in Python, after: import biounet',
    ]


def _images(card: Card) -> Iterator[str]:
    """Yield for which images a model is made."""
    data = card.recipe.data
    kind, names = "3D volumes" if data.dims == 3 else "2D images", ", ".join(card.inputs)
    yield f"{kind} with {len(card.inputs)} channel{'s' if len(card.inputs) > 1 else ''}: {names}."
    yield _voxel_size(card, data)
    if card.object_size_px is not None:
        sizes = card.training_ranges.get("diameter")
        span = f", from {_short(sizes[0])} to {_short(sizes[1])} in the images of the training" if sizes else ""
        yield f"Objects have a diameter of {_short(card.object_size_px)} pixels (median){span}."
    if card.orientation == "RAS":
        yield "Volumes with an affine are turned to RAS for the network, and results are turned back."
    if card.surroundings_removed:
        yield "All images of the training were skull-stripped, or had their surroundings removed in another way."
    if data.kind == "classes":
        yield f"Classes: {', '.join(f'{value} {name}' for value, name in enumerate(data.foreground, 1))}."


def _short(value: float) -> str:
    """Return three digits of a number, and never an exponent, which few read."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _voxel_size(card: Card, data: DataSettings) -> str:
    if data.voxel_size:
        size = " x ".join(f"{step:.4g}" for step in data.voxel_size)
        return f"The model works at a voxel size of {size} {data.voxel_unit} (z, y, x); images are resampled to it."
    if data.pixel_size_um is not None:
        return (
            f"The model works at a pixel size of {data.pixel_size_um:.4g} µm; images that state theirs are resampled."
        )
    trained = "" if card.pixel_size_um is None else f" Those of the training have {card.pixel_size_um:.4g} µm (median)."
    return f"Pixels are taken as they are, whatever their size.{trained}"


def _training(card: Card) -> Iterator[str]:
    data = card.data
    if "images" in data:
        objects = f" with {data['objects']:.0f} objects" if data.get("objects") else ""
        share = data.get("share", 1.0)
        labelled = "all pixels labelled" if share > _ALL else f"{share:.2g} of the pixels labelled"
        count = f"{data['images']:.0f} image{'s' if data['images'] > 1 else ''}"
        yield f"{count}{objects}, {labelled}."
    version = card.versions.get("biounet", "")
    yield f"Recipe {card.recipe.name}{f', biounet {version}' if version else ''}."
    if card.fingerprint:
        yield f"SHA-256 over the training files: {card.fingerprint}."


def _scores(card: Card) -> Iterator[str]:
    """Yield the scores of the held-out images, and what they mean."""
    if not card.validation:
        yield "None: there were no held-out images. Measure it on annotated images of yours before you rely on it:"
        yield "    biounet evaluate out/ truth/"
        return
    held_out = int(card.data.get("held_out", 0))
    images = f"On {held_out} held-out image{'s' if held_out != 1 else ''}" if held_out else "On held-out images"
    yield f"{images}, by which the thresholds were chosen as well: on new images expect somewhat less."
    for name, value in card.validation.items():
        meaning = _MEANINGS.get(name, "")
        yield f"    {name:<14} {value:<8.4g} {meaning}".rstrip()


def _limits(card: Card) -> Iterator[str]:
    """Yield what a model is not for, as far as its card tells."""
    yield "Images unlike those of the training are flagged in counts.csv and report.html: look at these."
    yield "Scores are of the images named above. On other ones, check some results by eye or by 'biounet evaluate'."
    yield from card.notes
