"""Memory that an image needs is estimated from its header, before it is read; too large an image fails by itself."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import tifffile

from biounet.batch import BatchOptions, segment_batch
from biounet.core import Grid, InputError, Stopped, Volume, builtin_models
from biounet.core.recipe import parse_recipe
from biounet.files import find_images
from biounet.network import Card, Model, build_network, initialise_weights, load_model, output_channels
from biounet.segmentation import MemoryBudget, MemoryNeed, SegmentOptions, memory, memory_needs

MIB = 2**20


def blank(*shape, kind=np.uint8):
    return Volume(np.broadcast_to(np.zeros((), kind), shape), Grid(shape[1:]))


def needs_of(volume, model, **options):
    return memory_needs(volume, model, SegmentOptions(**options), "cpu")


def test_needs_grow_with_the_image_and_estimating_allocates_nothing(untrained):
    sizes = [256, 1024, 4096, 40_000, 400_000]
    needs = [needs_of(blank(1, size, size), untrained)[-1][1] for size in sizes]
    assert [need.process for need in needs] == sorted(need.process for need in needs)
    assert needs[-1].process > 400_000**2 * 10
    assert needs[-1].reader >= 400_000**2


def test_channels_to_measure_need_their_own_size_here_and_where_they_are_read(untrained):
    volume = blank(1, 1000, 1000)
    measured = {"GFP": np.broadcast_to(np.uint16(0), (1000, 1000)), "RFP": np.broadcast_to(np.uint8(0), (1000, 1000))}
    alone, beside = (needs_of(one, untrained)[0][1] for one in (volume, replace(volume, measured=measured)))
    assert beside.process - alone.process == 3 * 1000**2
    assert beside.reader - alone.reader >= 3 * 1000**2


def test_smaller_blocks_need_less(untrained):
    needs = needs_of(blank(1, 3000, 3000), untrained)
    assert [options.block for options, _ in needs] == [2048, 512, 256]
    assert [need.process for _, need in needs] == sorted((need.process for _, need in needs), reverse=True)


def test_features_of_eight_bits_need_a_fraction_of_those_of_floats(monkeypatch):
    monkeypatch.setattr("biounet.network.predictor.has_fast_int8", lambda: True)
    monkeypatch.setattr("biounet.network.predictor.has_fast_bfloat16", lambda device: False)
    in_8_bits = load_model(builtin_models()["nuclei"])
    models, features = (replace(in_8_bits, activation_ranges={}), in_8_bits), 32 // 4 * 2048**2
    floats, integers = (needs_of(blank(1, 2048, 2048), model, diameter="native")[0][1].process for model in models)
    assert floats - integers == (6 * 4 - 5) * features


def test_a_card_that_asks_for_any_memory_is_refused_before_a_pixel_is_read(tmp_path, monkeypatch):
    """A stride of 2**24 would pad the smallest image to as many pixels along each axis."""
    levels = 9
    recipe = parse_recipe(
        {"network": {"widths": [2] * levels, "pools": [[8, 8]] * (levels - 1), "kernels": [[1, 1]] * levels}}
    )
    network = build_network(recipe)
    initialise_weights(network, 0)
    model = Model(network.eval(), Card(recipe=recipe, inputs=("intensity",), outputs=output_channels(recipe)))
    tifffile.imwrite(tmp_path / "x.tif", np.zeros((32, 32), np.uint8))
    (row,) = segment_batch(find_images([tmp_path / "x.tif"]), model, tmp_path / "out", BatchOptions(jobs=1))
    assert row.status == "failed"
    assert "of memory are too little for the smallest super-blocks" in row.message


def test_an_image_that_does_not_fit_is_one_row_with_the_amounts_and_the_others_are_done(few, untrained, monkeypatch):
    tifffile.imwrite(few / "big.tif", np.zeros((2000, 2000), np.uint8), compression="zlib")
    monkeypatch.setattr(memory, "free_memory", lambda: 30 * MIB)
    for _ in range(2):  # the second time, with the records of the first
        rows = segment_batch(find_images([few]), untrained, few.parent / "out", BatchOptions(jobs=2))
        assert {row.image: row.status == "failed" for row in rows} == {
            "a.tif": False,
            "b.tif": False,
            "big.tif": True,
            "deep/c.tif": False,
        }
        (message,) = [row.message for row in rows if row.status == "failed"]
        assert message.startswith("not enough memory: it needs about 0.")
        assert "0.029 GiB are free" in message


def test_a_block_is_chosen_that_fits_and_the_result_is_the_same(few, untrained, monkeypatch):
    tifffile.imwrite(few / "a.tif", np.random.default_rng(0).integers(0, 200, (700, 700)).astype(np.uint8))
    images = find_images([few / "a.tif"])
    seen = []
    monkeypatch.setattr(
        "biounet.batch.process_image.segment_within_memory",
        lambda volume, predictor, card, options, **how: (
            seen.append(options.block) or memory.segment_within_memory(volume, predictor, card, options, **how)
        ),
    )
    (free,) = segment_batch(images, untrained, few.parent / "one", BatchOptions(jobs=1))
    needs = [need for _, need in needs_of(blank(1, 700, 700), untrained)]
    between = (needs[0].total + needs[-1].total) / 2 / memory._USABLE_SHARE
    monkeypatch.setattr(memory, "free_memory", lambda: int(between))
    (tight,) = segment_batch(images, untrained, few.parent / "two", BatchOptions(jobs=1))
    assert seen[0] == 2048
    assert seen[1] < 2048
    assert (free.status, free.count, free.message) == (tight.status, tight.count, tight.message)
    for path in (few.parent / "one").glob("a_*"):
        assert path.read_bytes() == (few.parent / "two" / path.name).read_bytes()


def test_images_that_do_not_fit_together_wait_for_each_other():
    budget, need, finished = MemoryBudget(lambda: 100), MemoryNeed(50, 0), []
    inside, most, lock = [0], [0], threading.Lock()

    def work():
        with budget.reserve([need], None, threading.Event()):
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            time.sleep(0.02)
            with lock:
                inside[0] -= 1
            finished.append(None)

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(finished), most[0]) == (5, 1)


@pytest.mark.parametrize(("second", "fits"), [(39, True), (41, False)])
def test_images_together_take_four_fifths_of_what_was_free(second, fits):
    budget, stop = MemoryBudget(lambda: 100), threading.Event()
    stop.set()
    with budget.reserve([MemoryNeed(40, 0)], None, threading.Event()):
        if fits:
            with budget.reserve([MemoryNeed(second, 0)], None, stop) as number:
                assert number == 0
            return
        with pytest.raises(Stopped), budget.reserve([MemoryNeed(second, 0)], None, stop):
            pass


def test_images_together_take_no_more_than_they_may_and_one_that_takes_more_is_alone_in_the_smallest_blocks():
    budget, stop = MemoryBudget(lambda: 1000, limit=100), threading.Event()
    stop.set()
    with budget.reserve([MemoryNeed(120, 0), MemoryNeed(60, 0)], None, threading.Event()) as number:
        assert number == 1
        with budget.reserve([MemoryNeed(70, 0), MemoryNeed(40, 0)], None, stop) as number:
            assert number == 1
        with pytest.raises(Stopped), budget.reserve([MemoryNeed(41, 0)], None, stop):
            pass
    with budget.reserve([MemoryNeed(300, 0), MemoryNeed(200, 0)], None, threading.Event()) as number:
        assert number == 1
        with pytest.raises(Stopped), budget.reserve([MemoryNeed(1, 0)], None, stop):
            pass
    with MemoryBudget(lambda: None, limit=100).reserve([MemoryNeed(120, 0), MemoryNeed(90, 0)], None, stop) as number:
        assert number == 1


def test_waiting_for_memory_ends_when_stopped():
    budget, stop = MemoryBudget(lambda: 100), threading.Event()
    stop.set()
    with (
        budget.reserve([MemoryNeed(80, 0)], None, threading.Event()),
        pytest.raises(Stopped),
        budget.reserve([MemoryNeed(80, 0)], None, stop),
    ):
        pass


def test_where_free_memory_is_unknown_nothing_is_refused():
    with MemoryBudget(lambda: None).reserve([MemoryNeed(2**60, 2**60)], None, threading.Event()) as number:
        assert number == 0


def test_a_limit_of_address_space_is_named_in_the_message(monkeypatch):
    monkeypatch.setattr(memory, "free_address_space", lambda: 2**28)
    with pytest.raises(InputError, match=r"needs 0.35 GiB, 0.25 GiB of addresses \(ulimit -v\) are left"):  # noqa: SIM117
        with MemoryBudget(lambda: 2**33).reserve([MemoryNeed(100 * MIB, 0)], None, threading.Event()):
            pass
