"""Regions of an image, read in its own or in the canonical orientation, are those of the array."""

from itertools import product

import numpy as np
import pytest

from biounet.core import ArrayImage, CanonicalImage, Grid, Volume, canonical_region, canonical_volume, stored_region


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SRA", "PIL"])
def test_a_region_of_the_canonical_image_is_that_of_the_canonical_volume(codes):
    array = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    volume = Volume(array, Grid((3, 4, 5), (1.0, 2.0, 3.0), "mm", axcodes=codes))
    whole, lazy = canonical_volume(volume), CanonicalImage.of(ArrayImage.of(volume))
    assert lazy.grid == whole.grid
    assert lazy.read(tuple(slice(0, n) for n in whole.grid.shape)).tolist() == whole.array.tolist()
    for region in product(*([slice(0, n), slice(1, n - 1)] for n in whole.grid.shape)):
        assert lazy.read(region).tolist() == whole.array[(slice(None), *region)].tolist()
        assert canonical_region(stored_region(region, volume.grid), volume.grid) == region


def test_channels_to_measure_are_regions_too():
    measured = {"gfp": np.arange(12, dtype=np.uint8).reshape(3, 4)}
    image = ArrayImage.of(Volume(np.zeros((1, 3, 4)), Grid((3, 4)), measured=measured))
    assert image.measured == {"gfp": np.uint8}
    assert image.read_measured((slice(1, 2), slice(2, 4)))["gfp"].tolist() == [[6, 7]]
