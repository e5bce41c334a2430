"""Intensities of objects: exact sums for every dtype, and NaN."""

import numpy as np
import pytest

from support.label_images import picture, pixels, table


def test_intensities():
    labels = picture("11.22")
    image = np.array([[[1, 2, 99, 3, 5]]], np.uint8)
    columns = table(labels, image=image)
    assert columns["intensity_sum_a"].tolist() == [3, 8]
    assert columns["intensity_sd_a"].tolist() == [0.5, 1]
    assert columns["intensity_mean_a"].tolist() == [1.5, 4]
    assert columns["intensity_max_a"].tolist() == [2, 5]


@pytest.mark.parametrize("dtype", ["?", "u1", "i1", ">u2", ">i4", "u4", "i8", "u8", "f2", ">f4", "f8", "g"])
@pytest.mark.parametrize("contiguous", [True, False])
def test_every_dtype(dtype, contiguous):
    labels = picture("11.2 1.22")
    image = pixels(labels.shape, 1, dtype)
    image = image if contiguous else np.asfortranarray(image)
    image.flags.writeable = False
    found = table(labels, image=image)
    for k in (1, 2):
        values = image[0][labels == k].astype(float)
        assert found["intensity_sum_a"][k - 1] == values.sum()
        assert found["intensity_max_a"][k - 1] == values.max()
        assert found["intensity_sd_a"][k - 1] == pytest.approx(values.std(), rel=1e-12)


def test_sums_of_large_integers_are_exact():
    labels = picture("1111")
    image = np.array([[[2**40 + 1, 2**40 + 3, 2**52, 1]]], np.int64)
    assert table(labels, image=image)["intensity_sum_a"].item() == 2**41 + 5 + 2**52


def test_sums_beyond_64_bits_are_rounded_and_do_not_overflow():
    labels = picture("1111")
    for dtype, value in ((np.uint64, 2**63), (np.int64, -(2**62))):
        image = np.full((1, 1, 4), value, dtype)
        assert table(labels, image=image)["intensity_sum_a"].item() == 4.0 * value


@pytest.mark.parametrize("values", [[1, -(2**62), -(2**62), -(2**62)], [-1, 2**62, 2**62, 2**62]])
def test_sums_of_mixed_signs_do_not_overflow(values):
    found = table(picture("1111"), image=np.array([[values]], np.int64))
    assert found["intensity_sum_a"].item() == float(sum(values))


@pytest.mark.parametrize("place", [0, 1, 2])
def test_nan_gives_nan(place):
    labels = picture("111 .2.")
    image = np.array([[[1, 2, 3], [4, 5, 6]]], np.float32)
    image[0, 0, place] = np.nan
    found = table(labels, image=image)
    for name, expected in {"mean": 5, "max": 5, "sum": 5, "sd": 0}.items():
        assert np.isnan(found[f"intensity_{name}_a"][0])
        assert found[f"intensity_{name}_a"][1] == expected


def test_a_small_deviation_of_large_values_is_exact():
    image = np.array([[[2**52, 2**52 + 2]]], np.int64)
    assert table(picture("11"), image=image)["intensity_sd_a"].item() == 1
    assert table(picture("11"), image=np.array([[[1e9, 1e9 + 1]]]))["intensity_sd_a"].item() == 0.5


def test_negative_values_have_a_negative_maximum():
    assert table(picture("1.1"), image=np.array([[[-3, 0, -2]]], np.int16))["intensity_max_a"].item() == -2


def test_confidence_column_is_optional():
    labels = picture("1.2")
    assert table(labels, confidence=np.array([0.25, 0.5]))["confidence"].tolist() == [0.25, 0.5]
    assert "confidence" not in table(labels)
