"""Quality warnings: images that raise one and images that do not, and the figure in each warning."""

import numpy as np
import pytest
from scipy import ndimage

from biounet.api import volume_from_array
from biounet.core import Grid, NormaliseSettings, NoteCode, Volume
from biounet.measurement import (
    Table,
    TrainingReference,
    label_statistics,
    looks_like_training,
    measure_objects,
    quality_warnings,
    table_statistics,
)
from biounet.preprocessing import distinct_textures, image_statistics, scale_intensities, training_ranges
from support.images import discs

NO_OBJECTS = Table("classes", {"label": np.empty(0, int)})


def field(seed=0, radius=(6, 9)):
    image, labels = discs((128, 128), 20, seed, radius)
    return image[None], labels


def statistics(image):
    return image_statistics(volume_from_array(image, image.ndim - 1), scale_intensities(image, NormaliseSettings()))


def training_data(many, **named):
    return TrainingReference(training_ranges(many), distinct_textures(many), **named)


def table(diameter=15.0, n=10, at_border=0, unsure=0):
    columns = {
        "label": np.arange(1, n + 1),
        "area_px": np.full(n, np.pi * diameter**2 / 4),
        "touches_border": np.arange(n) < at_border,
        "confidence": np.where(np.arange(n) < unsure, 0.6, 0.95),
    }
    return Table("objects", columns)


STATISTICS = [statistics(field(seed)[0]) | {"diameter": 10.0 + seed, "at_border": 0.1} for seed in range(11)]
TRAINING = training_data(STATISTICS, low_confidence=0.7)
NO_DATA = TrainingReference({}, (), 0.7)


def warnings(image, columns=NO_OBJECTS, training=TRAINING):
    return quality_warnings(statistics(image), columns, training)


def test_no_warning_for_an_image_like_the_training_images():
    assert warnings(field(50)[0], table()) == []


@pytest.mark.parametrize("sigma", [3, 6])
@pytest.mark.parametrize("noise", [0, 20])
def test_blurred(sigma, noise):
    image = ndimage.gaussian_filter(field(50)[0].astype(float), (0, sigma, sigma))
    image += np.random.default_rng(0).normal(0, noise, image.shape)
    (note,) = warnings(image.astype(np.float32))
    assert note.startswith("blurred: edges of ")
    assert "the training image most like it has" in note
    assert note.code is NoteCode.BLURRED


@pytest.mark.parametrize(("factor", "word"), [(6, "coarse"), (1 / 6, "fine")])
def test_another_magnification(factor, word):
    image = np.tile(field(50)[0], (1, 1, 1) if factor > 1 else (1, 6, 6)).astype(float)
    (text,) = warnings(ndimage.zoom(image, (1, factor, factor), order=1).astype(np.float32))
    assert text.startswith(word)


@pytest.mark.parametrize("number", [1, 2, 3, 5, 11])
def test_training_images_raise_no_warning(number):
    """Law: what a training image had raises no warning, and a few images do not span what good images can have."""
    spoilt = [ndimage.gaussian_filter(field(1)[0].astype(float), (0, 6, 6)), 4000.0 - field(2)[0]]
    for images in ([field(seed)[0] for seed in range(number)], [*spoilt, *(field(seed)[0] for seed in range(number))]):
        many = [statistics(image.astype(np.float32)) for image in images]
        training = training_data(many)
        assert [quality_warnings(one, NO_OBJECTS, training) for one in many] == [[]] * len(many)
    if number <= 3:
        others = [discs((128, 128), 12, seed, (8, 12))[0][None] for seed in range(3)]
        assert not any(warnings(other, training=training_data(STATISTICS[:number])) for other in others)


@pytest.mark.parametrize("number", [2, 3, 5, 20, 400])
def test_ranges_of_fewer_images_are_wider(number):
    sizes = np.exp(np.random.default_rng(0).normal(2, 0.3, number))
    low, high = training_ranges([{"diameter": size} for size in sizes])["diameter"]
    assert low <= sizes.min() <= sizes.max() <= high
    assert np.log(sizes.min() / low) == pytest.approx(np.log(high / sizes.max()))
    if number == 400:
        assert high / sizes.max() < 1.02
    elif number <= 5:
        assert high / sizes.max() > 1.3


