"""Slides as Aperio writes them: pixel size in the description, levels, and pictures of the label."""

import numpy as np
import pytest
import tifffile

from biounet.files import ReadOptions, open_lazy, read_volume

PIXELS = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
HEAD = "Aperio Image Library v12.0.15\r\n"


def write_slide(path, pixels=PIXELS, entries="AppMag = 40|MPP = 0.2500"):
    with tifffile.TiffWriter(path) as tif:
        how = {"photometric": "rgb", "metadata": None}
        tif.write(pixels, tile=(64, 64), description=f"{HEAD}400x300 (64x64)|{entries}", **how)
        tif.write(pixels[::4, ::4], description=f"{HEAD}400x300 -> 100x75|{entries}", **how)
        tif.write(pixels[::2, ::2], tile=(64, 64), description=f"{HEAD}400x300 (64x64) -> 200x150", **how)
        tif.write(pixels[:50, :50], description=f"{HEAD}label 50x50", subfiletype=1, **how)
        tif.write(pixels[:50, :90], description=f"{HEAD}macro 90x50", subfiletype=9, **how)


def test_a_slide_is_its_level_of_full_resolution_in_the_pixel_size_of_its_description(tmp_path):
    write_slide(tmp_path / "a.svs")
    volume, image = read_volume(tmp_path / "a.svs"), open_lazy(tmp_path / "a.svs")
    assert (image.grid.shape, image.grid.spacing, image.grid.unit) == ((300, 400), (0.25, 0.25), "um")
    assert (image.grid, image.notes) == (volume.grid, volume.notes)
    np.testing.assert_array_equal(
        image.read((slice(50, 200), slice(90, 310))), PIXELS[50:200, 90:310].transpose(2, 0, 1)
    )


@pytest.mark.parametrize("entries", ["AppMag = 40", "MPP = 0", "MPP = nan", "MPP = 0,25", "MPP", "MPP = 9e9"])
def test_a_slide_without_a_credible_pixel_size_has_none(tmp_path, entries):
    write_slide(tmp_path / "a.svs", entries=entries)
    image = open_lazy(tmp_path / "a.svs")
    assert image.grid.spacing is None
    assert any("pixel size unknown" in note for note in image.notes)


def test_a_grey_slide_is_read_as_grey(tmp_path):
    grey = np.repeat(PIXELS[..., :1], 3, -1)
    write_slide(tmp_path / "a.svs", grey)
    image = open_lazy(tmp_path / "a.svs", ReadOptions(inputs=1))
    np.testing.assert_array_equal(image.read((slice(0, 300), slice(0, 400))), grey[None, ..., 0])
