"""PNG and JPEG: every pixel type exactly, or an error."""

import io

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from biounet.core import InputError
from biounet.files import ReadOptions, inspect_volume, read_labels, read_volume, write_picture

RNG = np.random.default_rng(0)
GREY, COLOUR = RNG.integers(0, 256, (9, 7), np.uint8), RNG.integers(0, 256, (9, 7, 3), np.uint8)
DEEP, DEEP_COLOUR = RNG.integers(0, 65536, (9, 7), np.uint16), RNG.integers(0, 65536, (9, 7, 3), np.uint16)


def png(path, array):
    path.write_bytes(imagecodecs.png_encode(array))
    return path


def pil(path, image, **how):
    image.save(path, "PNG", **how)
    return path


@pytest.mark.parametrize("array", [GREY, COLOUR, DEEP, DEEP_COLOUR], ids=["grey", "RGB", "grey 16", "RGB 16"])
def test_png_pixels_are_exact(tmp_path, array):
    path = png(tmp_path / "x.png", array)
    expected = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, expected, strict=True)
    assert (inspect_volume(path).channels, inspect_volume(path).grid) == (volume.channels, volume.grid)
    assert volume.notes == ("pixel size unknown",)


def test_alpha_is_removed_and_noted(tmp_path):
    for array, channels in ((np.dstack([COLOUR, GREY]), 3), (np.dstack([GREY, GREY]), 1)):
        volume = read_volume(png(tmp_path / "x.png", array))
        assert volume.channels == channels
        assert "the alpha channel is left out" in volume.notes
    transparent = pil(tmp_path / "t.png", Image.fromarray(COLOUR), transparency=(0, 0, 0))
    np.testing.assert_array_equal(read_volume(transparent).array, COLOUR.transpose(2, 0, 1))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_pixels_of_few_bits_keep_their_values(tmp_path, bits):
    values = (np.arange(16).reshape(4, 4) % 2**bits).astype(np.uint8)
    rows = b"".join(b"\0" + np.packbits(np.unpackbits(row[:, None], axis=1)[:, -bits:]).tobytes() for row in values)
    stored = imagecodecs.png_encode(values)
    header = b"IHDR" + stored[16:24] + bytes([bits, 0, 0, 0, 0])
    chunks = [header, b"IDAT" + imagecodecs.zlib_encode(rows), b"IEND"]
    data = b"".join(len(c[4:]).to_bytes(4, "big") + c + imagecodecs.zlib_crc32(c).to_bytes(4, "big") for c in chunks)
    (tmp_path / "x.png").write_bytes(stored[:8] + data)
    np.testing.assert_array_equal(read_volume(tmp_path / "x.png").array[0], values)
    np.testing.assert_array_equal(read_labels(tmp_path / "x.png"), values)


@pytest.mark.parametrize("bits", [1, 8])
def test_a_palette_gives_colours_for_images_and_indices_for_labels(tmp_path, bits):
    image = Image.new("P", (2, 2))
    image.putdata([0, 1, 1, 0])
    image.putpalette([10, 20, 30, 200, 100, 0])
    path = pil(tmp_path / "x.png", image, bits=bits)
    np.testing.assert_array_equal(read_volume(path).array[:, 0], [[10, 200], [20, 100], [30, 0]])
    np.testing.assert_array_equal(read_labels(path), [[0, 1], [1, 0]])


def test_the_size_limit_is_that_of_the_options(tmp_path, monkeypatch):
    path = pil(tmp_path / "x.png", Image.fromarray(COLOUR).quantize(8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 8)
    assert read_labels(path).shape == (9, 7)
    with pytest.raises(InputError, match="limit"):
        read_volume(path, ReadOptions(limit=32))


@pytest.mark.parametrize("how", [{}, {"progressive": True}, {"subsampling": 0}], ids=str)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg_is_close_and_a_truncated_one_is_refused(tmp_path, mode, how):
    smooth = Image.fromarray(np.add.outer(np.arange(64), np.arange(80)).astype(np.uint8)).convert(mode)
    buffer = io.BytesIO()
    smooth.save(buffer, "JPEG", quality=95, comment=b"\xff\xd9 is the end marker", **how)
    path = tmp_path / "x.jpg"
    path.write_bytes(buffer.getvalue())
    volume = read_volume(path)
    assert volume.array.shape == (len(mode), 64, 80)
    assert np.abs(volume.array[0].astype(int) - np.asarray(smooth.convert("L"))).max() < 8
    assert inspect_volume(path).grid == volume.grid
    for share in (0.02, 0.2, 0.5, 0.9):
        path.write_bytes(buffer.getvalue()[: int(share * len(buffer.getvalue()))])
        with pytest.raises(InputError):
            read_volume(path)


def test_cmyk_is_refused(tmp_path):
    Image.new("CMYK", (4, 4)).save(tmp_path / "x.jpg")
    with pytest.raises(InputError, match="CMYK"):
        read_volume(tmp_path / "x.jpg")


def test_damaged_png_is_refused(tmp_path):
    whole = png(tmp_path / "x.png", COLOUR).read_bytes()
    for at in range(8, len(whole) - 12, 3):
        data = bytearray(whole)
        data[at] ^= 1
        (tmp_path / "x.png").write_bytes(data)
        with pytest.raises(InputError):
            read_volume(tmp_path / "x.png")
    for end in range(8, len(whole) - 12, 5):
        (tmp_path / "x.png").write_bytes(whole[:end])
        with pytest.raises(InputError):
            read_volume(tmp_path / "x.png")


def test_a_written_picture_is_read_back(tmp_path):
    write_picture(tmp_path / "x.png", COLOUR)
    np.testing.assert_array_equal(read_volume(tmp_path / "x.png").array, COLOUR.transpose(2, 0, 1))
    with Image.open(tmp_path / "x.png") as image:
        np.testing.assert_array_equal(np.asarray(image), COLOUR)
