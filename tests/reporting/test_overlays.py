"""Overlays: where outlines are, that neighbours differ in colour, and that the image stays visible."""

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
import tifffile
from hypothesis import given

from biounet.reporting import draw_overlay
from biounet.reporting.overlays import MAX_SIDE, palette

small = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)


def picture(*rows):
    """Return a label image from rows of digits; ``.`` is background."""
    return np.array([[int(letter.replace(".", "0")) for letter in row] for row in rows], np.int32)


def coloured(labels, **options):
    """Return where an overlay on black is coloured, as text."""
    drawn = draw_overlay(np.zeros((1, *labels.shape), np.uint8), labels, **options).any(axis=2)
    return tuple("".join(".#"[int(pixel)] for pixel in row) for row in drawn)


# What remains of linear RGB: Machado, Oliveira and Fernandes 2009, "A physiologically-based model for simulation of
# color vision deficiency", severity 1.
DICHROMATS = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


def linear(rgb):
    part = np.asarray(rgb) / 255
    return np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)


def luminance(rgb):
    """Relative luminance of sRGB, as in WCAG 2."""
    return linear(rgb) @ [0.2126, 0.7152, 0.0722]


def oklab(light):
    """Convert linear RGB to a space with perceptual distances."""
    cones = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    axes = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    return np.cbrt(np.clip(light, 0, 1) @ np.transpose(cones)) @ np.transpose(axes)


class TestOutlines:
    def test_outlines_are_one_pixel_wide_and_inside_the_object(self):
        assert coloured(picture("......", ".1111.", ".1111.", ".1111.", "......")) == (
            "......", ".####.", ".#..#.", ".####.", "......",
        )  # fmt: skip

    def test_the_edge_of_the_image_closes_outlines(self):
        assert coloured(picture("1111", "1111", "1111")) == ("####", "#..#", "####")

    def test_touching_objects_have_an_outline_each(self):
        labels = picture("11112222").repeat(4, axis=0)
        drawn = draw_overlay(np.zeros((1, 4, 8), np.uint8), labels)
        assert drawn[1, 3].tolist() == palette()[0].tolist()
        assert drawn[1, 4].tolist() == palette()[1].tolist()
        assert not drawn[1, 1].any()

    def test_values_below_one_are_background(self):
        assert coloured(np.array([[-1, 0, 1]], np.int32)) == ("..#",)

    @given(small.flatmap(lambda shape: hnp.arrays(np.int32, shape, elements=st.integers(0, 3))))
    def test_outline_pixels_have_a_4_neighbour_of_another_label(self, labels):
        padded = np.pad(labels, 1)
        beside = [padded[1:-1, :-2], padded[1:-1, 2:], padded[:-2, 1:-1], padded[2:, 1:-1]]
        outline = (labels > 0) & np.any([other != labels for other in beside], axis=0)
        drawn = draw_overlay(np.zeros((1, *labels.shape), np.uint8), labels)
        expected = np.where(outline[..., None], palette()[labels - 1], 0)
        np.testing.assert_array_equal(drawn, expected)

    def test_fill_is_blended_with_the_image(self):
        labels = np.ones((5, 5), np.int32)
        drawn = draw_overlay(np.zeros((1, 5, 5), np.uint8), labels, fill=0.5)
        np.testing.assert_allclose(drawn[2, 2], palette()[0] / 2, atol=0.51)
        assert drawn[0, 0].tolist() == palette()[0].tolist()


class TestColours:
    @pytest.mark.parametrize(("bright", "ground"), [(False, 0), (True, 255)])
    def test_contrast_with_the_background(self, bright, ground):
        one, other = luminance(palette(bright=bright)), luminance([ground] * 3)
        contrast = (np.maximum(one, other) + 0.05) / (np.minimum(one, other) + 0.05)
        assert contrast.min() >= 3  # WCAG 2.2, success criterion 1.4.11 for graphics

    @pytest.mark.parametrize("bright", [False, True])
    @pytest.mark.parametrize("kind", DICHROMATS)
    def test_consecutive_colours_differ_with_colour_vision_deficiency(self, bright, kind):
        colours = oklab(linear(palette(bright=bright)) @ np.transpose(DICHROMATS[kind]))
        assert np.linalg.norm(colours - np.roll(colours, -1, axis=0), axis=1).min() > 0.03  # 0.02 is just noticeable

    @pytest.mark.parametrize("bright", [False, True])
    @pytest.mark.parametrize("apart", [1, 2, 3, 4, 5])
    def test_close_labels_have_different_colours(self, bright, apart):
        colours = oklab(linear(palette(bright=bright)))
        assert np.linalg.norm(colours - np.roll(colours, -apart, axis=0), axis=1).min() > 0.04

    def test_bright_images_have_dark_outlines(self):
        labels = picture(".......", "..111..", "..111..", "..111..", ".......")
        image = np.full((1, *labels.shape), 200, np.uint8)
        image[0, 0, :3], image[0, 2, 3] = 250, 10
        drawn = draw_overlay(image, labels)
        assert drawn[1, 2].tolist() == palette(bright=True)[0].tolist()


