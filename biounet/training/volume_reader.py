"""TIFF, NIfTI, PNG and JPEG for MONAI: an image reader for ``LoadImage`` and ``LoadImaged``."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import ImageReader
from monai.utils import MetaKeys, SpaceKeys
from numpy.typing import NDArray

from biounet.core import Grid, InputError, NoteCode, Volume, note_code
from biounet.files import ReadOptions, read_volume

_FilePath = str | PathLike[str]


class VolumeReader(ImageReader):  # type: ignore[misc]
    """Read images for MONAI, with the geometry that their files state.

    MONAI's own readers lose the pixel size of a TIFF, transpose its axes, drop planes, and accept damaged files. Arrays
    are loaded as with those readers, ``(c, x, y[, z])``, and the affine is that of these axes: for a sound NIfTI in mm,
    array and affine are those of ``NibabelReader``, but for the channel axis.

    Parameters
    ----------
    options
        How files are read: with ``dims=3`` volumes, by default images. A `spacing` in it counts z first,
        ``(z, y, x)``, as everywhere in biounet.
    uncalibrated
        Whether to accept images without a pixel size. Their affine is the identity and ``unit`` is ``"voxel"``, so that
        a pixel size for ``Spacingd`` is a multiple of theirs.

    Notes
    -----
    The metadata of the ``MetaTensor`` hold ``affine`` (4 x 4), ``original_affine``, ``spatial_shape``,
    ``original_channel_dim`` (0, also for one channel), ``unit`` (``"um"``, ``"mm"`` or ``"voxel"``) and, where it is
    known, ``spacing`` along the axes of the array. The affine of a NIfTI leads to RAS in mm, as ``space`` says. That of
    other files is diagonal: it holds lengths and no directions, and ``Orientationd`` leaves such images as they are.

    ``LoadImaged`` converts to float32; with ``dtype=None`` numbers stay as stored, but for unsigned ones of 16 bits and
    more, which MONAI turns into signed ones of twice the size.

    Examples
    --------
    >>> import biounet
    >>> from monai.transforms import LoadImaged
    >>> load = LoadImaged("image", reader=biounet.VolumeReader(biounet.ReadOptions(dims=3)))
    >>> load({"image": "brain.nii.gz"})["image"].affine  # doctest: +SKIP
    """

    def __init__(self, options: ReadOptions | None = None, *, uncalibrated: bool = False) -> None:
        super().__init__()
        self.options = options or ReadOptions()
        self.uncalibrated = uncalibrated

    def verify_suffix(self, filename: Sequence[_FilePath] | _FilePath) -> bool:
        """Accept every file name: the content of a file decides on its format."""
        return True

    def load(self, files: Sequence[_FilePath] | _FilePath) -> Volume:
        """Read one file, or one per channel, as `biounet.read_volume` does."""
        paths = [files] if isinstance(files, str | PathLike) else files
        return read_volume([Path(path) for path in paths], self.options)

    def read(
        self,
        data: Sequence[_FilePath] | _FilePath,
        **kwargs: Any,  # noqa: ANN401 - MONAI's signature
    ) -> Sequence[_FilePath] | _FilePath:
        """Return the files as they are; `get_data` reads them.

        If this method raised an error, ``LoadImage`` would try MONAI's own readers, which accept damaged files.
        """
        return data

    def get_data(self, img: Sequence[_FilePath] | _FilePath) -> tuple[NDArray[Any], dict[str, Any]]:
        """Read the files that `read` returned: array ``(c, x, y[, z])`` and metadata.

        Raises
        ------
        InputError
            As `load`, and if the image has no pixel size and `uncalibrated` is false.
        """
        volume = self.load(img)
        if not volume.grid.calibrated and not self.uncalibrated:
            unknown = (note for note in volume.notes if note_code(note) == NoteCode.VOXEL_SIZE_UNKNOWN)
            cause = next(unknown, "pixel size unknown")
            hint = "state it with ReadOptions(spacing=...), or accept voxels as unit with uncalibrated=True"
            raise InputError(cause, path=volume.source, hint=hint)
        return volume.array.transpose(0, *range(volume.array.ndim - 1, 0, -1)), _metadata(volume.grid)


def _metadata(grid: Grid) -> dict[str, Any]:
    affine = np.diag([*grid.steps[::-1], *(1.0,) * (4 - grid.dims)])
    if grid.affine is not None:
        affine[:3] = grid.affine
    metadata: dict[str, Any] = {
        MetaKeys.AFFINE: affine,
        MetaKeys.ORIGINAL_AFFINE: affine.copy(),
        MetaKeys.SPATIAL_SHAPE: np.array(grid.shape[::-1]),
        MetaKeys.ORIGINAL_CHANNEL_DIM: 0,
        "unit": grid.unit or "voxel",
    }
    if grid.spacing is not None:
        metadata["spacing"] = np.array(grid.spacing[::-1])
    if grid.affine is not None:
        metadata[MetaKeys.SPACE] = SpaceKeys.RAS
    return metadata