def test_statistics_ignore_noise_and_scale():
    image = field(50)[0].astype(np.float32)
    plain = statistics(image)
    assert statistics(7 * image + 300) == pytest.approx(plain, rel=1e-3)
    noisy = statistics(image + np.random.default_rng(0).normal(0, 80, image.shape).astype(np.float32))
    assert noisy["edge"] == pytest.approx(plain["edge"], rel=0.25)
    assert noisy["structure"] == pytest.approx(plain["structure"], rel=0.25)


def test_statistics_ignore_areas_that_were_not_acquired():
    image = field(50)[0]
    mosaic = np.zeros((1, 300, 330), image.dtype)
    mosaic[:, :128, 200:328] = image
    assert statistics(mosaic) == pytest.approx(statistics(image), rel=0.1)
    assert warnings(mosaic, table()) == []


def test_mostly_bright():
    image = field(50)[0]
    (text,) = warnings(image.max() - image)
    assert text.startswith("mostly bright: mean 0.")


def test_blank():
    noise = np.random.default_rng(0).normal(500, 20, (1, 96, 96)).astype(np.float32)
    (note,) = warnings(noise, training=NO_DATA)
    assert note.startswith("blank: what is bright stands out from the noise by 5.")
    assert note.code is NoteCode.BLANK
    constant = np.full((1, 96, 96), 7, np.uint8)
    assert warnings(constant) == []  # a note of the reader


@pytest.mark.parametrize(("top", "dtype"), [(255, np.uint8), (4095, np.uint16), (65535, np.uint16)])
def test_saturated(top, dtype):
    image = (field(50)[0].clip(0, 900) / 900 * top).astype(dtype)
    share = (image == top).mean()
    assert f"saturated: {share:.1%} of the pixels have the highest value, {top}" in warnings(image)
    assert not any("saturated" in text for text in warnings((image // 2).astype(dtype)))


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
    assert warnings(field(50)[0], columns) == [text]
    few = Table("objects", {name: values[:4] for name, values in columns.columns.items()})
    assert warnings(field(50)[0], few) == []  # too few objects


def test_object_sizes_are_compared_at_the_working_zoom():
    image = field(50)[0]
    (text,) = quality_warnings(statistics(image), table(diameter=15), TRAINING, 4.0)
    assert text.startswith("large objects: 60.0 pixels")


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 3), (1, 1, 400), (1, 3, 20, 20)])
def test_any_shape(shape):
    image = np.random.default_rng(0).integers(0, 200, shape).astype(np.uint8)
    assert isinstance(warnings(image), list)


def test_a_card_without_ranges_raises_no_comparison():
    image = ndimage.gaussian_filter(field(50)[0].astype(np.float32), (0, 3, 3))
    assert warnings(image, table(diameter=90), NO_DATA) == []


def scan(seed, contrast=1, step=(1.0, 1.0, 1.0), shape=(30, 40, 36)):
    """A head: a bright middle in darker tissue, with noise; 0 around it."""
    draw = np.random.default_rng(seed)
    far = np.linalg.norm(np.stack(np.indices(shape)).reshape(3, -1).T / np.array(shape) - 0.5, axis=1).reshape(shape)
    inside = far < 0.42 + draw.uniform(-0.02, 0.02)
    image = np.where(far < 0.25, 300, 200) * contrast + draw.normal(0, 20, shape)
    image = np.where(inside, image - image[inside].min() + 50, 0)
    return Volume(image[None].astype(np.float32), Grid(shape, step, "mm"))


def scan_statistics(volume):
    return image_statistics(volume, scale_intensities(volume.array, NormaliseSettings(method="zscore")))


SCANS = [scan_statistics(scan(seed)) for seed in range(8)]


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
def test_scans(volume, words):
    found = quality_warnings(scan_statistics(volume), NO_OBJECTS, training_data(SCANS))
    assert len(found) == len(words), found
    assert all(word in text for word, text in zip(words, found, strict=True))


def test_scans_have_no_microscopy_statistics():
    volume = scan(0)
    blurred = ndimage.gaussian_filter(volume.array, (0, 3, 3, 3))
    assert not scan_statistics(Volume(blurred, volume.grid)).keys() & STATISTICS[0].keys()


