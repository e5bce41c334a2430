"""Colours of labels that are told apart: each is as far from those before it as a colour can be."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

_COLOURS = 255  # of the palette, after which it begins again
_LEVELS = np.arange(0, 256, 17)  # of red, green and blue
# Of sRGB (IEC 61966-2-1): from linear intensities to CIE XYZ, and its white (D65, observer of 2 degrees).
_TO_XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
_WHITE = np.array([0.95047, 1.0, 1.08883])
_DARKEST, _LIGHTEST = 30, 95  # lightness of CIELAB, 0 to 100: visible on black and on white


def object_colours(labels: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
    """Return the colours (n, 3) of labels (n,) from 1, in red, green and blue; a label always has the same."""
    return np.asarray(palette()[(np.asarray(labels, np.int64) - 1) % _COLOURS])


@cache
def palette() -> NDArray[np.uint8]:
    """Return 255 colours (255, 3), each as far as possible in CIELAB from those before it.

    The method is that of Glasbey et al., Color Research and Application 32, 304-309 (2007), on a grid of colours.
    """
    colours = np.stack(np.meshgrid(_LEVELS, _LEVELS, _LEVELS, indexing="ij"), axis=-1).reshape(-1, 3).astype(np.uint8)
    # Integers, so that the choice does not hang on the last bit, which differs between machines.
    lab = np.rint(_to_lab(colours) * 100).astype(np.int64)
    visible = (lab[:, 0] > 100 * _DARKEST) & (lab[:, 0] < 100 * _LIGHTEST)
    colours, lab = colours[visible], lab[visible]
    chosen = [int(((colours.astype(int) - (255, 0, 0)) ** 2).sum(axis=1).argmin())]  # the first is red
    nearest = np.full(len(lab), np.iinfo(np.int64).max)
    while len(chosen) < _COLOURS:
        nearest = np.minimum(nearest, ((lab - lab[chosen[-1]]) ** 2).sum(axis=1))
        chosen.append(int(nearest.argmax()))
    return np.asarray(colours[chosen])


def _to_lab(colours: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return colours (n, 3) of sRGB in CIELAB; that of scikit-image takes 0.3 s to import, with each label image."""
    share = colours / 255
    linear = np.where(share > 0.04045, ((share + 0.055) / 1.055) ** 2.4, share / 12.92)
    relative = linear @ _TO_XYZ.T / _WHITE
    x, y, z = np.where(relative > 0.008856, np.cbrt(relative), 7.787 * relative + 16 / 116).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)
