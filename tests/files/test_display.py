"""Display: orientation tags, white stored as zero, palettes, and channels named by ImageJ labels."""

import io

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from biounet.core import DataSettings, InputError
from biounet.files import ReadOptions, inspect_volume, read_annotation, read_labels, read_volume
from biounet.files.read import open_raw

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (9, 7), np.uint8)
COLOUR = RNG.integers(0, 256, (9, 7, 3), np.uint8)
ORIENTATION = 274


def exif(kind, order="<"):
    """EXIF with the tag of another program before it."""
    data = Image.Exif()
    data.endian = order
    data[271], data[ORIENTATION] = "camera", kind
    return data


def as_shown(array, kind):
    """What Pillow makes of it, as all viewers do."""
    image = Image.fromarray(array)
    image.getexif()[ORIENTATION] = kind
    return np.asarray(ImageOps.exif_transpose(image))


def write_png(path, array, kind, **how):
    Image.fromarray(array).save(path, "PNG", exif=exif(kind), **how)


def write_tiff(path, array, kind, **how):
    photometric = "rgb" if array.shape[-1] == 3 else "minisblack"
    tags = [(ORIENTATION, 3, 1, kind, True)]
    tifffile.imwrite(path, array, photometric=photometric, extratags=tags, metadata=None, **how)


def write_indexed(path, array, kind):
    image = Image.fromarray(array)
    image.putpalette([value for n in range(256) for value in (n, 255 - n, 7)])
    image.save(path, "PNG", exif=exif(kind))


WRITERS = {"PNG": write_png, "TIFF": write_tiff}


@pytest.mark.parametrize("kind", range(1, 9))
@pytest.mark.parametrize("array", [GREY, COLOUR], ids=["grey", "colour"])
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS.keys())
def test_the_orientation_tag_is_applied(tmp_path, write, array, kind):
    path = tmp_path / "x"
    write(path, array, kind)
    shown = as_shown(array, kind)
    expected = shown[None] if shown.ndim == 2 else shown.transpose(2, 0, 1)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, expected, strict=True)
    assert inspect_volume(path).grid == volume.grid
    if array.ndim == 2:
        np.testing.assert_array_equal(read_labels(path), shown)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", range(1, 9))
def test_the_orientation_of_a_jpeg_is_applied(tmp_path, kind, order):
    Image.fromarray(GREY).save(tmp_path / "x.jpg", exif=exif(kind, order))
    Image.fromarray(GREY).save(tmp_path / "plain.jpg")
    plain = read_volume(tmp_path / "plain.jpg").array[0]
    np.testing.assert_array_equal(read_volume(tmp_path / "x.jpg").array[0], as_shown(plain, kind))


@pytest.mark.parametrize("kind", [0, 9, 65535])
def test_an_invalid_orientation_is_ignored(tmp_path, kind):
    write_tiff(tmp_path / "x.tif", GREY, kind)
    write_png(tmp_path / "x.png", GREY, kind)
    for path in tmp_path.iterdir():
        np.testing.assert_array_equal(read_volume(path).array[0], GREY)


@given(st.sampled_from(range(1, 9)), st.binary(max_size=40), st.integers(0, 200))
def test_damaged_exif_is_applied_or_ignored(tmp_path_factory, kind, noise, cut):
    data = exif(kind).tobytes()
    buffer, path = io.BytesIO(), tmp_path_factory.mktemp("exif") / "x.jpg"
    Image.fromarray(GREY).save(buffer, "JPEG", exif=data[: min(cut, len(data))] + noise)
    path.write_bytes(buffer.getvalue())
    assert sorted(read_volume(path).array.shape) == [1, 7, 9]


@pytest.mark.parametrize("kind", [3, 6])
def test_an_annotation_drawn_on_the_displayed_image_fits(tmp_path, kind):
    labels = np.zeros((9, 7), np.uint8)
    labels[1:4, 1:3], labels[5:8, 2:6] = 1, 2
    Image.fromarray(labels * 100).save(tmp_path / "x.jpg", exif=exif(kind), quality=100)
    Image.fromarray(as_shown(labels, kind)).save(tmp_path / "drawn.png")
    write_png(tmp_path / "same.png", labels, kind)
    write_tiff(tmp_path / "same.tif", labels, kind)
    volume = read_volume(tmp_path / "x.jpg")
    for name in ("drawn.png", "same.png", "same.tif"):
        drawn = read_annotation(tmp_path / name, DataSettings(), volume.grid).labels
        np.testing.assert_allclose(volume.array[0], drawn * 100, atol=12)


def test_the_orientation_of_a_colour_annotation_is_applied(tmp_path):
    write_indexed(tmp_path / "x.png", np.arange(63, dtype=np.uint8).reshape(9, 7), 6)
    np.testing.assert_array_equal(read_volume(tmp_path / "x.png").array[0], np.rot90(np.arange(63).reshape(9, 7), -1))


def test_pixel_sizes_follow_the_orientation(tmp_path):
    for kind, size in ((1, (0.25, 0.5)), (3, (0.25, 0.5)), (6, (0.5, 0.25))):
        write_tiff(tmp_path / "x.tif", GREY, kind, resolution=(20000, 40000), resolutionunit=3)
        volume = read_volume(tmp_path / "x.tif")
        assert volume.grid.spacing == size
        assert f"pixels are not square: x {size[1]} µm, y {size[0]} µm" in volume.notes


