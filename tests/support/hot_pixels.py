"""Hot pixels of an image that is in memory, all at once: what the program does in parts, and other programs do."""

import numpy as np

from biounet.preprocessing.hot_pixels import contrast_rows, hot_pixel_rule, neighbour_rows, pad_at_borders


def remove_hot_pixels(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Replace hot pixels of ``([c,] [z,] y, x)`` by their third-highest neighbour; also return their number.

    A hot pixel exceeds all but two of its eight neighbours in the plane by more than the contrast of the whole image,
    and by more than these exceed the dark.
    """
    planes = values.reshape(-1, *values.shape[-2:])
    rows = contrast_rows(*planes.shape)
    bands = [planes[rows // planes.shape[1], near] for near in neighbour_rows(rows, planes.shape[1])]
    rule = hot_pixel_rule(bands, planes.min())
    (z, y, x), third = rule.find(pad_at_borders(planes, (True,) * 4))
    cleaned = planes.copy()
    cleaned[z, y - 1, x - 1] = third
    return cleaned.reshape(values.shape), len(third)
