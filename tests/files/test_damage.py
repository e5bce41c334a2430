"""Damaged files give a volume or one error that names the file, never a hang and never all memory."""

import io
import logging
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from biounet.core import DataSettings, InputError
from biounet.files import ReadOptions, inspect_volume, read_annotation, read_volume
from biounet.files.formats.tiff_integrity import raise_logged_errors

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 60000, (33, 47)).astype(np.uint16)
STACK = np.stack([GREY, GREY + 1, GREY + 2])
COLOUR = RNG.integers(0, 256, (33, 47, 3)).astype(np.uint8)
LOGGER = logging.getLogger("tifffile")


def tiff(array, **how):
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tifffile.imwrite(buffer, array, **how)
    return buffer.getvalue()


def pillow(image, kind):
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def failure(path, **options):
    with pytest.raises(InputError) as caught:
        read_volume(path, ReadOptions(**options))
    assert caught.value.path == path
    return str(caught.value)


def overwrite(path, **tags):
    with tifffile.TiffFile(path, mode="r+b") as tif:
        for name, value in tags.items():
            tif.pages.first.tags[name].overwrite(value)


WHOLE = {
    "plain": tiff(GREY),
    "big-endian": tiff(GREY, byteorder=">"),
    "BigTIFF": tiff(GREY, bigtiff=True),
    "ImageJ": tiff(STACK, imagej=True, metadata={"axes": "ZYX"}),
    "OME": tiff(STACK, ome=True, metadata={"axes": "ZYX"}, compression="zlib"),
    "LZW pages": tiff(STACK, compression="lzw", metadata=None, photometric="minisblack"),
    "tiles": tiff(GREY, tile=(16, 16), compression="zstd"),
    "1 bit": tiff(GREY > 30000),
    "floats": tiff(GREY.astype(np.float32), predictor=True, compression="zlib"),
    "JPEG strips": tiff(COLOUR, compression="jpeg", photometric="rgb"),
    "PNG": imagecodecs.png_encode(GREY),
    "indexed PNG": pillow(Image.fromarray(COLOUR).quantize(16), "PNG"),
    "JPEG": pillow(Image.fromarray(COLOUR), "JPEG"),
}


def mutate(data, draw):
    """Change a few bytes of the headers, a few anywhere, one number to an extreme, or cut the end off."""
    data = bytearray(data)
    match draw.integers(4):
        case 0:
            for at in draw.integers(0, min(400, len(data)), draw.integers(1, 6)):
                data[at] = draw.integers(256)
        case 1:
            for at in draw.integers(0, len(data), draw.integers(1, 20)):
                data[at] = draw.integers(256)
        case 2:
            at = int(draw.integers(0, min(300, len(data) - 4)))
            data[at : at + 4] = int(draw.choice([0, 1, 2, 65535, 65536, 2**31, 2**32 - 1])).to_bytes(4, "little")
        case 3:
            del data[draw.integers(len(data)) :]
    return bytes(data)


@pytest.mark.parametrize("name", WHOLE)
def test_any_damage_gives_a_volume_or_one_error_that_names_the_file(tmp_path, name):
    draw = np.random.default_rng(5)
    path = tmp_path / "x.tif"
    options = ReadOptions(plane=0)
    for _ in range(40):
        path.write_bytes(mutate(WHOLE[name], draw))
        for read in (
            lambda: read_volume(path, options),
            lambda: inspect_volume(path, options),
            lambda: read_annotation(path, DataSettings()),
        ):
            try:
                result = read()
            except InputError as error:
                assert error.path == path  # noqa: PT017 - what is damaged may also be harmless
            else:
                assert min(result.grid.shape) > 0


def test_a_circular_chain_of_pages_is_an_error(tmp_path):
    path = tmp_path / "x.tif"
    with tifffile.TiffWriter(path) as tif:
        for _ in range(150):  # tifffile finds rings that close before page 100
            tif.write(GREY[:2, :2].copy(), metadata=None, contiguous=False)
    with tifffile.TiffFile(path) as tif:
        last, earlier = tif.pages[149], tif.pages[120].offset
        end = last.offset + 2 + 12 * len(last.tags)
    data = bytearray(path.read_bytes())
    assert data[end : end + 4] == bytes(4)
    data[end : end + 4] = earlier.to_bytes(4, "little")
    path.write_bytes(data)
    assert "leads back" in failure(path, plane=0)


