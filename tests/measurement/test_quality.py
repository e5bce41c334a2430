"""Remarks: pictures that need one and pictures that do not; the figure that raised it stands in each."""

import numpy as np
import pytest
from scipy import ndimage

from biounet.api import volume_from_array
from biounet.core import Grid, NormaliseSettings, Volume
from biounet.measurement import Table, TrainingData, quality_warnings
from biounet.preprocessing import distinct_textures, image_statistics, scale_intensities, training_ranges
from support.images import discs

NOTHING = Table("classes", {"label": np.empty(0, int)})


def field(seed=0, radius=(6, 9)):
    image, labels = discs((128, 128), 20, seed, radius)
    return image[None], labels


def looks(image):
    return image_statistics(volume_from_array(image, image.ndim - 1), scale_intensities(image, NormaliseSettings()))


def known_of(many, **named):
    return TrainingData(training_ranges(many), distinct_textures(many), **named)


def table(diameter=15.0, n=10, at_border=0, unsure=0):
    columns = {
        "label": np.arange(1, n + 1),
        "area_px": np.full(n, np.pi * diameter**2 / 4),
        "touches_border": np.arange(n) < at_border,
        "confidence": np.where(np.arange(n) < unsure, 0.6, 0.95),
    }
    return Table("objects", columns)


LOOKS = [looks(field(seed)[0]) | {"diameter": 10.0 + seed, "at_border": 0.1} for seed in range(11)]
KNOWN = known_of(LOOKS, low_confidence=0.7)
NOBODY = TrainingData({}, (), 0.7)


def remarks(image, columns=NOTHING, known=KNOWN):
    return quality_warnings(looks(image), columns, known)


def test_an_image_like_those_of_training_has_no_remark():
    assert remarks(field(50)[0], table()) == []


@pytest.mark.parametrize("sigma", [3, 6])
@pytest.mark.parametrize("noise", [0, 20])
def test_blurred(sigma, noise):
    image = ndimage.gaussian_filter(field(50)[0].astype(float), (0, sigma, sigma))
    image += np.random.default_rng(0).normal(0, noise, image.shape)
    (text,) = remarks(image.astype(np.float32))
    assert text.startswith("blurred: edges of ")
    assert "the training image most like it has" in text


@pytest.mark.parametrize(("factor", "word"), [(6, "coarse"), (1 / 6, "fine")])
def test_another_magnification(factor, word):
    image = np.tile(field(50)[0], (1, 1, 1) if factor > 1 else (1, 6, 6)).astype(float)
    (text,) = remarks(ndimage.zoom(image, (1, factor, factor), order=1).astype(np.float32))
    assert text.startswith(word)


@pytest.mark.parametrize("number", [1, 2, 3, 5, 11])
def test_no_training_image_is_flagged_and_few_images_say_little(number):
    """Law: whatever a training image had is no remark, and what few images had is not all that good images can have."""
    spoilt = [ndimage.gaussian_filter(field(1)[0].astype(float), (0, 6, 6)), 4000.0 - field(2)[0]]
    for images in ([field(seed)[0] for seed in range(number)], [*spoilt, *(field(seed)[0] for seed in range(number))]):
        many = [looks(image.astype(np.float32)) for image in images]
        known = known_of(many)
        assert [quality_warnings(one, NOTHING, known) for one in many] == [[]] * len(many)
    if number <= 3:
        others = [discs((128, 128), 12, seed, (8, 12))[0][None] for seed in range(3)]
        assert not any(remarks(other, known=known_of(LOOKS[:number])) for other in others)


@pytest.mark.parametrize("number", [2, 3, 5, 20, 400])
def test_ranges_are_wider_the_fewer_images_there_are(number):
    sizes = np.exp(np.random.default_rng(0).normal(2, 0.3, number))
    low, high = training_ranges([{"diameter": size} for size in sizes])["diameter"]
    assert low <= sizes.min() <= sizes.max() <= high
    assert np.log(sizes.min() / low) == pytest.approx(np.log(high / sizes.max()))
    if number == 400:
        assert high / sizes.max() < 1.02
    elif number <= 5:
        assert high / sizes.max() > 1.3


