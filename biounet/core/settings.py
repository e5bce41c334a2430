"""Settings of each stage except the data; `Recipe` combines them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from biounet.core.data_settings import Settings


class NormaliseSettings(Settings):
    """Normalisation of intensities, with statistics of the whole image and never of a tile.

    Attributes
    ----------
    method
        ``percentiles`` for microscopy; ``zscore`` for MRI: mean 0 and standard deviation 1 over the body or brain; its
        constant surroundings become 0.
    low, high
        Percentiles that become 0 and 1.
    per_channel
        Whether each channel has its own percentiles; false for colours.
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
        Channels of each level, the finest first.
    convolutions
        Convolutions of each encoder and decoder level.
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
    border_weight, border_sigma
        ``w0`` and ``sigma`` of the U-Net boundary weight ``w0 exp(-(d1 + d2)² / 2 sigma²)`` (Ronneberger et al. 2015).
        `border_sigma` is in `unit`.
    separation_weight
        The same ``w0`` for contour and distance, which separate touching objects.
    contour
        Width of the contour inside each object, in `unit`.
    unit
        ``px``, or ``um`` if all training images are calibrated.
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
        For the foreground or the classes.
    contour, distance
        For the other two heads for instances.
    boundary
        For the masked, spacing-aware boundary loss of Kervadec et al. 2019.
    """

    cross_entropy: float = Field(default=1.0, ge=0, le=1e6)
    dice: float = Field(default=1.0, ge=0, le=1e6)
    contour: float = Field(default=1.0, ge=0, le=1e6)
    distance: float = Field(default=2.0, ge=0, le=1e6)
    boundary: float = Field(default=0.0, ge=0, le=1e6)


class AugmentSettings(Settings):
    """Augmentation of training patches; each value is the largest change.

    Attributes
    ----------
    affine_fraction
        Fraction of the patches that are rotated and scaled; the others only have flips and quarter turns.
    rotate
        Degrees in the plane of y and x.
    tilt
        Degrees out of that plane, for volumes.
    mirror
        Whether there are flips and quarter turns: for microscopy, where all orientations are alike.
    flip_x
        Whether axis x is flipped at random, for organs that look alike on both sides.
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
    """Optimisation.

    Attributes
    ----------
    minutes, epochs
        Budget, over which the learning rate falls to zero along a cosine.
    patch
        Edge length of a training patch in voxels, or one for each axis. One number limits the patch of a volume to
        that number cubed; training plans its shape.
    batch
        Patches in a step.
    steps_per_epoch
        Steps between two validations.
    learning_rate, weight_decay
        Of AdamW.
    ema_decay
        Decay of the exponential moving average of the weights, which becomes the model.
    seed
        Of all random numbers.
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

    Attributes
    ----------
    foreground
        Probability from which a voxel belongs to an object.
    contour
        Factor by which the contour lowers the surface on which voxels ascend to the centre of their object.
    join
        Two peaks are one object when the saddle between them is at least this fraction of the lower peak. The saddle is
        the mean of the largest and the mean value along their border.
    min_peak
        Objects with a lower peak of the surface are removed.
    min_size
        Size of the smallest object in voxels, or in µm² (µm³) with `min_size_unit` ``um``.
    fill_holes
        Whether holes inside objects are filled.
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
