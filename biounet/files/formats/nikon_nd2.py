"""ND2 of Nikon (NIS-Elements), through the package nd2: each position is a scene."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import InputError, require_extra
from biounet.files.formats.pixel_size import length_um, make_calibration, seconds, unit_in_um
from biounet.files.formats.raw import COLOURS, RawImage
from biounet.files.formats.scenes import Scene, choose_scene

if TYPE_CHECKING:
    from nd2 import ND2File

ND2_MAGIC = b"\xda\xce\xbe\x0a"
EARLY_ND2_MAGIC = b"\0\0\0\x0cjP  "  # also that of any JPEG 2000
_INDEX, _END = b"ND2 CHUNK MAP SIGNATURE 0000001!", 40  # mark of the index, and the bytes from there to the end
_POSITION = "P"
_KNOWN = set("TZCYXS") | {_POSITION}


class _WholeReads:
    """A file in which a read that ends early is an error: the package would give zeros for pixels that are not there.

    It also keeps the package from mapping a file into memory that may be larger than that.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, path.open("rb")
        self.name = str(path)

    @property
    def closed(self) -> bool:
        return self._file.closed

    def close(self) -> None:
        self._file.close()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int | None = -1) -> bytes:
        data = self._file.read(-1 if size is None else size)
        if size is not None and len(data) < size:
            raise InputError(f"truncated: {size} bytes expected, {len(data)} there", path=self._path)
        return data


def list_nd2(path: Path) -> tuple[Scene, ...]:
    """Return the positions of a file, with their names where they have some."""
    with _open(path) as nd2:
        return _scenes(nd2)


def read_nd2(path: Path, scene: str) -> RawImage:
    """Read the metadata of one position; all of its planes must have been recorded."""
    with _open(path) as nd2:
        scenes = _scenes(nd2)
        number = scenes.index(choose_scene(scenes, scene, path))
        _check_complete(nd2, path)
        if unknown := [axis for axis in nd2.sizes if axis not in _KNOWN]:
            cause = f"axes {''.join(nd2.sizes)}, of which {unknown[0]} has no meaning here"
            raise InputError(cause, path=path, hint="save it as TIFF in NIS-Elements")
        sizes = {axis: length for axis, length in nd2.sizes.items() if axis != _POSITION}
        calibration = make_calibration(_spacing(nd2))
        names = tuple(channel.channel.name or "" for channel in nd2.metadata.channels or ())
        return RawImage(
            axes="".join(sizes),
            shape=tuple(sizes.values()),
            dtype=nd2.dtype.newbyteorder("="),
            load=lambda: _load(path, number, tuple(sizes.values())),
            axes_source="ND2",
            spacing=calibration.spacing_um,
            channel_names=COLOURS if sizes.get("S") == len(COLOURS) else names if all(names) else (),
            notes=calibration.notes,
            interval=_interval(nd2),
            shares_file=len(scenes) > 1,
        )


def _load(path: Path, number: int, shape: tuple[int, ...]) -> NDArray[Any]:
    with _open(path) as nd2:
        array = np.asarray(nd2.asarray(position=number)).reshape(shape)
        return array.astype(array.dtype.newbyteorder("="))  # a copy: it may lie in the memory of the file


@contextmanager
def _open(path: Path) -> Iterator[ND2File]:
    require_extra("vendor", "nd2", "ND2 (Nikon)", path)
    from nd2 import ND2File

    with path.open("rb") as file:
        is_early = file.read(4) == EARLY_ND2_MAGIC[:4]
        file.seek(-min(_END, path.stat().st_size), os.SEEK_END)
        if not is_early and not file.read().startswith(_INDEX):
            cause = "truncated: the index of its contents, which ends each ND2, is not there"
            raise InputError(cause, path=path, hint="copy it again from where it came from")
    with ExitStack() as stack:
        target: Any = path if is_early else stack.enter_context(closing(_WholeReads(path)))
        yield stack.enter_context(ND2File(target))


def _scenes(nd2: ND2File) -> tuple[Scene, ...]:
    count = nd2.sizes.get(_POSITION, 1)
    loops = [loop for loop in nd2.experiment if loop.type == "XYPosLoop"]
    names = [point.name or "" for point in loops[0].parameters.points] if loops else []
    return tuple(Scene(str(n), names[n] if n < len(names) else "") for n in range(count))


def _check_complete(nd2: ND2File, path: Path) -> None:
    """Raise `InputError` if fewer planes were recorded than the axes have: the package reads the others as zeros."""
    planned = int(np.prod([loop.count for loop in nd2.experiment], dtype=int))
    recorded = nd2.attributes.sequenceCount
    if recorded < planned:
        cause = f"incomplete: {recorded} of {planned} planes were recorded"
        raise InputError(cause, path=path, hint="save what is there as a file of its own in NIS-Elements")


def _spacing(nd2: ND2File) -> dict[str, float | None]:
    """Return the pixel size in µm along the axes for which it was calibrated."""
    if not nd2.metadata.channels:
        return {}
    volume = nd2.metadata.channels[0].volume
    known = dict(zip("XYZ", volume.axesCalibrated, strict=True))
    sizes = zip("XYZ", nd2.voxel_size(), strict=True)
    return {axis: length_um(abs(size), unit_in_um("um")) for axis, size in sizes if known[axis]}


def _interval(nd2: ND2File) -> float | None:
    """Return the time between frames in seconds: the mean that was measured, or else the one that was asked for."""
    loops = [loop for loop in nd2.experiment if loop.type in ("TimeLoop", "NETimeLoop")]
    if len(loops) != 1:
        return None
    parameters: Any = loops[0].parameters
    periods = getattr(parameters, "periods", [parameters])
    if len(periods) != 1:
        return None
    measured = periods[0].periodDiff.avg if periods[0].periodDiff else 0
    return seconds(measured or periods[0].periodMs, "ms")