RANGES = {
    "brightness": (0.2, 0.4),
    "voxel_x": (1.0, 2.0),
    "view_z": (100.0, 200.0),
    "core_0": (-0.5, 0.5),
    "skew_1": (0.0, 2.0),
    "contrast": (6.0, 50.0),
    "saturated": (0.0, 0.05),
    "hot": (0.0, 0.002),
    "at_border": (0.0, 0.6),
    "unsure": (0.0, 0.4),
}


@pytest.mark.parametrize(
    ("name", "within", "beyond", "code"),
    [
        ("brightness", 0.1401, 0.1399, NoteCode.BRIGHTNESS),
        ("brightness", 0.571, 0.572, NoteCode.BRIGHTNESS),
        ("voxel_x", 0.701, 0.699, NoteCode.VOXEL_SIZE),
        ("voxel_x", 2.857, 2.858, NoteCode.VOXEL_SIZE),
        ("view_z", 70.1, 69.9, NoteCode.FIELD_OF_VIEW),
        ("view_z", 285.7, 285.8, NoteCode.FIELD_OF_VIEW),
        ("core_0", -0.75, -0.76, NoteCode.CONTRAST),
        ("core_0", 0.75, 0.76, NoteCode.CONTRAST),
        ("skew_1", -0.25, -0.26, NoteCode.CONTRAST),
        ("contrast", 6.0, 5.99, NoteCode.BLANK),
        ("saturated", 0.0504, 0.0506, NoteCode.SATURATED),
        ("hot", 0.00201, 0.00203, NoteCode.HOT_PIXELS),
    ],
)
def test_limits_of_the_training_range(name, within, beyond, code):
    training = TrainingReference(RANGES)
    assert quality_warnings({name: within, "top": 255.0}, NO_OBJECTS, training) == []
    (note,) = quality_warnings({name: beyond, "top": 255.0}, NO_OBJECTS, training)
    assert note.code is code


@pytest.mark.parametrize(
    ("name", "good", "bad", "code"),
    [
        ("contrast", 7.0, 6.99, NoteCode.BLANK),
        ("saturated", 0.0099, 0.01, NoteCode.SATURATED),
        ("hot", 0.99e-4, 1e-4, NoteCode.HOT_PIXELS),
    ],
)
def test_limits_without_training_ranges(name, good, bad, code):
    assert quality_warnings({name: good, "top": 255.0}, NO_OBJECTS, NO_DATA) == []
    (note,) = quality_warnings({name: bad, "top": 255.0}, NO_OBJECTS, NO_DATA)
    assert note.code is code


@pytest.mark.parametrize(("ranges", "at_border", "unsure"), [({}, 5, 3), (RANGES, 6, 4)])
def test_limits_of_objects(ranges, at_border, unsure):
    training = TrainingReference(ranges, (), 0.7)
    assert quality_warnings({}, table(at_border=at_border, unsure=unsure), training) == []
    found = quality_warnings({}, table(at_border=at_border + 1, unsure=unsure + 1), training)
    assert [note.code for note in found] == [NoteCode.AT_BORDER, NoteCode.LOW_CONFIDENCE]
    exactly = Table("objects", table().columns | {"confidence": np.full(10, 0.7)})
    assert quality_warnings({}, exactly, training) == []


def test_five_objects_are_enough():
    training = TrainingReference({"diameter": (10.0, 20.0)}, (), 0.7)
    codes = [note.code for note in quality_warnings({}, table(diameter=41, n=5, at_border=5, unsure=5), training)]
    assert codes == [NoteCode.OBJECT_SIZE, NoteCode.AT_BORDER, NoteCode.LOW_CONFIDENCE]
    assert quality_warnings({}, table(diameter=41, n=4, at_border=4, unsure=4), training) == []


@pytest.mark.parametrize(
    ("diameter", "words"), [(9.9, "small objects: 9.9"), (10.1, ""), (39, ""), (41, "large objects: 41")]
)
def test_diameters_of_objects_in_volumes(diameter, words):
    columns = {"label": np.arange(1, 7), "volume_px": np.full(6, np.pi / 6 * diameter**3)}
    columns |= {"touches_border": np.zeros(6, bool), "confidence": np.ones(6)}
    found = quality_warnings({}, Table("objects", columns), TrainingReference({"diameter": (10.0, 20.0)}))
    assert (len(found), "".join(found).startswith(words)) == (bool(words), True)


