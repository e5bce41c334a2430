"""Colours of labels that are told apart: each is as far from those before it as a colour can be."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

_COLOURS = 255  # of the palette, after which it begins again
_LEVELS = np.arange(0, 256, 17)  # of red, green and blue
_DARKEST, _LIGHTEST = 30, 95  # lightness of CIELAB, 0 to 100: visible on black and on white


def object_colours(labels: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
    """Return the colours (n, 3) of labels (n,) from 1, in red, green and blue; a label always has the same."""
    return np.asarray(palette()[(np.asarray(labels, np.int64) - 1) % _COLOURS])


@cache
def palette() -> NDArray[np.uint8]:
    """Return 255 colours (255, 3), each as far as possible in CIELAB from those before it.

    The method is that of Glasbey et al., Color Research and Application 32, 304-309 (2007), on a grid of colours.
    """
    from skimage.color import rgb2lab  # slow to import

    colours = np.stack(np.meshgrid(_LEVELS, _LEVELS, _LEVELS, indexing="ij"), axis=-1).reshape(-1, 3).astype(np.uint8)
    # Integers, so that the choice does not hang on the last bit, which differs between machines.
    lab = np.rint(rgb2lab(colours[None])[0] * 100).astype(np.int64)
    visible = (lab[:, 0] > 100 * _DARKEST) & (lab[:, 0] < 100 * _LIGHTEST)
    colours, lab = colours[visible], lab[visible]
    chosen = [int(((colours.astype(int) - (255, 0, 0)) ** 2).sum(axis=1).argmin())]  # the first is red
    nearest = np.full(len(lab), np.iinfo(np.int64).max)
    while len(chosen) < _COLOURS:
        nearest = np.minimum(nearest, ((lab - lab[chosen[-1]]) ** 2).sum(axis=1))
        chosen.append(int(nearest.argmax()))
    return np.asarray(colours[chosen])
