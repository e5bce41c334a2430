"""Mean and standard deviation are exact, however many numbers there are."""

import numpy as np
import pytest

from biounet.preprocessing.exact_moments import Moments


@pytest.mark.parametrize("times", [1, 2**30, 2**37, 2**45])
def test_numbers_may_occur_as_often_as_there_are_voxels_in_any_image(times):
    moments = Moments(1.0)
    for value in (3.0, 1.0, -2.0, -2.0):
        moments.add(np.array([value]), times)
    assert (moments.count, moments.mean) == (4 * times, 0.0)
    assert moments.deviation == pytest.approx(np.sqrt(4.5), abs=1e-15)


def test_numbers_may_come_in_as_many_pieces_as_there_are_in_any_image():
    whole, pieces = Moments(0.0), Moments(0.0)
    values = np.array([5.0, -3.0])
    whole.add(values, 2**40)
    for _ in range(2**4):
        pieces.add(values, 2**36)
    assert (pieces.mean, pieces.deviation) == (whole.mean, whole.deviation) == (1.0, 4.0)