@pytest.mark.parametrize(
    ("edge", "structure", "detail", "word"),
    [
        (1, 0, 0, "blurred:"),
        (0, 0, 1, "blurred:"),
        (1, 1, 0, "blurred:"),
        (0, 1, 0, "coarse:"),
        (1, 2, 0, "coarse:"),
        (-1, 0, 0, "sharp or noisy:"),
        (0, 0, -1, "sharp or noisy:"),
        (-1, -1, -1, "fine or noisy:"),
        (0, -1, 0, "fine or noisy:"),
    ],
)
def test_words_for_texture(edge, structure, detail, word):
    training = TrainingReference({"unlikeness": (0.0, 0.99)}, [(0.0, 0.0, 0.0), (9.0, 9.0, 9.0)])
    texture = {"edge": np.exp(edge), "structure": np.exp(structure), "detail": np.exp(detail)}
    (note,) = quality_warnings(texture, NO_OBJECTS, training)
    assert note.startswith(f"{word} edges of {np.exp(edge):.1f} pixels")
    assert note.endswith("has 1.0, 1.0 and 1.0")
    assert quality_warnings(texture, NO_OBJECTS, training._replace(ranges={"unlikeness": (0.0, 3.0)})) == []


@pytest.mark.parametrize(("low", "limit"), [(8.0, 8.0), (15.0, 10.0), (30.0, 15.0)])
def test_objects_smaller_than_in_training_are_small_below_ten_pixels_or_half(low, limit):
    training = TrainingReference({"diameter": (low, 60.0)})
    assert quality_warnings({}, table(diameter=limit * 1.01), training) == []
    (note,) = quality_warnings({}, table(diameter=limit * 0.99), training)
    assert (note.code, note.figure) == (NoteCode.OBJECT_SIZE, pytest.approx(limit * 0.99))


def test_the_ranges_of_shares_hold_those_of_all_training_images():
    few = training_ranges([{"unsure": share} for share in (0.0, 0.2)])["unsure"]
    many = training_ranges([{"unsure": share} for share in [0.0, 0.2] * 50])["unsure"]
    assert few[1] > many[1] >= 0.2
    assert many[1] < 0.21


def test_what_depends_on_the_magnification_makes_an_image_look_unlike_the_training():
    training = TrainingReference({"diameter": (10.0, 20.0), "hot": (0.0, 0.0)}, (), 0.7)
    assert looks_like_training({"diameter": 15.0, "hot": 0.5, "at_border": 1.0}, training)
    assert not looks_like_training({"diameter": 45.0}, training)
    assert not looks_like_training({"unsure": 0.9}, training)


@pytest.mark.parametrize("dims", [2, 3])
def test_statistics_of_labels_are_those_of_their_table(dims):
    draw = np.random.default_rng(dims)
    labels = np.kron(np.arange(9).reshape((3, 3) if dims == 2 else (1, 3, 3)), np.ones((4,) * dims, int))
    confidence = draw.random(8)
    volume = draw.random((1, *labels.shape))
    whole = measure_objects(labels, volume, Grid(labels.shape), confidence, ("x",))
    found = table_statistics(whole, TrainingReference({"at_border": (0.0, 1.0)}, (), 0.5))
    assert label_statistics(labels, confidence, 0.5) == pytest.approx(found)
    assert set(found) == {"diameter", "at_border", "unsure"}


def test_most_objects_of_a_stack_may_touch_its_border_unless_those_of_the_training_did_not():
    columns = {"label": np.arange(1, 7), "volume_px": np.full(6, 500.0), "confidence": np.ones(6)}
    stack = Table("objects", columns | {"touches_border": np.ones(6, bool)})
    assert quality_warnings({}, stack, NO_DATA) == []
    (note,) = quality_warnings({}, stack, TrainingReference({"at_border": (0.0, 0.6)}))
    assert note.code is NoteCode.AT_BORDER