def test_noise_is_not_sharpness_and_scale_changes_nothing():
    image = field(50)[0].astype(np.float32)
    plain = looks(image)
    assert looks(7 * image + 300) == pytest.approx(plain, rel=1e-3)
    noisy = looks(image + np.random.default_rng(0).normal(0, 80, image.shape).astype(np.float32))
    assert noisy["edge"] == pytest.approx(plain["edge"], rel=0.25)
    assert noisy["structure"] == pytest.approx(plain["structure"], rel=0.25)


def test_what_was_never_acquired_is_no_look():
    image = field(50)[0]
    mosaic = np.zeros((1, 300, 330), image.dtype)
    mosaic[:, :128, 200:328] = image
    assert looks(mosaic) == pytest.approx(looks(image), rel=0.1)
    assert remarks(mosaic, table()) == []


def test_mostly_bright():
    image = field(50)[0]
    (text,) = remarks(image.max() - image)
    assert text.startswith("mostly bright: mean 0.")


def test_blank():
    noise = np.random.default_rng(0).normal(500, 20, (1, 96, 96)).astype(np.float32)
    known = NOBODY
    assert any(
        text.startswith("blank: what is bright stands out from the noise by 5.") for text in remarks(noise, known=known)
    )
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
        (table(diameter=60), "large objects: 60.0 pixels across, trained on 8.96 to 22.3"),
        (table(diameter=4), "small objects: 4.0 pixels across, trained on 8.96 to 22.3"),
        (table(at_border=6), "60% of the objects touch the border"),
        (table(unsure=4), "40% of the objects have a confidence below 0.70, as wrong ones have"),
    ],
)
def test_objects(columns, text):
    assert remarks(field(50)[0], columns) == [text]
    few = Table("objects", {name: values[:4] for name, values in columns.columns.items()})
    assert remarks(field(50)[0], few) == []  # of four objects nobody can say


def test_zoom_is_taken_into_account():
    image = field(50)[0]
    (text,) = quality_warnings(looks(image), table(diameter=15), KNOWN, 4.0)
    assert text.startswith("large objects: 60.0 pixels")


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 3), (1, 1, 400), (1, 3, 20, 20)])
def test_any_shape(shape):
    image = np.random.default_rng(0).integers(0, 200, shape).astype(np.uint8)
    assert isinstance(remarks(image), list)


def test_a_card_that_says_nothing_compares_nothing():
    image = ndimage.gaussian_filter(field(50)[0].astype(np.float32), (0, 3, 3))
    assert remarks(image, table(diameter=90), NOBODY) == []


def scan(seed, contrast=1, step=(1.0, 1.0, 1.0), shape=(30, 40, 36)):
    """A head: a bright middle in darker tissue, with noise; 0 around it."""
    draw = np.random.default_rng(seed)
    far = np.linalg.norm(np.stack(np.indices(shape)).reshape(3, -1).T / np.array(shape) - 0.5, axis=1).reshape(shape)
    inside = far < 0.42 + draw.uniform(-0.02, 0.02)
    image = np.where(far < 0.25, 300, 200) * contrast + draw.normal(0, 20, shape)
    image = np.where(inside, image - image[inside].min() + 50, 0)
    return Volume(image[None].astype(np.float32), Grid(shape, step, "mm"))


def scan_looks(volume):
    return image_statistics(volume, scale_intensities(volume.array, NormaliseSettings(method="zscore")))


SCANS = [scan_looks(scan(seed)) for seed in range(8)]


@pytest.mark.parametrize(
    ("volume", "words"),
    [
        (scan(50), ()),
        (
            scan(50, step=(4.0, 1.0, 1.0)),
            ("voxels of 4 mm from foot to head", "field of view of 120 mm from foot to head"),
        ),
        (scan(50, shape=(30, 110, 36)), ("a field of view of 110 mm from back to front",)),
        (scan(50, contrast=-1), ("another order of contrast in channel 0",) * 2),
    ],
)
def test_scans_have_the_remarks_of_radiology(volume, words):
    found = quality_warnings(scan_looks(volume), NOTHING, known_of(SCANS))
    assert len(found) == len(words), found
    assert all(word in text for word, text in zip(words, found, strict=True))


def test_a_scan_has_none_of_the_remarks_on_microscopy():
    volume = scan(0)
    blurred = ndimage.gaussian_filter(volume.array, (0, 3, 3, 3))
    assert not scan_looks(Volume(blurred, volume.grid)).keys() & LOOKS[0].keys()
