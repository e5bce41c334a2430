"""How large super-blocks are chosen, by the memory and by the number of workers."""

import numpy as np
import pytest

from biounet.core import ArrayImage, Grid, SettingsError, Volume
from biounet.core.recipe import parse_recipe
from biounet.large_images import choose_size
from biounet.network import build_network

MIB = 2**20


@pytest.fixture(scope="module")
def network():
    return build_network(parse_recipe({"network": {"widths": [8, 8]}}))


def image(*shape):
    return ArrayImage.of(Volume(np.broadcast_to(np.uint8(1), (1, *shape)), Grid(shape)))


def test_less_memory_gives_smaller_super_blocks(network):
    sizes = [choose_size(image(20000, 20000), network, 2, ram * MIB) for ram in (8000, 1700, 1150, 1000)]
    assert sizes[0].edge == 4096
    assert [size.edge for size in sizes] == sorted((size.edge for size in sizes), reverse=True)
    assert all(size.memory <= ram * MIB for size, ram in zip(sizes, (8000, 1700, 1150, 1000), strict=True))


@pytest.mark.parametrize(
    ("side", "workers", "edge"), [(4096, 1, 4096), (4096, 2, 2048), (4096, 9, 1024), (900, 4, 1024)]
)
def test_each_worker_has_a_super_block_where_there_can_be_so_many(network, side, workers, edge):
    assert choose_size(image(side, side), network, workers, 10**12).edge == edge


def test_processes_have_the_libraries_each_and_room_for_an_error_of_the_estimate(network):
    threads = choose_size(image(4096, 4096), network, 2, 10**12)
    processes = choose_size(image(4096, 4096), network, 2, 10**12, processes=True)
    assert processes.memory > 1.2 * (threads.memory + 150 * MIB)


def test_processes_are_never_fewer_than_asked_for(network):
    assert choose_size(image(4096, 4096), network, 4, 1000 * MIB).workers >= 1
    with pytest.raises(SettingsError, match=r"0\.98 GiB of memory are too little: it takes 2\.\d+ GiB"):
        choose_size(image(4096, 4096), network, 4, 1000 * MIB, processes=True)
