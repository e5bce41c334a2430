"""Whether an image suits a model: its dimensions and channels, the size of its objects, its orientation."""

from __future__ import annotations

import math

from biounet.core import (
    AS_STORED,
    CANONICAL,
    Grid,
    InputError,
    LazyImage,
    ModelError,
    Note,
    NoteCode,
    SettingsError,
    Volume,
)
from biounet.measurement import TrainingReference
from biounet.network import Card
from biounet.preprocessing import Zoom, body_masks, working_zoom
from biounet.segmentation.options import Diameter

_ALIKE = 2.0  # factor between diameters that look alike to a model whose card has no range
_LARGEST_ZOOM = 50.0  # factor beyond which a diameter is a mistake


def check_model_fits(volume: Volume | LazyImage, card: Card) -> None:
    """Raise `InputError` if an image has other dimensions or channels than the model."""
    if volume.grid.dims != card.recipe.data.dims:
        cause = f"a {volume.grid.dims}D image, but the model '{card.recipe.name}' is for {card.recipe.data.dims}D"
        raise InputError(cause, path=volume.source, hint="choose a plane, or another model")
    if volume.channels != len(card.inputs):
        expected = f"{len(card.inputs)} ({', '.join(card.inputs)})"
        cause = f"{volume.channels} channels, the model '{card.recipe.name}' expects {expected}"
        names = f": {', '.join(volume.channel_names)}" if volume.channel_names else ""
        raise InputError(cause, path=volume.source, hint=f"choose one with --channel{names}")


def resolve_diameter(diameter: Diameter | None, card: Card) -> Diameter:
    """Return the diameter, or what one that is left to the model, None, means with this one.

    Raises
    ------
    ModelError
        If the card has no object size to bring a diameter to.
    """
    if diameter not in (None, "native") and card.object_size_px is None:
        cause = f"the card of '{card.recipe.name}' states no size of objects, which --diameter {diameter} needs"
        raise ModelError(cause, hint="leave --diameter out")
    if diameter is not None:
        return diameter
    data = card.recipe.data
    decided = data.pixel_size_um is not None or bool(data.voxel_size)
    searched = data.dims == 2 and card.object_size_px is not None and "diameter" in card.training_ranges
    return "auto" if searched and not decided else "native"


def model_zoom(volume: Volume | LazyImage, card: Card, diameter: Diameter | None) -> Zoom:
    """Return the factor along each axis from the grid of an image in the canonical order to that of the model.

    With ``"auto"`` it is that of the first attempt, 1.

    Raises
    ------
    InputError, ModelError, SettingsError
        If the image has no pixel size and the model needs one; if the card has no object size to bring `diameter` to;
        if the diameter is out of range.
    """
    diameter, size = resolve_diameter(diameter, card), card.object_size_px
    if diameter == "native" or size is None:
        return working_zoom(volume.grid, card.recipe.data, volume.source)
    if diameter == "auto":
        return (1.0,) * volume.grid.dims
    factor = size / diameter
    if not 1 / _LARGEST_ZOOM <= factor <= _LARGEST_ZOOM:
        cause = f"a diameter of {diameter:g} px, and objects of this model are {size:.3g} px wide"
        raise SettingsError(cause, hint="--diameter is that of the objects, in pixels of the image")
    return (factor,) * volume.grid.dims


def orientation_notes(grid: Grid, card: Card) -> list[Note]:
    """Return a note where it matters, and is unknown, whether image and model have the same orientation."""
    if card.recipe.data.dims == 2 or card.recipe.augment.mirror:  # trained on all orientations
        return []
    if grid.axcodes is None:
        note = f"orientation unknown: worked on as stored, by a model of volumes in {CANONICAL}"
        return [Note(note, NoteCode.ORIENTATION)] if card.orientation == CANONICAL else []
    if card.orientation == AS_STORED:
        note = f"brought to {CANONICAL}, by a model of images that did not say how they are oriented"
        return [Note(note, NoteCode.ORIENTATION)]
    if card.orientation is None and grid.axcodes != CANONICAL:
        assumed = f"the model's card does not say in which orientation it works, and {CANONICAL} is assumed"
        return [Note(f"brought from {grid.axcodes} to {CANONICAL}: {assumed}", NoteCode.ORIENTATION)]
    return []


def background_notes(volume: Volume, card: Card) -> list[Note]:
    """Return a note where the surroundings were removed in all training images and are not in this one."""
    if not card.surroundings_removed or body_masks(volume.array) is not None:
        return []
    note = "the background is not constant: the model learned from images whose surroundings were removed"
    return [Note(note, NoteCode.SURROUNDINGS)]


def training_reference(card: Card) -> TrainingReference:
    """Return what the card of a model says about its training images."""
    return TrainingReference(card.training_ranges, card.textures, card.validation.get("doubtful_below"))


def sized_reference(card: Card) -> TrainingReference:
    """Return `training_reference` with a range of diameters, by the typical one where the card has none."""
    training, size = training_reference(card), math.nan if card.object_size_px is None else card.object_size_px
    if "diameter" in training.ranges:
        return training
    return training._replace(ranges={**training.ranges, "diameter": (size / _ALIKE, size * _ALIKE)})


def note_on_unsought_diameter() -> Note:
    """Return what to say of an image that looks unlike the training and is too large to be tried at other sizes."""
    text = "it looks unlike the training, and is too large to be tried at other sizes: give one with --diameter"
    return Note(text, NoteCode.DIAMETER_NOT_SOUGHT)
