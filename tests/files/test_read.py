"""TIFFs of all kinds are read exactly, and what a file does not state is an error or a note and never guessed."""

import logging
import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile
from PIL import Image

from biounet.core import InputError, SettingsError
from biounet.files import ReadOptions, inspect_volume, read_volume

GREY = np.random.default_rng(0).integers(0, 60000, (33, 47)).astype(np.uint16)
STACK = np.stack([np.roll(GREY, shift, 0) for shift in range(5)])
COLOUR = np.random.default_rng(1).integers(0, 256, (33, 47, 3)).astype(np.uint8)


def write(path, array, **how):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tifffile remarks on some of the layouts that these tests are about
        tifffile.imwrite(path, array, **how)
    return path


# name: (pixels, how they are written, options, what is to be read)
CASES = {
    "plain": (GREY, {}, {}, GREY[None]),
    "big-endian": (GREY, {"byteorder": ">"}, {}, GREY[None]),
    "BigTIFF": (GREY, {"bigtiff": True}, {}, GREY[None]),
    "tiled": (GREY, {"tile": (16, 16)}, {}, GREY[None]),
    "LZW": (GREY, {"compression": "lzw", "predictor": True}, {}, GREY[None]),
    "deflate": (GREY, {"compression": "zlib", "rowsperstrip": 8}, {}, GREY[None]),
    "zstd": (GREY, {"compression": "zstd"}, {}, GREY[None]),
    "tiled stack of 16 bits": (STACK, {"tile": (16, 16), "metadata": {"axes": "ZYX"}}, {"dims": 3}, STACK[None]),
    "ImageJ channels": (STACK[:3], {"imagej": True, "metadata": {"axes": "CYX"}}, {}, STACK[:3]),
    "ImageJ volume": (STACK, {"imagej": True, "metadata": {"axes": "ZYX"}}, {"dims": 3}, STACK[None]),
    "ImageJ hyperstack": (
        np.stack([STACK, STACK[::-1]], 1),
        {"imagej": True, "metadata": {"axes": "ZCYX"}},
        {"dims": 3},
        np.stack([STACK, STACK[::-1]]),
    ),
    "plane of a volume": (STACK, {"imagej": True, "metadata": {"axes": "ZYX"}}, {"plane": 3}, STACK[3:4]),
    "time of an OME series": (STACK, {"ome": True, "metadata": {"axes": "TYX"}}, {"plane": 4}, STACK[4:5]),
    "page without a name": (STACK, {"metadata": None}, {"plane": 2}, STACK[2:3]),
    "pages named by the user": (STACK, {"metadata": None}, {"axes": "zyx", "dims": 3}, STACK[None]),
    "channel by number": (STACK, {"ome": True, "metadata": {"axes": "CYX"}}, {"channel": 1}, STACK[1:2]),
    "channel by name": (
        STACK[:2],
        {"ome": True, "metadata": {"axes": "CYX", "Channel": {"Name": ["DAPI", "actin"]}}},
        {"channel": "actin"},
        STACK[1:2],
    ),
    "RGB": (COLOUR, {"photometric": "rgb"}, {}, COLOUR.transpose(2, 0, 1)),
    "RGB by planes": (
        COLOUR.transpose(2, 0, 1),
        {"photometric": "rgb", "planarconfig": "separate", "software": "scanner"},
        {},
        COLOUR.transpose(2, 0, 1),
    ),
    "RGBA": (np.dstack([COLOUR, COLOUR[..., 0]]), {"photometric": "rgb"}, {}, COLOUR.transpose(2, 0, 1)),
    "x before y": (GREY.T.copy(), {}, {"axes": "XY"}, GREY[None]),
    "1 bit": (GREY > 30000, {}, {}, (GREY > 30000).astype(np.uint8)[None]),
    "half floats": (GREY[:9].astype(np.float16), {}, {}, GREY[None, :9].astype(np.float16).astype(np.float32)),
    **{f"{t}": (GREY.astype(t), {}, {}, GREY[None].astype(t)) for t in ("u1", "i2", "u4", "i4", "f4", "f8")},
    **{f"{shape}": (np.ones(shape, "u1"), {}, {}, np.ones((1, *shape), "u1")) for shape in ((1, 1), (1, 9), (17, 19))},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_pixels_are_exact(tmp_path, case):
    array, how, options, expected = case
    path = write(tmp_path / "x.tif", array, **how)
    volume = read_volume(path, ReadOptions(**options))
    np.testing.assert_array_equal(volume.array, expected, strict=True)
    assert volume.source == path
    info = inspect_volume(path, ReadOptions(**options))
    assert (info.channels, info.grid) == (expected.shape[0], volume.grid)
    assert set(info.notes) <= set(volume.notes)


def test_jpeg_inside_a_tiff_is_close(tmp_path):
    smooth = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    path = write(tmp_path / "x.tif", np.dstack([smooth] * 3), compression="jpeg", photometric="rgb")
    array = read_volume(path).array
    assert array.shape == (3, 64, 64)
    assert np.abs(array.astype(int) - smooth).max() < 8


def test_a_pyramid_gives_its_finest_level(tmp_path):
    path = tmp_path / "x.ome.tif"
    with tifffile.TiffWriter(path) as tif:
        tif.write(GREY, subifds=1, tile=(16, 16), metadata={"axes": "YX"})
        tif.write(GREY[::2, ::2].copy(), subfiletype=1, tile=(16, 16))
    np.testing.assert_array_equal(read_volume(path).array[0], GREY)


def test_a_palette_is_applied_but_a_lookup_table_of_imagej_is_not(tmp_path):
    index, colours = np.array([[0, 1], [1, 2]], np.uint8), np.zeros((3, 256), np.uint16)
    colours[:, :3] = np.array([[255, 0, 10], [0, 255, 20], [0, 0, 30]]) * 257
    plain = write(tmp_path / "plain.tif", index, photometric="palette", colormap=colours)
    fiji = write(tmp_path / "fiji.tif", index, photometric="palette", colormap=colours, imagej=True)
    np.testing.assert_array_equal(read_volume(plain).array[:, 1, 1], [10, 20, 30])
    np.testing.assert_array_equal(read_volume(fiji).array, index[None])


def test_a_palette_of_two_colours(tmp_path):
    page = Image.fromarray(np.eye(4, dtype=np.uint8)).convert("P")
    page.putpalette([10, 20, 30, 40, 50, 60])
    path = tmp_path / "x.png"
    page.save(path, bits=1)  # pixels of one bit are read as bool, which must not index as a mask
    np.testing.assert_array_equal(read_volume(path).array[:, 0, :2], [[40, 10], [50, 20], [60, 30]])


def failure(path, **options):
    with pytest.raises(InputError) as caught:
        read_volume(path, ReadOptions(**options))
    assert caught.value.path == path
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_ambiguous_axes_are_refused_with_the_guess_and_the_option(tmp_path):
    few, many = (write(tmp_path / f"{n}.tif", STACK[:n], metadata=None, photometric="minisblack") for n in (3, 5))
    assert "probably --axes CYX" in failure(few)
    assert "probably --axes ZYX" in failure(many)
    assert "probably --axes ZYX" in failure(few, dims=3)
    planes = write(tmp_path / "z.tif", STACK, imagej=True, metadata={"axes": "ZYX"})
    assert "5 planes" in failure(planes)
    assert "--plane" in failure(planes)
    assert "from 0 to 4" in failure(planes, plane=5)
    both = write(tmp_path / "tz.tif", np.stack([STACK] * 2), imagej=True, metadata={"axes": "TZYX"})
    assert "T and Z" in failure(both, plane=0)
    assert "2 times" in failure(both, dims=3)
    assert "not a volume" in failure(write(tmp_path / "flat.tif", GREY), dims=3)


def test_planes_stored_as_samples_are_not_silently_colours(tmp_path):
    grey = write(tmp_path / "g.tif", STACK[:4], photometric="minisblack", planarconfig="separate")
    assert "does not say" in failure(grey)
    rgb = write(tmp_path / "c.tif", STACK[:3], photometric="rgb", planarconfig="separate", software="scanner")
    assert any("red, green and blue" in note for note in read_volume(rgb).notes)
    np.testing.assert_array_equal(read_volume(rgb, ReadOptions(axes="ZYX", dims=3)).array, STACK[None, :3])


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize("metadata", [{}, None], ids=["described", "plain"])
def test_three_planes_declared_rgb_by_default_are_not_colours(tmp_path, dtype, metadata):
    path = write(tmp_path / "x.tif", STACK[:3].astype(dtype), metadata=metadata)
    with tifffile.TiffFile(path) as tif:
        assert tif.pages.first.photometric == tifffile.PHOTOMETRIC.RGB
    assert "probably --axes CYX" in failure(path)
    assert "probably --axes ZYX" in failure(path, dims=3)
    np.testing.assert_array_equal(read_volume(path, ReadOptions(axes="ZYX", dims=3)).array[0], STACK[:3].astype(dtype))
    both = write(tmp_path / "z.tif", np.stack([STACK[:3]] * 2).astype(dtype), metadata=metadata)
    assert "--axes" in failure(both)
    assert read_volume(both, ReadOptions(axes="ZCYX", dims=3)).array.shape == (3, 2, 33, 47)
    named = write(tmp_path / "y.tif", STACK[:3].astype(dtype), metadata={"axes": "ZYX"})
    np.testing.assert_array_equal(read_volume(named, ReadOptions(dims=3)).array[0], STACK[:3].astype(dtype))


def test_options_that_do_not_fit_the_file_are_errors(tmp_path):
    path = write(tmp_path / "x.tif", STACK[:2], ome=True, metadata={"axes": "CYX", "Channel": {"Name": ["a", "b"]}})
    assert "a, b" in failure(path, channel="c")
    assert "there are 2" in failure(path, channel=2)
    assert "do not fit" in failure(path, axes="YX")
    assert "no plane 3" in failure(write(tmp_path / "y.tif", GREY), plane=3)
    assert "holds colours" in failure(write(tmp_path / "c.tif", COLOUR, photometric="rgb"), axes="CYX")


@pytest.mark.parametrize(
    "wrong",
    [{"axes": "ZZYX"}, {"axes": "ZC"}, {"axes": "QYX"}, {"spacing": (1.0,)}, {"spacing": (0.0, 1.0)}, {"dims": 4}],
    ids=str,
)
def test_invalid_options_are_errors(wrong):
    with pytest.raises(SettingsError):
        ReadOptions(**wrong)


def test_pixels_that_are_not_numbers_are_errors(tmp_path):
    bad = GREY.astype(np.float32)
    bad[0, :3], bad[1, 1] = np.nan, np.inf
    assert "4 of 1551 pixels are NaN or infinite" in failure(write(tmp_path / "x.tif", bad))
    assert "complex64" in failure(write(tmp_path / "c.tif", GREY.astype(np.complex64)))
    assert "SEPARATED" in failure(write(tmp_path / "k.tif", np.dstack([COLOUR, COLOUR[..., 0]]), photometric=5))


def test_a_constant_image_is_noted(tmp_path):
    assert "constant image: every pixel is 7" in read_volume(write(tmp_path / "x.tif", np.full((9, 9), 7, "u2"))).notes


def test_files_that_are_not_images(tmp_path):
    for name, content, cause in [
        ("empty.tif", b"", "empty file"),
        ("page.tif", b"<html><body>Not found</body></html>", "LIF, CZI or .npy (begins with '<html>"),
        ("head.tif", b"II*\x00", "cannot be read"),
        ("lies.tif", b"II*\x00" + bytes(100), ""),
    ]:
        (tmp_path / name).write_bytes(content)
        assert cause in failure(tmp_path / name)
    assert "no such file" in failure(tmp_path / "none.tif")
    assert "a folder" in failure(tmp_path)
    os.mkfifo(tmp_path / "pipe.tif")
    assert "not a file" in failure(tmp_path / "pipe.tif")


@pytest.mark.parametrize("name", ["a*b.tif", "a?.tif", "[1].tif", "-x.tif", "zwei Zellen µ.tif", "name without suffix"])
def test_any_name_is_a_path_and_never_a_pattern(tmp_path, name):
    np.testing.assert_array_equal(read_volume(write(tmp_path / name, GREY)).array[0], GREY)


CUT = {
    "plain": {},
    "ImageJ": {"imagej": True, "metadata": {"axes": "ZYX"}},
    "OME deflate": {"ome": True, "metadata": {"axes": "ZYX"}, "compression": "zlib"},
    "pages LZW": {"metadata": None, "compression": "lzw"},
    "tiles": {"tile": (16, 16), "bigtiff": True},
}


@pytest.mark.parametrize("how", CUT.values(), ids=CUT.keys())
def test_a_truncated_file_is_an_error_wherever_it_was_cut(tmp_path, how):
    whole = write(tmp_path / "whole.tif", STACK, **how).read_bytes()
    path = tmp_path / "cut.tif"
    for share in np.linspace(0, 1, 97, endpoint=False):
        path.write_bytes(whole[: int(share * len(whole))])
        try:
            volume = read_volume(path, ReadOptions(axes="ZYX", dims=3))
        except InputError:
            continue
        np.testing.assert_array_equal(volume.array[0], STACK)  # only bytes behind the pixels are missing


def test_missing_planes_are_an_error(tmp_path):
    path = write(tmp_path / "x.ome.tif", STACK, ome=True, metadata={"axes": "ZYX"})
    path.write_bytes(path.read_bytes().replace(b'SizeZ="5"', b'SizeZ="9"'))
    assert "9 planes declared, 5 pages are there" in failure(path, dims=3)


def test_a_part_of_several_files_is_refused_and_the_others_are_not_opened(tmp_path):
    xml = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="47" SizeY="33"'
        ' SizeZ="2" SizeC="1" SizeT="1"><TiffData IFD="0" FirstZ="0" PlaneCount="1"><UUID>urn:uuid:1</UUID></TiffData>'
        '<TiffData IFD="0" FirstZ="1" PlaneCount="1"><UUID FileName="../secret.tif">urn:uuid:2</UUID></TiffData>'
        "</Pixels></Image></OME>"
    )
    path = write(tmp_path / "x.ome.tif", GREY, description=xml, metadata=None)
    assert "several files: ../secret.tif" in failure(path, plane=0)


