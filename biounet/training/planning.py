"""What a recipe for volumes leaves open, planned from the grids of the training images, as nnU-Net does.

The plan has the working voxel size, folds, pools and kernels of the network, and the patch. An axis whose voxels are
much longer than those of the others is neither folded nor pooled nor convolved along until the other axes are as coarse
(Isensee et al. 2021, nnU-Net, section "Rule-based parameters").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import zip_longest

import numpy as np

from biounet.core import LENGTH_TOLERANCE, Grid, NetworkSettings, Recipe, SettingsError, Unit, canonical_grid

_COARSE = 2.0  # an axis this much coarser than the finest one is left alone
_ANISOTROPIC = 3.0  # from this ratio on, the coarsest axis works at a fine spacing of the training images
_FINE = 10  # percentile of that spacing
_SMALLEST = 8  # voxels along an axis that is still pooled

Sizes = tuple[float, ...]


def plan(recipe: Recipe, grids: Sequence[Grid]) -> Recipe:
    """Return the recipe with everything planned that it leaves open; a recipe for images is returned unchanged.

    What is planned are the axes of the patient (see `biounet.core`): z leads to superior, whatever axis of the files
    does. A `SettingsError` says that only some images are calibrated, or that units differ.
    """
    if recipe.data.dims == 2 or not grids:
        return recipe
    grids = [canonical_grid(grid) for grid in grids]
    # A network that is set, such as that of a pretrained model, works on voxels as stored unless a size is set.
    spacing = recipe.data.voxel_size or (() if recipe.network.pools else _working_spacing(grids))
    unit = _working_unit(recipe, grids) if spacing else None
    steps = spacing or (1.0,) * 3
    sizes = tuple(np.median([_sizes(grid, spacing) for grid in grids], axis=0))
    network = _plan_network(recipe.network, steps, sizes)
    stride = tuple(np.prod([network.fold, *network.pools], axis=0).tolist())
    patch = recipe.train.patch
    edges = _plan_patch(patch, steps, sizes, stride) if isinstance(patch, int) else patch
    recipe = recipe.replace("data", voxel_size=spacing, voxel_unit=unit).replace("network", **network.model_dump())
    return recipe.replace(
        "train", patch=tuple(-(-edge // step) * step for edge, step in zip(edges, stride, strict=True))
    )


def describe_plan(recipe: Recipe, unit: Unit | None = None) -> dict[str, str]:
    """Return in words what `plan` returned, with the unit of the voxel size."""
    network, patch = recipe.network, recipe.train.patch
    size = "as stored" if not recipe.data.voxel_size else f"{_by(recipe.data.voxel_size)} {unit or ''}".rstrip()
    levels = [f"{width} channels" for width in network.widths]
    steps = [f"halved along {_axes(pool)}" for pool in network.pools]
    return {
        "voxel size (z, y, x)": size,
        "patch": f"{_by((patch,) * 3 if isinstance(patch, int) else patch)} voxels, {recipe.train.batch} at a time",
        "folded into channels": _axes(network.fold) or "no axis",
        "levels": ", ".join(part for pair in zip_longest(levels, steps) for part in pair if part),
        "normalised by": recipe.normalise.method,
    }


def _by(numbers: Sequence[float]) -> str:
    return " x ".join(f"{number:.4g}" for number in numbers)


def _axes(factors: Sequence[int]) -> str:
    return ", ".join(name for name, factor in zip("zyx", factors, strict=True) if factor > 1)


def _working_spacing(grids: Sequence[Grid]) -> Sizes:
    """Return the median spacing, a finer one along an axis that is much coarser; empty where no image is calibrated."""
    known = [grid.spacing for grid in grids if grid.spacing is not None]
    if not known:
        return ()
    if len(known) < len(grids) or len({grid.unit for grid in grids}) > 1:
        cause = f"{len(known)} of {len(grids)} training images state their voxel size"
        if len(known) == len(grids):
            cause = "some training images state their voxel size in mm, some in µm"
        raise SettingsError(cause, hint="give it for all with --spacing, or keep them in separate models")
    spacing = np.median(known, axis=0)
    coarsest = int(spacing.argmax())
    if spacing[coarsest] > _ANISOTROPIC * spacing.min() * (1 + LENGTH_TOLERANCE):
        fine = float(np.percentile(np.array(known)[:, coarsest], _FINE))
        spacing[coarsest] = max(fine, np.delete(spacing, coarsest).max())
    return tuple(float(f"{size:.6g}") for size in spacing)


def _working_unit(recipe: Recipe, grids: Sequence[Grid]) -> Unit | None:
    """Return the unit of the training images, which is that of the voxel size."""
    there = {grid.unit for grid in grids if grid.unit is not None}
    if len(there) > 1:
        cause = "some training images state their voxel size in mm, some in µm"
        raise SettingsError(cause, hint="keep them in separate models")
    unit = there.pop() if there else recipe.data.voxel_unit
    if recipe.data.voxel_unit not in (None, unit):
        cause = f"data.voxel_unit is {recipe.data.voxel_unit!r}, the training images are in {unit}"
        raise SettingsError(cause, hint="give data.voxel_size in that unit, or start from no model")
    return unit


def _sizes(grid: Grid, spacing: Sizes) -> Sizes:
    if not spacing or grid.spacing is None:
        return tuple(map(float, grid.shape))
    return tuple(n * own / work for n, own, work in zip(grid.shape, grid.spacing, spacing, strict=True))


def _plan_network(settings: NetworkSettings, steps: Sizes, sizes: Sizes) -> NetworkSettings:
    if settings.pools:
        return settings
    step, size = np.array(steps), np.array(sizes)
    fold = np.where(_fine(step), 2, 1) if settings.half_resolution else np.ones(3, int)
    step, size = step * fold, size / fold
    pools, kernels = [], [_kernel(step)]
    for _ in settings.widths[1:]:
        factor = np.where(_fine(step) & (size >= _SMALLEST * (1 - LENGTH_TOLERANCE)), 2, 1)
        if factor.max() == 1:
            break
        step, size = step * factor, size / factor
        pools.append(tuple(factor.tolist()))
        kernels.append(_kernel(step))
    changes = {"fold": tuple(fold.tolist()), "pools": tuple(pools), "kernels": tuple(kernels)}
    return settings.model_copy(update={**changes, "widths": settings.widths[: len(kernels)]})


def _fine(step: np.ndarray) -> np.ndarray:
    return np.asarray(step < _COARSE * step.min() * (1 - LENGTH_TOLERANCE))


def _kernel(step: np.ndarray) -> tuple[int, ...]:
    return tuple(np.where(step <= _COARSE * step.min() * (1 + LENGTH_TOLERANCE), 3, 1).tolist())


def _plan_patch(edge: int, steps: Sizes, sizes: Sizes, stride: tuple[int, ...]) -> tuple[int, ...]:
    """Return the median image, cut along its longest axis in mm or µm until it holds no more than ``edge³`` voxels."""
    patch = [math.ceil(size / step * (1 - LENGTH_TOLERANCE)) * step for size, step in zip(sizes, stride, strict=True)]
    while np.prod(patch) > edge**3:
        able = [axis for axis in range(3) if patch[axis] > stride[axis]]
        if not able:
            break
        longest = max(able, key=lambda axis: float(f"{patch[axis] * steps[axis]:.5g}"))
        patch[longest] -= stride[longest]
    return tuple(patch)
