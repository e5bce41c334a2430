import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biounet.core import SettingsError, Stopped
from biounet.tiling import Block, block_lattice, relative_region, run_blocks
from biounet.tiling.blocks import MAX_PENDING

SHAPES = st.lists(st.integers(1, 14), min_size=2, max_size=3).map(tuple)


@settings(deadline=None, max_examples=50)
@given(SHAPES, st.integers(1, 50), st.integers(0, 9), st.integers(1, 8))
def test_cores_tile_the_image_exactly(shape, size, halo, align):
    seen = np.zeros(shape, int)
    for block in block_lattice(shape, size, halo, align):
        seen[block.core] += 1
    assert (seen == 1).all()


@settings(deadline=None, max_examples=50)
@given(SHAPES, st.integers(1, 50), st.integers(0, 9), st.integers(1, 8))
def test_outer_regions_hold_the_halo_and_start_in_phase(shape, size, halo, align):
    for block in block_lattice(shape, size, halo, align):
        for outer, wanted in zip(block.outer, block.grown(halo), strict=True):
            assert outer.start % align == 0
            assert 0 <= wanted.start - outer.start < align
            assert outer.stop == wanted.stop


@settings(deadline=None, max_examples=50)
@given(SHAPES, st.integers(1, 20))
def test_a_region_of_the_image_is_located_in_the_outer_array(shape, size):
    image = np.arange(np.prod(shape)).reshape(shape)
    for block in block_lattice(shape, size, halo=3, align=4):
        assert np.array_equal(image[block.outer][relative_region(block.core, block.outer)], image[block.core])


def test_lattice_of_a_small_image():
    blocks = block_lattice((5, 4), (3, 4), halo=1, align=2)
    assert blocks == [
        Block((slice(0, 3), slice(0, 4)), (slice(0, 4), slice(0, 4)), (5, 4)),
        Block((slice(3, 5), slice(0, 4)), (slice(2, 5), slice(0, 4)), (5, 4)),
    ]


def test_by_default_blocks_have_no_halo():
    assert all(block.core == block.outer for block in block_lattice((7, 5), 3))


@pytest.mark.parametrize(
    ("size", "halo", "align"),
    [(0, 0, 1), ((4, 0), 0, 1), (4, -1, 1), (4, (0, -1), 1), (4, 0, 0), (4, 0, (1, 0)), ((4, 4, 4), 0, 1)],
)
def test_impossible_lattices_are_refused(size, halo, align):
    with pytest.raises(SettingsError):
        block_lattice((8, 8), size, halo, align)


def _slow_first(block):
    time.sleep(0.02 if block.core[0].start == block.core[1].start == 0 else 0)
    return block.core


@pytest.mark.parametrize("workers", [None, 1, 3])
def test_results_come_in_lattice_order(workers):
    blocks = block_lattice((9, 9), 2)
    expected = [block.core for block in blocks]
    if workers is None:
        assert list(run_blocks(_slow_first, blocks)) == expected
    else:
        with ThreadPoolExecutor(workers) as executor:
            assert list(run_blocks(_slow_first, blocks, executor)) == expected


def test_few_blocks_are_started_while_no_results_are_taken():
    begun = []
    with ThreadPoolExecutor(2) as executor:
        results = run_blocks(lambda block: begun.append(block.core), block_lattice((100, 1), 1), executor)
        next(results)
        time.sleep(0.05)
        assert len(begun) <= MAX_PENDING + 1
        results.close()


def test_the_first_error_is_raised_and_the_rest_cancelled():
    release = threading.Event()
    begun = []

    def fail(block):
        begun.append(block.core)
        if block.core[0].start == block.core[1].start == 0:
            raise ArithmeticError("block 0")
        release.wait(5)

    with ThreadPoolExecutor(1) as executor:
        with pytest.raises(ArithmeticError, match="block 0"):
            list(run_blocks(fail, block_lattice((50, 1), 1), executor))
        release.set()
    assert len(begun) <= 2


@pytest.mark.parametrize("threads", [False, True])
def test_no_further_block_is_started_after_a_stop(threads):
    stop, started, blocks = threading.Event(), [], block_lattice((9 * MAX_PENDING, 1), 1)

    def work(block):
        started.append(block)
        stop.set()

    with ThreadPoolExecutor(1) as executor, pytest.raises(Stopped):
        list(run_blocks(work, blocks, executor if threads else None, stop))
    assert started == blocks[: len(started)]
    assert 1 <= len(started) <= (MAX_PENDING + 1 if threads else 1)


def test_cancelled_work_is_not_taken_for_a_result():
    executor = ThreadPoolExecutor(1)
    gate = threading.Event()
    executor.submit(gate.wait, 5)
    results = run_blocks(_slow_first, block_lattice((3, 1), 1), executor)
    threading.Timer(0.05, lambda: executor.shutdown(wait=False, cancel_futures=True)).start()
    threading.Timer(0.1, gate.set).start()
    with pytest.raises(CancelledError):
        list(results)
