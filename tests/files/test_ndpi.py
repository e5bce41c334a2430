"""Slides as Hamamatsu writes them: one JPEG for each level, of which strips between restart markers are read alone."""

import io
import re
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image

from biounet.core import InputError
from biounet.files import open_lazy, read_volume

RAMP = np.mgrid[:304, :384][1] * 255 // 384
PIXELS = np.stack([RAMP, RAMP[::-1, ::-1], np.full_like(RAMP, 90)], -1).astype(np.uint8)
_SHORT, _LONG, _RATIONAL, _FLOAT, _TEXT = 3, 4, 5, 11, 2


def jpeg(pixels):
    """Return a JPEG with a restart marker after each 8 x 64 pixels, and where the data between them begin."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "jpeg", quality=98, subsampling=0, restart_marker_blocks=8)
    data = stream.getvalue()
    scan = data.index(b"\xff\xda")
    first = scan + 2 + struct.unpack(">H", data[scan + 2 : scan + 4])[0]
    markers = re.finditer(b"\xff[\xd0-\xd7]", data[first:])
    return data, [first, *(first + marker.end() for marker in markers)]


def page(at, pixels, magnification):
    """Return what a page at an offset consists of: pixels and values, the tags, and where these begin."""
    data, starts = jpeg(pixels)
    height, width, samples = pixels.shape
    content = bytearray(data)

    def value(format_, *numbers):
        packed = struct.pack(f"<{len(numbers)}{format_}", *numbers)
        if len(packed) <= 4:
            return packed.ljust(4, b"\0")
        content.extend(b"\0" * (-len(content) % 4))
        content.extend(packed)
        return struct.pack("<I", at + len(content) - len(packed))

    per_cm = 40_000 * width // PIXELS.shape[1], 1  # pixels of a quarter of a micrometre at full resolution
    make = b"Hamamatsu\0"
    tags = [
        (256, _LONG, 1, value("I", width)),
        (257, _LONG, 1, value("I", height)),
        (258, _SHORT, 3, value("H", 8, 8, 8)),
        (259, _SHORT, 1, value("H", 7)),
        (262, _SHORT, 1, value("H", 6)),
        (271, _TEXT, len(make), value("B", *make)),
        (273, _LONG, 1, value("I", at)),
        (277, _SHORT, 1, value("H", samples)),
        (278, _LONG, 1, value("I", height)),
        (279, _LONG, 1, value("I", len(data))),
        (282, _RATIONAL, 1, value("I", *per_cm)),
        (283, _RATIONAL, 1, value("I", *per_cm)),
        (296, _SHORT, 1, value("H", 3)),
        (65420, _LONG, 1, value("I", 1)),
        (65421, _FLOAT, 1, value("f", magnification)),
        (65426, _LONG, len(starts), value("I", *starts)),
    ]
    content.extend(b"\0" * (-len(content) % 4))
    directory = at + len(content)
    entries = b"".join(struct.pack("<HHI", *tag[:3]) + tag[3] for tag in tags)
    return bytes(content), struct.pack("<H", len(tags)) + entries, directory


def write_ndpi(path, levels, magnifications):
    """Write a file whose offsets of directories have 64 bits; the upper halves of all offsets are 0."""
    pages, at = [], 12
    for pixels, magnification in zip(levels, magnifications, strict=True):
        content, tags, directory = page(at, pixels, magnification)
        upper = bytes(len(tags) // 12 * 4)
        pages.append((content + tags, upper, directory))
        at += len(content) + len(tags) + 8 + len(upper)
    directories = [directory for _, _, directory in pages]
    with path.open("wb") as file:
        file.write(struct.pack("<2sHQ", b"II", 42, directories[0]))
        for (content, upper, _), following in zip(pages, [*directories[1:], 0], strict=True):
            file.write(content + struct.pack("<Q", following) + upper)


@pytest.fixture
def slide(tmp_path):
    path = tmp_path / "slide.ndpi"
    macro = np.full((96, 192, 3), 200, np.uint8)
    write_ndpi(path, [PIXELS, PIXELS[::2, ::2], macro], [20.0, 10.0, -1.0])
    return path


def test_a_slide_is_read_strip_by_strip(slide):
    volume, image = read_volume(slide), open_lazy(slide)
    assert volume.array.shape == (3, 304, 384)
    assert (image.grid, image.notes) == (volume.grid, volume.notes)
    assert (image.grid.spacing, image.grid.unit) == ((0.25, 0.25), "um")
    assert image.chunks == (8, 64)
    part = image.read((slice(50, 203), slice(90, 310)))
    np.testing.assert_array_equal(part, volume.array[:, 50:203, 90:310])
    np.testing.assert_allclose(part, PIXELS[50:203, 90:310].transpose(2, 0, 1), atol=4)


@pytest.mark.parametrize("end", [b"\x00\x00", b"\xff\xd8"])
def test_a_strip_that_is_cut_off_is_named_and_not_filled_with_grey(slide, end):
    with tifffile.TiffFile(slide) as tif:
        offset, count = tif.pages[0].dataoffsets[7], tif.pages[0].databytecounts[7]
    with slide.open("r+b") as file:
        file.seek(offset + count - 2)
        file.write(end)
    image = open_lazy(slide)
    assert image.read((slice(0, 8), slice(0, 384))).any()
    with pytest.raises(InputError, match="tile 7 of 228 is a JPEG without an end"):
        image.read((slice(8, 16), slice(0, 384)))
    with pytest.raises(InputError, match="plane 0 of 1 is a JPEG without an end"):
        read_volume(slide)
