"""An image that is read in parts has the intensities of the whole one, bit for bit."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biounet.api import volume_from_array
from biounet.core import ArrayImage, DataSettings, NormaliseSettings, Stop, Stopped
from biounet.preprocessing import IntensityScale, find_scale, scale_intensities, scale_region

CLASSES = DataSettings(kind="classes", classes=("lesion",), dims=3)


@dataclass(frozen=True)
class Chunked(ArrayImage):
    """An image of which some chunks are absent from the file: those with only the value 0."""

    decoded: list = field(default_factory=list)

    def read(self, region):
        self.decoded.append(region)
        return super().read(region)

    def constant_value(self, region):
        values = self.volume.array[(slice(None), *region)]
        return None if values.any() else (0,) * len(values)


def chunked(array, chunks):
    image = ArrayImage.of(volume_from_array(array, array.ndim - 1))
    return Chunked(**{**vars(image), "chunks": chunks})


def spoilt(seed, kind, shape, unacquired, hot):
    draw = np.random.default_rng(seed)
    values = draw.gamma(2, 30, shape).clip(1, 200)
    values[:, ..., 3:9, 4:12] += 40
    if hot:
        values[draw.random(shape) < 0.01] = 250
    if unacquired:
        values[..., : shape[-2] // 2, : shape[-1] // 3] = 0
    if np.dtype(kind) == np.uint64:
        return np.rint(values).astype(kind) + kind(0 if unacquired else 2**62)
    return (values if kind == np.float32 else np.rint(values) - 100 * (kind == np.int16)).astype(kind)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 99),
    kind=st.sampled_from([np.uint8, np.uint16, np.int16, np.uint64, np.float32]),
    shape=st.sampled_from([(1, 40, 37), (3, 25, 48), (1, 5, 20, 23), (2, 4, 17, 16)]),
    chunk=st.integers(2, 13),
    spoil=st.tuples(st.booleans(), st.booleans()),
    normalise=st.sampled_from([
        NormaliseSettings(), NormaliseSettings(per_channel=False), NormaliseSettings(method="zscore")
    ]),
)  # fmt: skip
def test_regions_have_the_intensities_of_the_whole_image(seed, kind, shape, chunk, spoil, normalise):
    array = spoilt(seed, kind, shape, *spoil)
    whole = scale_intensities(array, normalise)
    chunks = (1, chunk, chunk + 1)[-len(shape) + 1 :]
    image = chunked(array, chunks)
    scale = find_scale(image, normalise, DataSettings())
    assert scale == find_scale(ArrayImage.of(image.volume), normalise, DataSettings())
    assert IntensityScale.from_dict(json.loads(json.dumps(scale.as_dict()))) == scale
    draw = np.random.default_rng(seed)
    for _ in range(5):
        ends = [np.sort(draw.choice(size + 1, 2, replace=False)) for size in shape[1:]]
        region = tuple(slice(int(start), int(stop)) for start, stop in ends)
        part = scale_region(image, scale, region)
        np.testing.assert_array_equal(part.image, whole.image[(slice(None), *region)])
        assert (part.acquired is None) == (whole.acquired is None)
        if part.acquired is not None:
            np.testing.assert_array_equal(part.acquired, whole.acquired[region])
        assert part.hot == whole.hot


def test_what_the_file_does_not_store_is_not_read():
    array = np.zeros((1, 256, 256), np.uint16)
    array[0, 64:96, 128:160] = np.random.default_rng(0).integers(1, 900, (32, 32))
    image = chunked(array, (32, 32))
    find_scale(image, NormaliseSettings(), DataSettings())
    assert image.decoded
    assert max(voxels(region) for region in image.decoded) <= array.size // 8


def voxels(region):
    return int(np.prod([part.stop - part.start for part in region]))


def test_a_thread_pool_changes_nothing_and_a_stop_ends_it():
    image = chunked(spoilt(1, np.uint16, (1, 90, 80), True, True), (9, 11))
    with ThreadPoolExecutor(2) as pool:
        assert find_scale(image, NormaliseSettings(), DataSettings(), None, pool) == find_scale(
            image, NormaliseSettings(), DataSettings()
        )
    stop = Stop()
    stop.set()
    with pytest.raises(Stopped):
        find_scale(image, NormaliseSettings(), DataSettings(), stop)


def test_the_region_of_a_body_starts_at_its_box():
    array = np.zeros((1, 10, 14, 16), np.float32)
    array[0, 3:8, 4:12, 5:13] = np.random.default_rng(0).normal(500, 80, (5, 8, 8))
    image, normalise = chunked(array, (2, 5, 6)), NormaliseSettings(method="zscore")
    scale = find_scale(image, normalise, CLASSES)
    assert scale.background_removed
    assert scale.body_box == (slice(3, 8), slice(4, 12), slice(5, 13))
    whole = scale_intensities(array, normalise).image
    part = scale_region(image, scale, (slice(1, 4), slice(0, 8), slice(2, 7)))
    np.testing.assert_array_equal(part.image, whole[:, 4:7, 4:12, 7:12])
    assert IntensityScale.from_dict(json.loads(json.dumps(scale.as_dict()))) == scale
    assert replace(scale, shape=()) != scale
