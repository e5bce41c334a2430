"""What can be set of each stage, one frozen class for each; `biounet.core` puts them together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from biounet.core.data_settings import Settings


class NormaliseSettings(Settings):
    """How intensities are brought to one scale; statistics are taken over the whole image, never over a tile.

    Attributes
    ----------
    method
        ``percentiles`` for microscopy; ``zscore`` for MRI: mean 0 and standard deviation 1 over the voxels that are not
        the constant surroundings of the body or brain, which become 0.
    low, high
        Percentiles that become 0 and 1.
    per_channel
        Whether each channel has its own percentiles. Colours keep their relation when it is false.
    """

    method: Literal["percentiles", "zscore"] = "percentiles"
    low: float = Field(default=1.0, ge=0, lt=50)
    high: float = Field(default=99.8, gt=50, le=100)
    per_channel: bool = True


class NetworkSettings(Settings):
    """Shape of the U-Net.

    Attributes
    ----------
    widths
        Channels of each level, finest first.
    convolutions
        Convolutions of each encoder and decoder level.
    half_resolution
        Whether the body works on pixels folded 2 by 2 into channels: a quarter of the cost, full-resolution output.
    fold, pools, kernels
        What training plans for volumes whose axes differ; empty means the same for all axes. One
        number for each axis: the fold of `half_resolution`; the factor from each level to the next coarser one; and
        the size of the kernels of each level.
    """

    widths: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field(
        default=(32, 64, 96, 128, 128), min_length=1, max_length=10
    )
    convolutions: int = Field(default=2, ge=1, le=4)
    half_resolution: bool = True
    fold: tuple[Annotated[int, Field(le=8)], ...] = ()
    pools: tuple[tuple[Annotated[int, Field(le=8)], ...], ...] = ()
    kernels: tuple[tuple[Annotated[int, Field(le=15)], ...], ...] = ()


class TargetSettings(Settings):
    """What the network learns from instances.

    Attributes
    ----------
    border_weight, border_sigma
        ``w0`` and ``sigma`` of the U-Net boundary weight ``w0 exp(-(d1 + d2)² / 2 sigma²)`` (Ronneberger et al. 2015).
        `border_sigma` is in `unit`.
    separation_weight
        The same height for contour and distance, which tell touching objects apart.
    contour
        Width of the contour that is drawn inside each object, in `unit`.
    unit
        ``px``, or ``um`` where all training images are calibrated.
    """

    former_names: ClassVar[Mapping[str, str]] = {"parting_weight": "separation_weight"}

    border_weight: float = Field(default=10.0, ge=0, le=1e6)
    border_sigma: float = Field(default=5.0, gt=0, le=1e4)
    separation_weight: float = Field(default=4.0, ge=0, le=1e6)
    contour: float = Field(default=1.0, gt=0, le=1e4)
    unit: Literal["px", "um"] = "px"


class LossSettings(Settings):
    """Weights of the terms of the loss.

    Attributes
    ----------
    cross_entropy, dice
        Of the foreground or of the classes.
    contour, distance
        Of the other two heads for instances.
    boundary
        Of the masked, spacing-aware boundary loss of Kervadec et al. 2019; 0 leaves it out.
    """

    cross_entropy: float = Field(default=1.0, ge=0, le=1e6)
    dice: float = Field(default=1.0, ge=0, le=1e6)
    contour: float = Field(default=1.0, ge=0, le=1e6)
    distance: float = Field(default=2.0, ge=0, le=1e6)
    boundary: float = Field(default=0.0, ge=0, le=1e6)


class AugmentSettings(Settings):
    """How far training patches are changed; each is the largest change drawn.

    Attributes
    ----------
    affine_fraction
        Share of the patches that are rotated and scaled; the others are mirrored and turned by quarters only.
    rotate
        Degrees in the plane of y and x.
    tilt
        Degrees out of that plane, for volumes.
    mirror
        Whether mirror images and quarter turns are drawn, which all look alike under a microscope. A body has a top.
    flip_x
        Whether left and right, the two ends of axis x, are exchanged at random: for organs that come in pairs.
    scale
        Factor: objects appear between ``1/scale`` and ``scale`` times their size.
    brightness, contrast, gamma, noise, blur
        Of the normalised intensities (blur: sigma in pixels).
    invert
        Chance that dark and bright are exchanged.
    """

    former_names: ClassVar[Mapping[str, str]] = {"free": "affine_fraction", "sides": "flip_x"}

    affine_fraction: float = Field(default=0.7, ge=0, le=1)
    rotate: float = Field(default=45.0, ge=0, le=180)
    tilt: float = Field(default=0.0, ge=0, le=180)
    mirror: bool = True
    flip_x: bool = False
    scale: float = Field(default=1.5, ge=1, le=100)
    brightness: float = Field(default=0.1, ge=0, le=100)
    contrast: float = Field(default=0.3, ge=0, lt=1)
    gamma: float = Field(default=0.5, ge=0, le=10)
    noise: float = Field(default=0.05, ge=0, le=100)
    blur: float = Field(default=1.0, ge=0, le=100)
    invert: float = Field(default=0.0, ge=0, le=1)


class TrainSettings(Settings):
    """The training run.

    Attributes
    ----------
    minutes, epochs
        Budget; whichever is given. The learning rate falls to zero over it along a cosine.
    patch
        Edge of a training patch in voxels. The patch of a volume holds at most so many cubed; its edges are planned
        from the sizes of the training images, and may be given one by one.
    batch
        Patches per step.
    steps_per_epoch
        Steps between two validations.
    learning_rate, weight_decay
        Of AdamW.
    ema_decay
        Decay of the exponential moving average of the weights, which becomes the model.
    seed
        Of everything that is drawn.
    """

    former_names: ClassVar[Mapping[str, str]] = {"rate": "learning_rate", "average": "ema_decay"}

    minutes: float | None = Field(default=None, gt=0, le=1e6)
    epochs: int | None = Field(default=None, gt=0, le=10**7)
    patch: Annotated[int, Field(ge=16, le=2**14)] | tuple[Annotated[int, Field(ge=1, le=2**14)], ...] = 128
    batch: int = Field(default=8, ge=1, le=2**14)
    steps_per_epoch: int = Field(default=250, ge=1, le=10**7)
    learning_rate: float = Field(default=3e-3, gt=0, le=10)
    weight_decay: float = Field(default=1e-2, ge=0, le=10)
    ema_decay: float = Field(default=0.995, ge=0, lt=1)
    seed: int = Field(default=0, ge=0, lt=2**32)


class LabelSettings(Settings):
    """How probabilities become objects. Tuned on validation voxels after training and stored in the card.

    Attributes
    ----------
    foreground
        Probability from which a voxel belongs to an object.
    contour
        How much the contour lowers the surface on which voxels climb to the middle of their object.
    join
        Two summits are one object when the saddle between them is at least this share of the lower summit. The saddle
        is half way between the highest pass of their border and the mean along it.
    min_peak
        An object whose highest point on the distance surface is lower than this is dropped.
    min_size
        Smallest object: µm² (µm³) on calibrated images when `min_size_unit` says so, else voxels.
    fill_holes
        Whether holes inside an object belong to it.
    """

    former_names: ClassVar[Mapping[str, str]] = {"summit": "min_peak"}

    foreground: float = Field(default=0.5, gt=0, lt=1)
    contour: float = Field(default=0.4, ge=0, le=100)
    join: float = Field(default=0.45, ge=0, le=1)
    # Records of results keep the former name, so that results of earlier versions stay valid.
    min_peak: float = Field(default=0.2, ge=0, le=1, serialization_alias="summit")
    min_size: float = Field(default=15.0, ge=0, le=1e15)
    min_size_unit: Literal["px", "um"] = "px"
    fill_holes: bool = True