class TestImage:
    def test_contrast_is_stretched(self):
        image = np.linspace(1000, 1100, 400, dtype=np.float32).reshape(1, 20, 20)
        drawn = draw_overlay(image, np.zeros((20, 20), np.int32))
        assert (drawn.min(), drawn.max()) == (0, 255)
        assert (np.diff(drawn[:, :, 0].ravel().astype(int)) >= 0).all()
        assert (drawn == drawn[:, :, :1]).all()

    @pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int16, np.uint16, np.float16, np.float64, ">u2"])
    def test_intensity_dtypes(self, dtype):
        image = np.array([[[0, 1], [1, 1]]]).astype(dtype)
        assert draw_overlay(image, np.zeros((2, 2), np.int32))[:, :, 0].tolist() == [[0, 255], [255, 255]]

    def test_three_channels_are_rgb(self):
        image = np.zeros((3, 2, 2), np.uint8)
        image[0, 0, 0] = image[1, 0, 1] = image[2, 1, 0] = 255
        drawn = draw_overlay(image, np.zeros((2, 2), np.int32))
        assert drawn.tolist() == [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [0, 0, 0]]]

    @pytest.mark.parametrize("level", [0.0, 7.0, np.nan, np.inf])
    def test_images_without_contrast(self, level):
        drawn = draw_overlay(np.full((1, 4, 4), level, np.float32), picture("1...").repeat(4, axis=0))
        assert drawn[:, 0].any(axis=1).all()

    @pytest.mark.parametrize(("value", "level"), [(np.nan, 0), (-np.inf, 0), (np.inf, 255)])
    def test_non_finite_pixels_do_not_change_the_others(self, value, level):
        image = np.arange(16, dtype=np.float32).reshape(1, 4, 4)
        image[0, 0, 1] = value
        drawn = draw_overlay(image, np.zeros((4, 4), np.int32))
        assert drawn[0, 1].tolist() == [level] * 3
        assert drawn[0, 0].tolist() == [0] * 3
        assert drawn[3, 3].tolist() == [255] * 3
        assert 0 < drawn[1, 3, 0] < 255

    def test_inputs_are_not_modified(self):
        image, labels = np.arange(16, dtype=np.uint8).reshape(1, 4, 4), np.ones((4, 4), np.int32)
        image.flags.writeable = labels.flags.writeable = False  # writing to them would raise
        assert draw_overlay(image, labels, fill=0.5).shape == (4, 4, 3)


class TestSize:
    def test_large_images_are_downscaled_with_thin_outlines(self):
        labels = np.zeros((40, MAX_SIDE + 1), np.int32)
        labels[8:32, 100:200] = 1
        drawn = draw_overlay(np.zeros((1, *labels.shape), np.uint8), labels)
        assert drawn.shape == (20, MAX_SIDE // 2 + 1, 3)
        found = drawn.any(axis=2)
        assert found.sum() == 2 * 50 + 2 * 12 - 4
        assert found[4, 50:100].all()

    def test_images_of_the_maximum_size_are_not_downscaled(self):
        labels = np.zeros((1, MAX_SIDE), np.int32)
        assert draw_overlay(np.zeros((1, 1, MAX_SIDE), np.uint8), labels).shape == (1, MAX_SIDE, 3)


class TestErrors:
    def test_shapes_must_match(self):
        with pytest.raises(ValueError, match=r"\(2, 3\).*\(1, 3, 2\)"):
            draw_overlay(np.zeros((1, 3, 2)), np.zeros((2, 3), np.int32))

    @pytest.mark.parametrize("fill", [-0.1, 1.1, float("nan")])
    def test_fill_must_be_an_opacity(self, fill):
        with pytest.raises(ValueError, match="opacity"):
            draw_overlay(np.zeros((1, 2, 2)), np.zeros((2, 2), np.int32), fill=fill)


def test_real_nuclei_are_outlined(shared_data):
    folder = shared_data / "nuclei2d" / "val"
    path = sorted((folder / "images").iterdir())[0]
    image, labels = tifffile.imread(path), tifffile.imread(folder / "labels" / path.name).astype(np.int32)
    drawn = draw_overlay(image[None], labels)
    colour = np.ptp(drawn.astype(int), axis=2) > 0
    assert drawn.shape == (*labels.shape, 3)
    assert not colour[labels == 0].any()
    assert set(np.unique(labels[colour])) == set(np.unique(labels)) - {0}