def test_several_images_in_one_file_are_an_error(tmp_path):
    path = tmp_path / "x.tif"
    with tifffile.TiffWriter(path) as tif:
        tif.write(GREY, metadata=None)
        tif.write(GREY[:9, :9].copy(), metadata=None)
    assert "holds 2 images: 0 (33 x 47), 1 (9 x 9)" in failure(path)


def test_damaged_pixels_are_an_error(tmp_path):
    path = write(tmp_path / "x.tif", GREY, compression="zlib")
    data = bytearray(path.read_bytes())
    data[-200:] = b"\x55" * 200
    path.write_bytes(data)
    assert "cannot be read" in failure(path)


def test_a_header_that_declares_too_much_memory_is_an_error(tmp_path):
    path = write(tmp_path / "x.tif", np.zeros((64, 64), np.uint16), compression="zlib", metadata=None)
    assert "limit" in failure(path, limit=4096)
    with tifffile.TiffFile(path, mode="r+b") as tif:
        for tag in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            tif.pages.first.tags[tag].overwrite(60000)
    assert "60000 x 60000 uint16, 6.71 GiB, in a file of" in failure(path)
    with pytest.raises(InputError, match=r"6\.71 GiB"):
        inspect_volume(path)


def test_any_damage_gives_an_input_error(tmp_path):
    rng = np.random.default_rng(3)
    whole = write(tmp_path / "whole.tif", STACK, imagej=True, metadata={"axes": "ZYX"}).read_bytes()
    path = tmp_path / "x.tif"
    for _ in range(150):
        data = bytearray(whole)
        for at in rng.integers(0, 600, rng.integers(1, 9)):
            data[at] = rng.integers(256)
        path.write_bytes(data)
        try:
            read_volume(path, ReadOptions(dims=3))
        except InputError as error:
            assert error.path == path  # noqa: PT017 - what is damaged may also be harmless