@pytest.mark.parametrize("planes", [9, 10**9, 10**18])
def test_planes_that_only_the_metadata_declare_are_an_error(tmp_path, planes):
    path = tmp_path / "x.ome.tif"
    path.write_bytes(tiff(STACK, ome=True, metadata={"axes": "ZYX"}))
    with tifffile.TiffFile(path) as tif:
        xml = tif.ome_metadata.replace('SizeT="1"', f'SizeT="{planes}"')
    path.write_bytes(tiff(STACK, description=xml.encode(), metadata=None, photometric="minisblack"))
    assert f"{3 * planes} planes declared, 3 pages are there" in failure(path, plane=0)
    for said in (f"ImageJ=1.54f\nimages={planes}\nslices={planes}\n", f'{{"shape": [{planes}, 33, 47]}}'):
        path.write_bytes(tiff(STACK, description=said, metadata=None, photometric="minisblack"))
        assert "truncated" in failure(path, plane=0)


def test_an_entity_bomb_is_an_error(tmp_path):
    entities = "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    xml = f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">{entities}]><OME>&i;</OME>'
    path = tmp_path / "x.ome.tif"
    path.write_bytes(tiff(GREY, description=xml, metadata=None))
    failure(path)


def test_strips_missing_in_the_middle_of_a_file_are_an_error(tmp_path):
    path = tmp_path / "x.tif"
    path.write_bytes(tiff(GREY, rowsperstrip=8, compression="zlib", metadata=None))
    with tifffile.TiffFile(path) as tif:
        counts = [tif.pages.first.tags[name].offset + 4 for name in ("StripOffsets", "StripByteCounts")]
    data = bytearray(path.read_bytes())
    for at in counts:
        assert data[at] == 5
        data[at] = 3
    path.write_bytes(data)
    assert "3 of 5 strips" in failure(path)


@pytest.mark.parametrize("compression", ["lzw", "zlib", "zstd", "packbits", "jpeg"])
def test_strips_that_end_early_are_an_error(tmp_path, compression):
    path = tmp_path / "x.tif"
    even = np.add.outer(np.arange(64), COLOUR[0, :, :] // 16).astype(np.uint8)  # zstd stores what is only noise
    path.write_bytes(tiff(even, compression=compression, photometric="rgb", metadata=None))
    read_volume(path)
    with tifffile.TiffFile(path) as tif:
        start, length = tif.pages.first.dataoffsets[0], tif.pages.first.databytecounts[0]
    data = bytearray(path.read_bytes())
    data[start + length // 2 : start + length] = bytes(length - length // 2)  # as after a copy that was broken off
    path.write_bytes(data)
    failure(path)


def test_a_page_without_pixels_is_an_error(tmp_path):
    path = tmp_path / "x.tif"
    path.write_bytes(tiff(GREY, metadata=None))
    overwrite(path, ImageWidth=0)
    for read in (read_volume, inspect_volume):
        with pytest.raises(InputError) as caught:
            read(path)
        assert caught.value.path == path


def test_a_jpeg_with_other_colours_than_declared_is_an_error(tmp_path):
    path = tmp_path / "x.jpg"
    data = bytearray(WHOLE["JPEG"])
    samples = data.index(b"\xff\xc0") + 9
    assert data[samples] == 3
    data[samples] = 1
    path.write_bytes(data)
    for read in (read_volume, lambda path: read_annotation(path, DataSettings())):
        with pytest.raises(InputError):
            read(path)


@pytest.mark.parametrize("level", [logging.NOTSET, logging.CRITICAL + 1], ids=["heard", "silenced"])
def test_truncation_is_found_even_where_tifffile_may_not_log(tmp_path, level):
    LOGGER.setLevel(level)
    path = tmp_path / "x.tif"
    try:
        for name in ("LZW pages", "OME", "ImageJ"):
            for end in range(0, len(WHOLE[name]), 307):
                path.write_bytes(WHOLE[name][:end])
                try:
                    volume = read_volume(path, ReadOptions(axes="ZYX", dims=3))
                except InputError:
                    continue
                np.testing.assert_array_equal(volume.array[0], STACK)  # only bytes behind the pixels are missing
    finally:
        LOGGER.setLevel(logging.NOTSET)


def test_each_thread_finds_its_problem_while_others_end(tmp_path):
    def quiet():
        for _ in range(3000):
            with raise_logged_errors(tmp_path):
                pass
        return 0

    def loud():
        heard = 0
        for _ in range(300):
            try:
                with raise_logged_errors(tmp_path):
                    LOGGER.error("<x> broken")
            except InputError:
                heard += 1
        return heard

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            assert sum(job.result() for job in [pool.submit(task) for task in (loud, quiet, loud, quiet)]) == 600
    finally:
        sys.setswitchinterval(interval)


def test_other_log_records_pass(tmp_path, caplog):
    LOGGER.warning("<x> remark")
    assert [record.getMessage() for record in caplog.records] == ["<x> remark"]
    with pytest.raises(InputError, match="damaged: broken"), raise_logged_errors(Path("x.tif")):
        LOGGER.error("<x> broken")
    assert len(caplog.records) == 1
