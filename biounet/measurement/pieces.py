"""In how many pieces a mask lies that does not fit into memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from biounet.core import Region
from biounet.measurement.channel_search import Labels
from biounet.measurement.id_rows import Ints, join_rows, save_rows

_SEAM = 2  # voxels at each side of a part and its neighbours of one voxel, which other parts see as well


def count_pieces(labels: Labels, shape: tuple[int, ...], cores: list[Region], folder: Path) -> int:
    """Count the pieces of all voxels other than 0, which are connected by faces, edges or corners.

    Parameters
    ----------
    cores
        Parts that tile the image of this shape.
    folder
        Where what lies at the sides of parts is kept meanwhile; it is there.
    """
    from scipy import ndimage, sparse  # slow to import

    total, paths = 0, []
    for number, core in enumerate(cores):
        region = tuple(
            slice(max(part.start - 1, 0), min(part.stop + 1, length)) for part, length in zip(core, shape, strict=True)
        )
        if not labels.has_labels(region):
            continue
        pieces, count = ndimage.label(labels.read(region) != 0, np.ones((3,) * len(shape)))
        paths.append(folder / f"seams-{number}.npy")
        save_rows(paths[-1], _seam_rows(pieces, region, shape, total))
        total += count
    pairs = [np.zeros((0, 2), np.int64)]
    for rows in join_rows(paths):
        same = rows[1:, 0] == rows[:-1, 0]
        pairs.append(np.unique(np.stack([rows[:-1, 1][same], rows[1:, 1][same]], axis=1), axis=0))
    one, other = np.concatenate(pairs).T
    graph = sparse.coo_matrix((np.ones(len(one), np.bool_), (one, other)), (total, total))
    return int(sparse.csgraph.connected_components(graph, directed=False)[0]) if total else 0


def _seam_rows(pieces: NDArray[np.integer], region: Region, shape: tuple[int, ...], before: int) -> Ints:
    """Return the voxels at the sides of a region, as indices in the image, and which piece each of them is of."""
    at_side = np.ones(pieces.shape, np.bool_)
    at_side[tuple(slice(_SEAM, -_SEAM) for _ in shape)] = False
    places = np.nonzero(at_side & (pieces > 0))
    flat = np.ravel_multi_index([p + part.start for p, part in zip(places, region, strict=True)], shape)
    return np.column_stack([flat, pieces[places] - 1 + before]).astype(np.int64)
