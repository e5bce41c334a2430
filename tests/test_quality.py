"""Remarks: pictures that need one and pictures that do not; the figure that raised it stands in each."""

import numpy as np
import pytest
from scipy import ndimage

from biounet.normalise import normalise
from biounet.quality import looks_of, ranges_of, remarks_on
from biounet.recipe import NormaliseSettings
from conftest import discs

NOTHING = {"label": np.empty(0, int)}


def field(seed=0, radius=(6, 9)):
    image, labels = discs((128, 128), 20, seed, radius)
    return image[None], labels


def scaled(image):
    return normalise(image, NormaliseSettings())


def table(diameter=15.0, n=10, at_border=0, unsure=0):
    return {
        "label": np.arange(1, n + 1),
        "area_px": np.full(n, np.pi * diameter**2 / 4),
        "touches_border": np.arange(n) < at_border,
        "confidence": np.where(np.arange(n) < unsure, 0.6, 0.95),
    }


SEEN = ranges_of([looks_of(scaled(field(seed)[0])) | {"diameter": 10.0 + seed} for seed in range(11)])


def remarks(image, columns=NOTHING, seen=SEEN):
    return remarks_on(image, scaled(image), columns, 1.0, seen, 0.7)


def test_an_image_like_those_of_training_has_no_remark():
    assert remarks(field(50)[0], table()) == []
    assert SEEN["diameter"] == pytest.approx((10.2, 19.8))


def test_blurred():
    image = ndimage.gaussian_filter(field(50)[0].astype(float), (0, 3, 3))
    noisy = image + np.random.default_rng(0).normal(0, 20, image.shape)
    for picture in (image, noisy):
        (text,) = remarks(picture.astype(np.float32))
        assert text.startswith("blurred: sharpness 0.")
        assert "trained on" in text


def test_noise_is_not_sharpness_and_scale_changes_nothing():
    image = field(50)[0].astype(np.float32)
    plain = looks_of(scaled(image))
    assert looks_of(scaled(7 * image + 300)) == pytest.approx(plain, rel=1e-3)
    noisy = image + np.random.default_rng(0).normal(0, 80, image.shape).astype(np.float32)
    assert looks_of(scaled(noisy))["sharpness"] == pytest.approx(plain["sharpness"], rel=0.25)


def test_mostly_bright():
    image = field(50)[0]
    (text,) = remarks(image.max() - image)
    assert text.startswith("mostly bright: mean 0.")


def test_blank():
    noise = np.random.default_rng(0).normal(500, 20, (1, 96, 96)).astype(np.float32)
    assert any(text.startswith("blank: what is bright stands out from the noise by 5.") for text in remarks(noise))
    constant = np.full((1, 96, 96), 7, np.uint8)
    assert remarks(constant) == []  # the reader says so


@pytest.mark.parametrize(("top", "dtype"), [(255, np.uint8), (4095, np.uint16), (65535, np.uint16)])
def test_saturated(top, dtype):
    image = (field(50)[0].clip(0, 900) / 900 * top).astype(dtype)
    share = (image == top).mean()
    assert f"saturated: {share:.1%} of the pixels have the highest value, {top}" in remarks(image)
    assert not any("saturated" in text for text in remarks((image // 2).astype(dtype)))


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        (table(diameter=50), "large objects: 50.0 pixels across, trained on 10.2 to 19.8"),
        (table(diameter=4), "small objects: 4.0 pixels across, trained on 10.2 to 19.8"),
        (table(at_border=6), "60% of the objects touch the border"),
        (table(unsure=4), "40% of the objects have a confidence below 0.70, as wrong ones have"),
    ],
)
def test_objects(columns, text):
    assert remarks(field(50)[0], columns) == [text]
    few = {name: values[:4] for name, values in columns.items()}
    assert remarks(field(50)[0], few) == []  # of four objects nobody can say


def test_zoom_is_taken_into_account():
    image = field(50)[0]
    (text,) = remarks_on(image, scaled(image), table(diameter=15), 4.0, SEEN)
    assert text.startswith("large objects: 60.0 pixels")


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 3), (1, 1, 400), (1, 3, 20, 20)])
def test_any_shape(shape):
    image = np.random.default_rng(0).integers(0, 200, shape).astype(np.uint8)
    assert isinstance(remarks(image), list)


def test_a_card_that_says_nothing_compares_nothing():
    image = ndimage.gaussian_filter(field(50)[0].astype(np.float32), (0, 3, 3))
    assert remarks(image, table(diameter=90), {}) == []
