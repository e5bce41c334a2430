"""How large super-blocks are chosen, by the memory and by the number of workers."""

import re
from dataclasses import replace

import numpy as np
import pytest

from biounet.core import ArrayImage, Grid, SettingsError, Volume
from biounet.core.recipe import parse_recipe
from biounet.large_images import Means, budget, choose_size
from biounet.network import Model, build_network

MIB = 2**20
VOLUMES = {"data": {"dims": 3}, "network": {"widths": [8, 8]}}


@pytest.fixture(scope="module")
def model():
    return Model(build_network(parse_recipe({"network": {"widths": [8, 8]}})), None)


def image(*shape):
    return ArrayImage.of(Volume(np.broadcast_to(np.uint8(1), (1, *shape)), Grid(shape)))


def test_less_memory_gives_smaller_super_blocks(model):
    sizes = [choose_size(image(20000, 20000), model, Means(2, ram * MIB)) for ram in (8000, 1700, 1150, 1000)]
    assert sizes[0].edge == 4096
    assert [size.edge for size in sizes] == sorted((size.edge for size in sizes), reverse=True)
    assert all(size.memory <= ram * MIB for size, ram in zip(sizes, (8000, 1700, 1150, 1000), strict=True))


@pytest.mark.parametrize(
    ("side", "workers", "edge"), [(4096, 1, 4096), (4096, 2, 2048), (4096, 9, 1024), (900, 4, 1024)]
)
def test_each_worker_has_a_super_block_where_there_can_be_so_many(model, side, workers, edge):
    assert choose_size(image(side, side), model, Means(workers, 10**12)).edge == edge


def test_processes_have_the_libraries_each_and_room_for_an_error_of_the_estimate(model):
    threads = choose_size(image(4096, 4096), model, Means(2, 10**12))
    processes = choose_size(image(4096, 4096), model, Means(2, 10**12, processes=True))
    assert processes.memory > 1.2 * (threads.memory + 150 * MIB)


def test_processes_are_never_fewer_than_asked_for(model):
    assert choose_size(image(4096, 4096), model, Means(4, 1000 * MIB)).workers >= 1
    with pytest.raises(SettingsError, match=r"1000 MiB of memory are too little .* --ram \d{4}M or more"):
        choose_size(image(4096, 4096), model, Means(4, 1000 * MIB, processes=True))


def test_the_least_that_is_said_would_do_and_one_less_would_not(model):
    def least(**means):
        with pytest.raises(SettingsError) as caught:
            choose_size(image(9000, 9000), model, Means(2, 600 * MIB), **means)
        return int(re.search(r"--ram (\d+)M or more", caught.value.hint)[1])

    found = least()
    assert choose_size(image(9000, 9000), model, Means(2, found * MIB)).workers == 1
    with pytest.raises(SettingsError, match=f"{found - 1} MiB of memory are too little"):
        choose_size(image(9000, 9000), model, Means(2, (found - 1) * MIB))
    assert least(whole=700 * MIB) == 700  # in memory, it takes less
    assert least(whole=2**40) == found


def test_a_network_of_floats_takes_more_than_one_of_8_bits(model, monkeypatch):
    asked = []
    monkeypatch.setattr(budget, "bytes_per_feature", lambda device, *, in_8_bits: asked.append(in_8_bits) or 100)
    for ranges in ({}, {"head": (0.0, 1.0)}):
        choose_size(image(4096, 4096), replace(model, activation_ranges=ranges), Means(1, 10**12))
    assert [set(asked[: len(asked) // 2]), set(asked[len(asked) // 2 :])] == [{False}, {True}]


def test_half_the_pixel_size_takes_less_memory_and_twice_takes_more(model, monkeypatch):
    monkeypatch.setattr(budget, "_EDGES", {2: ((1024, 1024),)})
    sizes = [choose_size(image(4096, 4096), model, Means(2, 10**12), (zoom, zoom)) for zoom in (0.5, 1.0, 2.0)]
    assert sizes[0].memory < sizes[1].memory < sizes[2].memory


def test_the_network_sees_nothing_beyond_the_image(model, monkeypatch):
    monkeypatch.setattr(budget, "_EDGES", {2: ((1024, 1024),)})
    monkeypatch.setattr(budget, "PROGRAM_RAM", 0)  # predicting takes the most
    sizes = [choose_size(image(side, side), model, Means(1, 10**12)).memory for side in (1024, 2048, 4096, 8192)]
    assert sizes[0] < sizes[1] < sizes[2] == sizes[3]


def test_a_volume_that_is_drawn_takes_memory_up_to_a_size(model):
    shapes, volumes = ((256,) * 3, (1024,) * 3), Model(build_network(parse_recipe(VOLUMES)), None)
    for shape in shapes:
        plain, drawn = (choose_size(image(*shape), volumes, Means(1, 10**12, pictures=on)) for on in (False, True))
        assert drawn.memory >= plain.memory
        with pytest.raises(SettingsError, match=r"--ram 11[89]\dM or more"):  # 305 + 590 + 288 MiB
            choose_size(image(*shape), volumes, Means(1, 1100 * MIB, pictures=True))
    choose_size(image(*shapes[0]), volumes, Means(1, 1100 * MIB))