def test_the_orientation_applies_to_all_planes(tmp_path):
    stack = RNG.integers(0, 9, (4, 9, 7)).astype(np.uint8)
    tags = [(ORIENTATION, 3, 1, 6, False)]
    tifffile.imwrite(tmp_path / "x.tif", stack, imagej=True, metadata={"axes": "ZYX"}, extratags=tags)
    volume = read_volume(tmp_path / "x.tif", ReadOptions(dims=3))
    np.testing.assert_array_equal(volume.array[0], np.rot90(stack, -1, (1, 2)))


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_white_is_zero_is_inverted(tmp_path, dtype):
    array = RNG.integers(0, np.iinfo(dtype).max, (9, 7)).astype(dtype)
    tifffile.imwrite(tmp_path / "x.tif", array, photometric="miniswhite")
    volume = read_volume(tmp_path / "x.tif")
    np.testing.assert_array_equal(volume.array[0], np.iinfo(dtype).max - array, strict=True)
    assert inspect_volume(tmp_path / "x.tif").dtype == str(np.dtype(dtype))
    np.testing.assert_array_equal(read_labels(tmp_path / "x.tif"), array)  # ids are no intensities


@pytest.mark.parametrize("dtype", ["i2", "u4", "f4"])
def test_white_is_zero_without_a_maximum_is_noted(tmp_path, dtype):
    array = RNG.integers(0, 200, (9, 7)).astype(dtype)
    tifffile.imwrite(tmp_path / "x.tif", array, photometric="miniswhite")
    volume = read_volume(tmp_path / "x.tif")
    np.testing.assert_array_equal(volume.array[0], array)
    assert any("white is zero" in note for note in volume.notes)


@pytest.mark.parametrize("table", [range(255, -1, -1), range(256)], ids=["falling", "rising"])
def test_a_grey_indexed_png_is_one_channel_as_displayed(tmp_path, table):
    image = Image.fromarray(GREY)
    image.putpalette([value for grey in table for value in (grey,) * 3])
    image.save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_volume(tmp_path / "x.png").array, np.array(table, np.uint8)[GREY][None])
    np.testing.assert_array_equal(read_labels(tmp_path / "x.png"), GREY)


def palette(path, values, **how):
    table = np.stack([np.asarray(values, np.uint16) * 257] * 3)
    tifffile.imwrite(path, GREY, photometric="palette", colormap=table, **how)
    return path


@pytest.mark.parametrize("how", [{}, {"imagej": True}], ids=["plain", "ImageJ"])
def test_an_inverted_palette_is_applied_and_a_rising_one_is_not(tmp_path, how):
    falling = palette(tmp_path / "x.tif", np.arange(255, -1, -1), **how)
    np.testing.assert_array_equal(read_volume(falling).array[0], 255 - GREY, strict=True)
    np.testing.assert_array_equal(read_labels(falling), GREY)
    rising = palette(tmp_path / "y.tif", np.arange(256), **how)
    np.testing.assert_array_equal(read_volume(rising).array[0], GREY, strict=True)
    brighter = palette(tmp_path / "z.tif", np.minimum(np.arange(256) * 2, 255), **how)
    np.testing.assert_array_equal(read_volume(brighter).array[0], GREY, strict=True)


@given(st.permutations(range(256)))
def test_any_grey_palette_is_applied_unless_it_keeps_the_order(tmp_path_factory, table):
    path = palette(tmp_path_factory.mktemp("palette") / "x.tif", table)
    expected = GREY if table == sorted(table) else np.array(table, np.uint8)[GREY]
    np.testing.assert_array_equal(read_volume(path).array[0], expected)


STACK = RNG.integers(0, 9, (3, 2, 9, 7)).astype(np.uint16)
LABELS = {
    "one for each channel": (["DAPI", "GFP"], ("DAPI", "GFP")),
    "one for each plane": (["DAPI", "GFP"] * 3, ("DAPI", "GFP")),
    "with their place": ([f"c:{c}/2 z:{z}/3 - {n}" for z in (1, 2, 3) for c, n in ((1, "a"), (2, "b"))], ("a", "b")),
    "with more text": (["DAPI\nexposure 5", "GFP\nexposure 9"] * 3, ("DAPI", "GFP")),
    "the name of the image": ([f"c:{c}/2 z:{z}/3 - x.czi" for z in (1, 2, 3) for c in (1, 2)], ()),
    "one for each of other planes": ([f"plane {n}" for n in range(6)], ()),
    "empty": ([""] * 6, ()),
    "too few": (["DAPI"], ()),
}


@pytest.mark.parametrize("case", LABELS.values(), ids=LABELS.keys())
def test_imagej_labels_name_channels(tmp_path, case):
    labels, names = case
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, STACK, imagej=True, metadata={"axes": "ZCYX", "Labels": labels})
    assert open_raw(path).channel_names == names
    if names:
        chosen = read_volume(path, ReadOptions(dims=3, channel=names[1]))
        np.testing.assert_array_equal(chosen.array[0], STACK[:, 1])
    else:
        with pytest.raises(InputError, match="have no names"):
            read_volume(path, ReadOptions(dims=3, channel="GFP"))


def test_imagej_labels_of_channels_without_planes(tmp_path):
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, STACK[0], imagej=True, metadata={"axes": "CYX", "Labels": ["DAPI", "GFP"]})
    np.testing.assert_array_equal(read_volume(path, ReadOptions(channel="GFP")).array[0], STACK[0, 1])


def test_exif_behind_the_pixels_of_a_png_is_read(tmp_path):
    data = imagecodecs.png_encode(GREY)
    content = b"eXIf" + exif(6).tobytes().removeprefix(b"Exif\0\0")
    chunk = (len(content) - 4).to_bytes(4, "big") + content + imagecodecs.zlib_crc32(content).to_bytes(4, "big")
    (tmp_path / "x.png").write_bytes(data[:-12] + chunk + data[-12:])
    np.testing.assert_array_equal(read_volume(tmp_path / "x.png").array[0], np.rot90(GREY, -1))
