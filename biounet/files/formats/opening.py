"""Which reader a file is for, by its content; what is read of it is the header, or the list of its images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from biounet.core import InputError
from biounet.files.formats.dicom.headers import looks_like_dicom
from biounet.files.formats.dicom.read import read_dicom
from biounet.files.formats.dicom.series import holds_dicom, is_scene
from biounet.files.formats.leica_lif import LIF_MAGIC, list_lif, read_lif
from biounet.files.formats.nifti import GZIP_MAGIC, NIFTI_MAGIC, read_nifti
from biounet.files.formats.nikon_nd2 import EARLY_ND2_MAGIC, ND2_MAGIC, list_nd2, read_nd2
from biounet.files.formats.npy import NPY_MAGIC, read_npy
from biounet.files.formats.ome_zarr import is_zarr, list_zarr, read_zarr
from biounet.files.formats.png_jpeg import read_jpeg, read_png
from biounet.files.formats.raw import (
    DEFAULT_LIMIT,
    RawImage,
    apply_orientation,
    check_on_load,
    check_size,
    format_shape,
    translate_errors,
)
from biounet.files.formats.scenes import ONE_IMAGE, Scene, choose_scene
from biounet.files.formats.tiff import list_tiff, read_tiff
from biounet.files.formats.unsupported import check_supported
from biounet.files.formats.zeiss_czi import CZI_MAGIC, list_czi, read_czi

_HEAD = 16  # bytes that distinguish all of them
_ZARR_SUFFIX = ".zarr"
_TIFF_SUFFIXES = (".tif", ".tiff")


@dataclass(frozen=True)
class _Format:
    """How the files of a format begin, what reads a header, and what lists the images of a file.

    Readers take a scene as in `ReadOptions`; where nothing lists, a file holds one image.
    """

    magics: tuple[bytes, ...]
    read: Callable[[Path, str], RawImage]
    list_scenes: Callable[[Path], tuple[Scene, ...]] | None = None
    suffix: str = ""  # that the name must have as well

    def is_of(self, path: Path, head: bytes) -> bool:
        return head.startswith(self.magics) and path.name.lower().endswith(self.suffix)

    def list_images(self, path: Path) -> tuple[Scene, ...]:
        return (Scene(ONE_IMAGE),) if self.list_scenes is None else self.list_scenes(path)


def _single(read: Callable[[Path], RawImage]) -> Callable[[Path, str], RawImage]:
    """Return a reader of a format whose files hold one image each."""

    def read_only(path: Path, scene: str) -> RawImage:
        choose_scene((Scene(ONE_IMAGE),), scene, path)
        return read(path)

    return read_only


# A new format is a line here.
_FORMATS = (
    _Format((b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"), read_tiff, list_tiff),
    _Format((b"\x89PNG\r\n\x1a\n",), _single(read_png)),
    _Format((b"\xff\xd8\xff",), _single(read_jpeg)),
    _Format((GZIP_MAGIC, *NIFTI_MAGIC), _single(read_nifti)),
    _Format((LIF_MAGIC,), read_lif, list_lif),
    _Format((ND2_MAGIC,), read_nd2, list_nd2),
    _Format((EARLY_ND2_MAGIC,), read_nd2, list_nd2, ".nd2"),
    _Format((CZI_MAGIC,), read_czi, list_czi),
    _Format((NPY_MAGIC,), _single(read_npy)),
)

_DICOM = _Format((), read_dicom)  # told by its mark at another place, or a folder
_ZARR = _Format((), read_zarr, list_zarr)  # a folder


@translate_errors
def open_raw(path: Path, limit: int = DEFAULT_LIMIT, scene: str = "") -> RawImage:
    """Open a file, or a folder that is an image, by its content.

    One that declares more than `limit` bytes of pixels is an error.

    `scene` says which of several images, as in `ReadOptions`.
    """
    raw = _find_format(path, scene).read(path, scene)
    if 0 in raw.shape:
        raise InputError(f"an image without pixels, shape {format_shape(raw.shape)}", path=path)
    check_size(raw, path, limit)
    return apply_orientation(check_on_load(raw, path))


@translate_errors
def list_scenes(path: Path) -> tuple[Scene, ...]:
    """Return the images that a file holds, by its headers.

    Raise `InputError` if it cannot be read.
    """
    return _find_format(path).list_images(path)


def _find_format(path: Path, scene: str = "") -> _Format:
    if path.is_dir():
        if is_zarr(path):
            return _ZARR
        if is_scene(scene) or holds_dicom(path):
            return _DICOM
        check_supported(path)
        if path.suffix.lower() == _ZARR_SUFFIX:
            cause = "a folder without metadata of Zarr: zarr.json, .zgroup or .zarray"
            raise InputError(cause, path=path, hint="copy the whole folder again from where it came from")
        raise InputError("a folder, not an image", path=path)
    if path.exists() and not path.is_file():
        raise InputError("not a file", path=path)  # to read from a pipe could wait for ever
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        raise InputError("empty file", path=path)
    if path.name.lower().endswith(".mgz"):  # gzipped, but no NIfTI
        check_supported(path)
    found = next((one for one in _FORMATS if one.is_of(path, head)), None)
    # The free bytes that DICOM begins with may be those of a TIFF; a file that is both is what its name says.
    may_be_both = found is not None and found.read is read_tiff and path.suffix.lower() not in _TIFF_SUFFIXES
    if (found is None or may_be_both) and looks_like_dicom(path):
        return _DICOM
    if found is None:
        check_supported(path)
        shown = head.decode("ascii", "replace").replace("\ufffd", "?")
        cause = f"not a TIFF, Zarr, NIfTI, DICOM, PNG, JPEG, ND2, LIF, CZI or .npy (begins with {shown!r})"
        raise InputError(cause, path=path)
    return found
