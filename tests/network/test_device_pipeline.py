"""Laws of the pipeline of a device: the maps of the plain path, overlap, and less memory step by step."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from biounet.core import NetworkSettings, is_out_of_memory
from biounet.core.errors import ModelError
from biounet.network import UNet, initialise_weights, make_predictor
from tests.support.fake_device import FakeDevice, on_fake_device

SHAPES = {2: (1, 64, 48), 3: (1, 16, 32, 16)}


@pytest.fixture(params=[2, 3])
def plain(request):
    network = UNet(request.param, 1, 3, NetworkSettings(widths=[8, 12]))
    initialise_weights(network, 1)
    return make_predictor(network.eval(), "cpu")


def images(plain, count=12):
    rng = np.random.default_rng(0)
    return [rng.normal(size=SHAPES[plain.network.dims]).astype(np.float32) for _ in range(count)]


def predict_all(predictor, images, threads=6):
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(predictor, images))


def test_maps_are_those_of_the_plain_path_and_blocks_overlap(plain):
    given = images(plain)
    device = FakeDevice(together=3, expected=len(given))
    for maps, image in zip(predict_all(on_fake_device(plain, device), given), given, strict=True):
        assert np.array_equal(maps, plain(image))
        assert maps.dtype == np.uint16
    assert (device.uploads, device.lanes, device.most_together) == (12, 3, 3)
    assert device.elapsed < device.busy


def test_one_thread_overlaps_nothing(plain):
    device = FakeDevice()
    predict_all(on_fake_device(plain, device), images(plain, 4), threads=1)
    assert device.elapsed == device.busy


def test_a_region_is_kept(plain):
    image = images(plain, 1)[0]
    keep = tuple(slice(3, n - 5) for n in image.shape[1:])
    maps = on_fake_device(plain, FakeDevice())(image, keep)
    assert np.array_equal(maps, plain(image, keep))


def test_all_integers_come_back(plain):
    """Also those above 32767, which do not fit into the 16 bits of the copy as they are."""
    maps = np.concatenate([on_fake_device(plain, FakeDevice())(image * 20).ravel() for image in images(plain, 3)])
    assert maps.min() < 2**14
    assert maps.max() > 2**15 + 2**14


def test_without_room_for_several_blocks_they_are_alone(plain, caplog):
    given = images(plain)
    device = FakeDevice(values=given[0].size * 3 // 2)
    predictor = on_fake_device(plain, device)
    watched = [predictor.watched() for _ in given]
    device.together, device.expected = 1, 0
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(lambda pair: pair[0](pair[1]), zip(watched, given, strict=True)))
    assert all(np.array_equal(maps, plain(image)) for maps, image in zip(results, given, strict=True))
    assert device.most_together == 1
    assert caplog.text.count("one block at a time from here on") <= 1
    assert sum(len(each.shortages) for each in watched) <= device.releases


def test_a_block_that_waited_beside_others_is_tried_alone(plain, caplog):
    given = images(plain, 2)
    device = FakeDevice(errors={1: torch.OutOfMemoryError("CUDA out of memory")})
    predictor = on_fake_device(plain, device)
    first, second = predictor.watched(), predictor.watched()
    assert np.array_equal(first(given[0]), plain(given[0]))
    assert np.array_equal(second(given[1]), plain(given[1]))
    assert (first.shortages, second.shortages) == ([], ["memory of the device ran out: one block at a time"])
    assert (device.releases, caplog.text.count("one block at a time")) == (1, 1)
    predict_all(predictor, images(plain, 4))
    assert device.most_together == 1, "what was found to fit is kept"


def test_a_block_that_does_not_fit_alone_is_an_error_of_its_thread(plain):
    small, large = images(plain, 1)[0], np.concatenate([*images(plain, 2)], axis=1)
    predictor = on_fake_device(plain, FakeDevice(values=small.size))
    with pytest.raises(torch.OutOfMemoryError) as caught:
        predictor(large)
    assert is_out_of_memory(caught.value)
    assert np.array_equal(predictor(small), plain(small))


@pytest.mark.parametrize("error", [ValueError("of this block"), KeyboardInterrupt()])
def test_an_error_reaches_its_block_only(plain, error):
    given = images(plain, 8)
    device = FakeDevice(errors={3: error})
    predictor = on_fake_device(plain, device)
    outcomes = []
    for image in given:
        try:
            outcomes.append(np.array_equal(predictor(image), plain(image)))
        except type(error):
            outcomes.append("failed")
    assert outcomes == [True] * 3 + ["failed"] + [True] * 4
    assert device.on_their_way == device.used == 0


def test_what_is_not_finite_is_told(plain):
    image = images(plain, 1)[0]
    with torch.no_grad():
        plain.network.head.bias.fill_(torch.nan)
    with pytest.raises(ModelError, match="not finite"):
        on_fake_device(plain, FakeDevice())(image)


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "GET was unable to find an engine to execute this computation",
    ],
)
def test_other_words_of_a_device_without_memory(text):
    assert is_out_of_memory(RuntimeError(text))
