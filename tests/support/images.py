"""Small images of objects with known labels."""

import numpy as np


def discs(
    shape: tuple[int, int], count: int, seed: int, radius: tuple[int, int] = (4, 8)
) -> tuple[np.ndarray, np.ndarray]:
    """Bright, noisy discs that do not overlap: image uint16 (y, x), labels int32 (y, x)."""
    draw = np.random.default_rng(seed)
    labels = np.zeros(shape, np.int32)
    rows, columns = np.indices(shape)
    number = 0
    for _ in range(50 * count):
        r, y, x = draw.integers(*radius), draw.integers(shape[0]), draw.integers(shape[1])
        disc = (rows - y) ** 2 + (columns - x) ** 2 <= r**2
        if number < count and not labels[disc].any():
            number += 1
            labels[disc] = number
    light = draw.uniform(0.7, 1.3, number + 1)[labels] * (labels > 0)
    image = 200 + 1000 * light + draw.normal(0, 40, shape)
    return image.clip(0).astype(np.uint16), labels