def test_threads_report_only_problems_of_their_own_file(tmp_path):
    good, bad = write(tmp_path / "good.tif", GREY), tmp_path / "bad.tif"
    bad.write_bytes(write(tmp_path / "x.tif", STACK, imagej=True, metadata={"axes": "ZYX"}).read_bytes()[:4000])
    start = threading.Barrier(4)

    def read(path):
        start.wait()
        for _ in range(20):
            if path is good:
                read_volume(path)
            else:
                failure(path, dims=3)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read, [good, bad, good, bad]))
    assert not logging.getLogger("tifffile").handlers


def test_an_ambiguous_channel_name_is_an_error(tmp_path):
    channels = {"axes": "CYX", "Channel": {"Name": ["DAPI", "DAPI"]}}
    tifffile.imwrite(tmp_path / "x.ome.tif", np.zeros((2, 4, 5), np.uint16), ome=True, metadata=channels)
    with pytest.raises(InputError, match=r"2 channels are called 'DAPI' \(hint: give the number of one, from 0\)"):
        read_volume(tmp_path / "x.ome.tif", ReadOptions(channel="DAPI"))
    with pytest.raises(InputError, match="the channels are DAPI, DAPI: give a number from 0"):
        read_volume(tmp_path / "x.ome.tif", ReadOptions(channel="GFP"))
