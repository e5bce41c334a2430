"""Arrays whose elements lie in a file as in memory: uncompressed NIfTI, ``.npy``, and TIFF in one piece."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import InputError
from biounet.files.lazy.stored_array import Index, StoredArray

_PLANE = 512  # rows and columns that are called a chunk: the file has none, and reads of whole rows are long enough


@dataclass(frozen=True)
class FlatFile(StoredArray):
    """Elements in the order of their last axis from byte `offset` on, in the byte order of `stored_dtype`.

    They are read with `read` and not mapped: pages of a map that were read once stay in the memory of the process.
    """

    path: Path
    offset: int
    stored_dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype[Any]:  # type: ignore[override]  # noqa: D102 - inherited
        return self.stored_dtype.newbyteorder("=")

    @property
    def chunks(self) -> tuple[int, ...]:  # type: ignore[override]  # noqa: D102 - inherited
        return tuple(min(length, _PLANE) if n >= len(self.shape) - 2 else 1 for n, length in enumerate(self.shape))

    def read(self, index: Index) -> NDArray[Any]:  # noqa: D102 - inherited
        out = np.empty([part.stop - part.start for part in index], self.stored_dtype)
        run = self._run_axis(index)
        strides = np.cumprod([1, *self.shape[:0:-1]], dtype=np.int64)[::-1] * self.stored_dtype.itemsize
        first = self.offset + sum(part.start * int(stride) for part, stride in zip(index, strides, strict=True))
        with self.path.open("rb", buffering=0) as file:
            for outer in np.ndindex(out.shape[:run]):
                file.seek(first + sum(n * int(stride) for n, stride in zip(outer, strides, strict=False)))
                self._read_into(out[outer], file)
        return out.astype(self.dtype, copy=False)

    def _run_axis(self, index: Index) -> int:
        """Return the axis from which on the part lies in one piece of the file."""
        run = len(index) - 1
        while run and index[run].stop - index[run].start == self.shape[run]:
            run -= 1
        return run

    def _read_into(self, target: NDArray[Any], file: Any) -> None:  # noqa: ANN401 - a file without a buffer
        rest = target.reshape(-1).view(np.uint8).data
        while rest:
            count = file.readinto(rest)
            if not count:
                raise InputError("truncated: it became shorter while it was read", path=self.path)
            rest = rest[count:]
