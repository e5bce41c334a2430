"""Names of channels in the metadata of ImageJ: labels of slices, and what programs write into its property 'Info'."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from tifffile import TiffFile, TiffPageSeries

_POSITION = re.compile(r"^(?:[czt]:\d+/\d+\s*)+-?\s*")  # prefix of labels: the position of a plane in its stack
_MAX_INFO = 10_000_000  # characters of 'Info' that are looked through
# Lines of 'Info' such as "Information|Image|Channel|Name #1 = DAPI" (Zeiss) and "Channel Name #2 = GFP"
_CHANNEL_NAME = re.compile(r"^[^=\n]*\bchannel\b[^=\n]*\bname\s*#?(\d+) = (.+)$", re.IGNORECASE | re.MULTILINE)
_MICROMANAGER = re.compile(r"\"ChNames\"\s*:\s*(\[[^\]]*\])")


def imagej_channel_names(tif: TiffFile, series: TiffPageSeries) -> tuple[str, ...]:
    """Return the names of the channels of a hyperstack; empty unless each channel has one of its own."""
    if not tif.is_imagej or series.kind != "imagej" or "C" not in series.axes:
        return ()
    metadata = tif.imagej_metadata or {}
    sizes = {letter: size for letter, size in zip(series.axes, series.shape, strict=True) if letter not in "YXS"}
    found = names_in_labels(metadata.get("Labels"), sizes) or names_in_info(metadata.get("Info"), sizes["C"])
    return found if len(set(found)) == sizes["C"] else ()


def names_in_labels(labels: object, sizes: dict[str, int]) -> tuple[str, ...]:
    """Return the labels of planes, where all planes of a channel have the same; `sizes` are those of the stack."""
    if not isinstance(labels, (list, tuple)):
        return ()
    names = np.array([_POSITION.sub("", str(label).partition("\n")[0]).strip() for label in labels], object)
    if names.size == sizes["C"]:
        each = names.reshape(-1, 1)
    elif names.size == math.prod(sizes.values()):
        each = np.moveaxis(names.reshape(*sizes.values()), [*sizes].index("C"), 0).reshape(sizes["C"], -1)
    else:
        return ()
    return tuple(str(row[0]) for row in each if row[0] and (row == row[0]).all())


def names_in_info(info: object, count: int) -> tuple[str, ...]:
    """Return the names of `count` channels in the property 'Info', which holds what the microscope wrote."""
    text = info[:_MAX_INFO] if isinstance(info, str) else ""
    if (match := _MICROMANAGER.search(text)) is not None:
        with suppress(ValueError, RecursionError):
            return _if_complete(dict(enumerate(json.loads(match[1]), 1)), count)
    return _if_complete({int(number): name for number, name in _CHANNEL_NAME.findall(text)}, count)


def _if_complete(names: dict[int, object], count: int) -> tuple[str, ...]:
    """Return the names in the order of their numbers, 1 to `count`; empty if these are others."""
    ordered: Sequence[object] = [names.get(number) for number in range(1, count + 1)]
    complete = len(names) == count and all(isinstance(name, str) and name.strip() for name in ordered)
    return tuple(str(name).strip() for name in ordered) if complete else ()
