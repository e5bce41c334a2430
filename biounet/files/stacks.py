"""Frames of a time series that are taken, and one image made of the planes of a stack."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from biounet.core import InputError, SettingsError, is_integer

Projection = Literal["max", "mean", "focus"]

_FOCUS_SIGMA = 1.0  # pixels: structures of a plane in focus are wider, the noise of a camera is not
_FRAMES = re.compile(r"all|\d{1,9}|(\d{0,9}):(\d{0,9})")


def check_projection(value: object) -> None:
    """Raise `SettingsError` for what is no projection."""
    if value is not None and value not in get_args(Projection):
        raise SettingsError(f"project {value!r}: {', '.join(get_args(Projection))}")


def as_frames(value: object) -> str:
    """Return frames as text: ``all``, a number, or ``start:stop``; raise `SettingsError` for anything else."""
    text = str(value) if isinstance(value, str) or is_integer(value) else ""
    match = _FRAMES.fullmatch(text)
    empty = match is not None and match[2] and int(match[1] or 0) >= int(match[2])
    if match is None or empty:
        raise SettingsError(f"frames {value!r}: all, a number from 0, or start:stop", hint="0:10 are the first ten")
    return text


def select_frames(frames: str, count: int, path: Path) -> range:
    """Return the numbers of the frames that `as_frames` names, out of so many; `InputError` if one is not there."""
    start, colon, stop = frames.partition(":")
    if frames == "all":
        return range(count)
    first = int(start or 0)
    last = int(stop or max(count, first + 1)) if colon else first + 1
    if last > count or first >= count:
        there = "there is one, with number 0" if count == 1 else f"there are {count}, from 0 to {count - 1}"
        raise InputError(f"no frame{'s' if colon else ''} {frames}: {there}", path=path)
    return range(first, last)


def projected_type(dtype: np.dtype[Any], how: Projection) -> np.dtype[Any]:
    """Return the type of a projection: that of the planes, but for means, which have float32 or what holds more."""
    return dtype if how != "mean" else np.dtype(np.float64 if dtype.itemsize > 4 else np.float32)


def project_planes(array: NDArray[Any], how: Projection, planes: NDArray[np.intp] | None = None) -> NDArray[Any]:
    """Make one image of the planes of a stack.

    Parameters
    ----------
    array
        ``(c, [t,] z, y, x)``.
    how
        ``max``: the brightest value of each pixel, in the type of `array`. ``mean``: their mean, summed in 64 bits and
        rounded to `projected_type` only then. ``focus``: one plane as it is.
    planes
        The plane of each frame for ``focus``, (t,), from `focused_planes`.

    Returns
    -------
    ``(c, [t,] y, x)``.
    """
    if how == "max":
        return np.asarray(array.max(axis=-3))
    if how == "focus":
        if planes is None:
            raise ValueError("the planes in focus are chosen first")
        frames = array if array.ndim == 5 else array[:, None]
        chosen = np.stack([frames[:, t, plane] for t, plane in enumerate(planes)], axis=1)
        return chosen if array.ndim == 5 else chosen[:, 0]
    mean = np.empty((*array.shape[:-3], *array.shape[-2:]), projected_type(array.dtype, how))
    for index in np.ndindex(array.shape[:-3]):  # a sum of 64 bits of all frames would take more memory than the stack
        mean[index] = array[index].mean(axis=0, dtype=np.float64)
    return mean


def focused_planes(array: NDArray[Any]) -> NDArray[np.intp]:
    """Return the plane in focus of each frame of a stack ``(c, [t,] z, y, x)``, (t,).

    That is the plane with the largest variance of the Laplacian, summed over the channels, after a Gaussian filter that
    removes the noise of single pixels (J. L. Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy",
    2000). Of equal planes it is the first.
    """
    from scipy.ndimage import gaussian_laplace  # slow to import

    frames = array if array.ndim == 5 else array[:, None]
    sharpness = np.zeros(frames.shape[1:3])  # (t, z)
    for t, z in np.ndindex(sharpness.shape):
        for channel in frames[:, t, z]:
            sharpness[t, z] += gaussian_laplace(channel.astype(np.float32), _FOCUS_SIGMA).var(dtype=np.float64)
    return np.asarray(sharpness.argmax(axis=1))
