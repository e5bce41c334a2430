"""A series of DICOM files, a multi-frame file, or a picture, as the readers of other formats give an image.

Volumes are stored as dcm2niix stores them: slices along the normal of their rows and columns, each from its last row
to its first. They have the header of a NIfTI file, so that whatever is made of them is one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import InputError, Note, NoteCode, list_some
from biounet.files.formats.dicom.geometry import LPS_TO_RAS, Stack, check_directions, make_stack, split_by_traits
from biounet.files.formats.dicom.headers import DicomFile, Frame
from biounet.files.formats.dicom.pixels import check_codec, load_frames, rescaled_type
from biounet.files.formats.dicom.series import choose_parts, parse_scene, series_files
from biounet.files.formats.nifti_affines import add_geometry
from biounet.files.formats.raw import COLOURS, RawImage

_SOURCE = "DICOM"
_SHOWN = 6
_MAX_SIDE = 2**15 - 1  # of a NIfTI
_WHITE_IS_ZERO = Note(
    "white is zero in this picture: what is bright in it looks dark in a viewer", NoteCode.WHITE_IS_ZERO
)
_NO_SIZE = Note("pixel size unknown: the header has none", NoteCode.VOXEL_SIZE_UNKNOWN)


def read_dicom(path: Path, scene: str = "") -> RawImage:
    """Read the headers of a series in a folder, by its scene, or of one file.

    Raises
    ------
    InputError
        If the series is no volume on a rectangular grid, or several: echoes, b-values, times. If a file is damaged,
        compressed in a way that cannot be decoded, or no image.
    """
    files = series_files(path, scene)
    _check_files(files, path, is_chosen=bool(scene))
    frames = [frame for file in files for frame in file.frames]
    if not any(frame.position and frame.orientation for frame in frames) or len(frames) == 1:
        return _read_picture(files, frames, path)
    volume = _one_volume(files, frames, scene, path)
    if len(volume) == 1:
        return _read_picture(files, volume, path)
    stack = make_stack(volume, files, path)
    return _read_volume(files, stack, path)


def stack_of_series(path: Path, scene: str) -> tuple[list[DicomFile], Stack]:
    """Return the files and the slices of a volume, whose place in space results of it share.

    Raise `InputError` as `read_dicom`, and if it is no volume.
    """
    files = series_files(path, scene)
    _check_files(files, path, is_chosen=bool(scene))
    volume = _one_volume(files, [frame for file in files for frame in file.frames], scene, path)
    return files, make_stack(volume, files, path)


def _check_files(files: Sequence[DicomFile], path: Path, *, is_chosen: bool) -> None:
    for file in files:
        name = "" if file.path == path else f"{file.path.name}: "
        if file.problem is not None:
            raise InputError(f"{name}{file.problem[0]}", path=path, hint=file.problem[1])
        if not file.frames or (file.is_segmentation and not is_chosen):
            raise InputError(f"{name}no image: {file.refusal}", path=path)
        check_codec(file, path)
    for what, values in (
        ("patients", {file.patient for file in files}),
        ("studies", {file.study for file in files}),
        ("frames of reference, whose positions cannot be compared,", {file.reference for file in files}),
    ):
        if len(values) > 1:
            cause = f"slices of {len(values)} {what} in one series"
            raise InputError(cause, path=path, hint="keep the files of each in a folder of its own")


def _placed_frames(files: Sequence[DicomFile], path: Path) -> list[Frame]:
    frames = [frame for file in files for frame in file.frames]
    unplaced = sum(frame.position is None or frame.orientation is None for frame in frames)
    if unplaced:
        cause = f"{unplaced} of {len(frames)} slices have no position"
        raise InputError(cause, path=path, hint="export the series again from the scanner")
    check_directions(frames, path)
    return frames


def _one_volume(files: Sequence[DicomFile], frames: Sequence[Frame], scene: str, path: Path) -> list[Frame]:
    """Return the frames of the one volume of a series that the scene chooses."""
    uid, traits = parse_scene(scene)
    parts = split_by_traits(_placed_frames(files, path))
    chosen = choose_parts(parts, traits)
    if len(chosen) == 1:
        return parts[chosen[0]]
    names = list_some(chosen or [*parts], _SHOWN)
    if not chosen:
        wanted = " ".join(f"{name}={value}" for name, value in traits.items())
        raise InputError(f"no volume with {wanted} in the series: {names}", path=path)
    pattern = files[0].description or uid
    hint = f"choose one with --series '{pattern} {chosen[0]}'"
    raise InputError(f"{len(chosen)} volumes in one series: {names}", path=path, hint=hint)


def _read_volume(files: Sequence[DicomFile], stack: Stack, path: Path) -> RawImage:
    shape, dtype = files[0].shape, _common_type(files, stack.frames)
    if files[0].samples > 1:
        raise InputError("slices in colours are no volume", path=path, hint="take the series that it was made of")
    load = _loader(path, functools.partial(_load_volume, stack.frames, shape, dtype))
    raw = RawImage(
        axes="ZYX",
        shape=(len(stack.frames), *shape),
        dtype=dtype,
        load=load,
        axes_source=_SOURCE,
        unit="mm",
        stored=sum(file.size for file in files),
    )
    return _with_header(raw, stack)


def _load_volume(frames: Sequence[Frame], shape: tuple[int, int], dtype: np.dtype[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(load_frames(frames, shape, dtype)[:, ::-1])


def _common_type(files: Sequence[DicomFile], frames: Sequence[Frame]) -> np.dtype[Any]:
    return np.dtype(np.result_type(*{rescaled_type(file, frames) for file in files}))


def _with_header(raw: RawImage, stack: Stack) -> RawImage:
    """Add the header of a NIfTI file with this place in space, and what it says of it: the rounding is the same."""
    from nibabel.nifti1 import Nifti1Header

    if max(raw.shape) > _MAX_SIDE:
        return raw
    affine = np.vstack([stack.affine * LPS_TO_RAS, (0, 0, 0, 1)])
    header = Nifti1Header(endianness="<")
    header.set_data_shape(raw.shape[::-1])
    header.set_zooms(np.linalg.norm(affine[:3, :3], axis=0))
    header.set_sform(affine, code="scanner")
    header.set_qform(affine, code="scanner", strip_shears=True)
    header.set_xyzt_units("mm")
    return add_geometry(replace(raw, header=header.binaryblock), header)


def _read_picture(files: Sequence[DicomFile], frames: Sequence[Frame], path: Path) -> RawImage:
    """Return an image without a place in space, or one slice: as it is seen, with the size of its pixels in mm."""
    file = files[0]
    if len(files) > 1:
        cause = f"{len(files)} pictures that do not say where they lie"
        raise InputError(cause, path=path, hint="name the files to segment each")
    shape, dtype, size = file.shape, rescaled_type(file, frames), frames[0].spacing
    full = (*((len(frames),) if len(frames) > 1 else ()), *shape, *((file.samples,) if file.samples > 1 else ()))
    spacing = {} if size is None or min(size) <= 0 else {"Y": size[0], "X": size[1]}
    is_colour = file.samples == len(COLOURS)
    notes = [] if spacing else [_NO_SIZE]
    notes += [_WHITE_IS_ZERO] if file.photometric == "MONOCHROME1" else []
    plane = (*shape, file.samples) if file.samples > 1 else shape

    def load() -> NDArray[Any]:
        return load_frames(frames, plane, dtype).reshape(full)

    return RawImage(
        axes=("I" if len(frames) > 1 else "") + "YX" + ("S" if file.samples > 1 else ""),
        shape=full,
        dtype=dtype,
        load=_loader(path, load),
        axes_source=_SOURCE,
        spacing=spacing,
        unit="mm",
        channel_names=COLOURS if is_colour else (),
        notes=tuple(notes),
        stored=file.size,
    )


def _loader(path: Path, load: Callable[[], NDArray[Any]]) -> Callable[[], NDArray[Any]]:
    """Return a function whose errors are about `path`, a folder perhaps, and name the file in it."""

    def about() -> NDArray[Any]:
        try:
            return load()
        except InputError as error:
            if error.path in (None, path):
                raise
            raise InputError(f"{Path(str(error.path)).name}: {error.cause}", path=path, hint=error.hint) from error

    return about
