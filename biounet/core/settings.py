"""Settings of each stage except the data; `Recipe` combines them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from biounet.core.data_settings import Settings


class NormaliseSettings(Settings):
    """Normalisation of intensities, with statistics of the whole image and never of a tile.

    ``percentiles`` for microscopy: `low` and `high` become 0 and 1, of each channel or (colours) of all together.
    ``zscore`` for MRI: mean 0 and standard deviation 1 over the body or brain; its constant surroundings become 0.
    """

    method: Literal["percentiles", "zscore"] = "percentiles"
    low: float = Field(default=1.0, ge=0, lt=50)
    high: float = Field(default=99.8, gt=50, le=100)
    per_channel: bool = True


class NetworkSettings(Settings):
    """Shape of the U-Net.

    Attributes
    ----------
    widths, convolutions
        Channels of each level, the finest first; convolutions of each level of encoder and decoder.
    half_resolution
        Whether pixels are folded 2 by 2 into channels (pixel unshuffle) before the first level, for a quarter of the
        cost; the output has full resolution.
    fold, pools, kernels
        For each axis: the factor of `half_resolution`, the factor between consecutive levels, and the kernel size of
        each level. Training plans them for volumes with anisotropic voxels; empty means the same for all axes.
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
    """Targets of the network for instances.

    Attributes
    ----------
    border_weight, border_sigma, separation_weight
        ``w0`` and ``sigma`` of the U-Net boundary weight ``w0 exp(-(d1 + d2)² / 2 sigma²)`` (Ronneberger et al. 2015);
        ``w0`` for contour and distance, which separate touching objects.
    contour, unit
        Width of the contour inside each object. It and `border_sigma` are in ``px``, or in ``um`` if all training
        images are calibrated.
    """

    former_names: ClassVar[Mapping[str, str]] = {"parting_weight": "separation_weight"}

    border_weight: float = Field(default=10.0, ge=0, le=1e6)
    border_sigma: float = Field(default=5.0, gt=0, le=1e4)
    separation_weight: float = Field(default=4.0, ge=0, le=1e6)
    contour: float = Field(default=1.0, gt=0, le=1e4)
    unit: Literal["px", "um"] = "px"


class LossSettings(Settings):
    """Weights of the terms of the loss.

    Cross-entropy and Dice are of the foreground or the classes, contour and distance of the other two heads for
    instances; `boundary` is the masked, spacing-aware boundary loss of Kervadec et al. 2019.
    """

    cross_entropy: float = Field(default=1.0, ge=0, le=1e6)
    dice: float = Field(default=1.0, ge=0, le=1e6)
    contour: float = Field(default=1.0, ge=0, le=1e6)
    distance: float = Field(default=2.0, ge=0, le=1e6)
    boundary: float = Field(default=0.0, ge=0, le=1e6)


class AugmentSettings(Settings):
    """Augmentation of training patches, of normalised intensities; each value is the largest change."""

    former_names: ClassVar[Mapping[str, str]] = {"free": "affine_fraction", "sides": "flip_x"}

    affine_fraction: float = Field(default=0.7, ge=0, le=1)  # of patches that rotate and scale; others flip and turn
    rotate: float = Field(default=45.0, ge=0, le=180)  # degrees in the plane of y and x
    tilt: float = Field(default=0.0, ge=0, le=180)  # degrees out of that plane, for volumes
    mirror: bool = True  # flips and quarter turns: for microscopy, where all orientations are alike
    flip_x: bool = False  # flips of x at random, for organs that look alike on both sides
    scale: float = Field(default=1.5, ge=1, le=100)  # objects appear between 1/scale and scale times their size
    brightness: float = Field(default=0.1, ge=0, le=100)
    contrast: float = Field(default=0.3, ge=0, lt=1)
    gamma: float = Field(default=0.5, ge=0, le=10)
    noise: float = Field(default=0.05, ge=0, le=100)
    blur: float = Field(default=1.0, ge=0, le=100)  # sigma in pixels
    invert: float = Field(default=0.0, ge=0, le=1)  # chance that dark and bright are exchanged


class TrainSettings(Settings):
    """Optimisation.

    The learning rate of AdamW falls to zero along a cosine over the budget in `minutes` or `epochs`, each of
    `steps_per_epoch` batches and a validation. The model is the exponential moving average of the weights. `patch` is
    the edge length of a training patch in voxels, or one for each axis; one number limits the patch of a volume to that
    number cubed, and training plans its shape.
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
    """Conversion of probabilities to objects; tuned on validation voxels after training.

    Voxels from the probability `foreground` ascend a surface, lowered by `contour` times the contour, to the centre of
    their object. Two peaks are one object when the saddle between them, the mean of the largest and the mean value
    along their border, is at least the fraction `join` of the lower peak. Objects with a peak below `min_peak`, or
    smaller than `min_size` (voxels; µm² or µm³ with the unit ``um``), are removed.
    """

    former_names: ClassVar[Mapping[str, str]] = {"summit": "min_peak"}

    foreground: float = Field(default=0.5, gt=0, lt=1)
    contour: float = Field(default=0.4, ge=0, le=100)
    join: float = Field(default=0.45, ge=0, le=1)
    # Run records keep the former name, so that results of earlier versions stay valid.
    min_peak: float = Field(default=0.2, ge=0, le=1, serialization_alias="summit")
    min_size: float = Field(default=15.0, ge=0, le=1e15)
    min_size_unit: Literal["px", "um"] = "px"
    fill_holes: bool = True
