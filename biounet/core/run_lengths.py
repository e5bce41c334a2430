"""Run-length coding of label images: a run is a stretch of neighbouring voxels along x.

NumPy takes 3 times as long as a compiled loop, 2 ms per megapixel, and nothing to compile.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def find_runs(volume: NDArray[Any], margin: tuple[int, ...] = (0, 0, 0)) -> NDArray[np.int64]:
    """Return begin and end (r, 2), as flat indices, of each run of voxels other than 0 along x, in scan order.

    Of the volume (z, y, x), `margin` voxels on each side of each axis are left out.
    """
    (depth, height, width), (mz, my, mx) = volume.shape, margin
    core = volume[mz : depth - mz, my : height - my, mx : width - mx]
    changes = _changes(core != 0)
    row, x = np.divmod(changes, core.shape[2] + 1)
    z, y = np.divmod(row, core.shape[1])
    return np.asarray(((z + mz) * height + y + my) * width + mx + x).reshape(-1, 2)


def find_label_runs(labels: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Return begin, end and label (r, 3) of each run of voxels of one label other than 0 along x, in scan order."""
    changes = _changes(labels)
    row, x = np.divmod(changes, labels.shape[2] + 1)
    flat = row * labels.shape[2] + x
    # At the end of a row there is no voxel, and background begins.
    label = np.where(x < labels.shape[2], labels.reshape(-1)[np.minimum(flat, labels.size - 1)], 0)
    begins = np.flatnonzero(label)
    return np.stack([flat[begins], flat[begins + 1], label[begins]], axis=1).astype(np.int64)


def _changes(volume: NDArray[Any]) -> NDArray[np.int64]:
    """Return where the value differs from that before along x, with 0 around: indices in rows of one voxel more."""
    changes = np.empty((*volume.shape[:2], volume.shape[2] + 1), np.bool_)
    changes[..., 0], changes[..., -1] = volume[..., 0] != 0, volume[..., -1] != 0
    np.not_equal(volume[..., 1:], volume[..., :-1], out=changes[..., 1:-1])
    return np.flatnonzero(changes)
