"""Memory: what an image needs is known from its header, decides before it is read, and costs that image alone."""

import os
import threading
import time

import numpy as np
import pytest
import tifffile

from biounet.batch import BatchOptions, runner, segment_batch
from biounet.batch.process_image import own_words
from biounet.cli.options import count_readers
from biounet.core import Grid, InputError, Stopped, Volume, available_cores, free_memory, is_out_of_memory, machine
from biounet.core.recipe import parse_recipe
from biounet.files import find_images
from biounet.network import Card, Model, build_network, initialise_weights, output_channels
from biounet.segmentation import MemoryBudget, MemoryNeed, SegmentOptions, memory, memory_needs

MIB = 2**20


def blank(*shape, kind=np.uint8):
    return Volume(np.broadcast_to(np.zeros((), kind), shape), Grid(shape[1:]))


def largest(volume, model, **options):
    return memory_needs(volume, model.card, model.network, SegmentOptions(**options), "cpu")


def test_what_is_needed_grows_with_the_image_and_takes_no_memory(untrained):
    sizes = [256, 1024, 4096, 40_000, 400_000]
    needs = [largest(blank(1, size, size), untrained)[-1][1] for size in sizes]
    assert [need.process for need in needs] == sorted(need.process for need in needs)
    assert needs[-1].process > 400_000**2 * 10
    assert needs[-1].reader >= 400_000**2


def test_smaller_blocks_need_less(untrained):
    needs = largest(blank(1, 3000, 3000), untrained)
    assert [options.block for options, _ in needs] == [2048, 512, 256]
    assert [need.process for _, need in needs] == sorted((need.process for _, need in needs), reverse=True)


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
    assert "not enough memory: it needs about" in row.message


def test_an_image_that_does_not_fit_is_one_row_with_the_amounts_and_the_others_are_done(few, untrained, monkeypatch):
    tifffile.imwrite(few / "big.tif", np.zeros((2000, 2000), np.uint8), compression="zlib")
    monkeypatch.setattr(memory, "free_memory", lambda: 30 * MIB)
    for _ in range(2):  # a rerun falls into no hole
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
        lambda volume, predictor, card, options, stop: (
            seen.append(options.block) or memory.segment_within_memory(volume, predictor, card, options, stop)
        ),
    )
    (free,) = segment_batch(images, untrained, few.parent / "one", BatchOptions(jobs=1))
    needs = [need for _, need in largest(blank(1, 700, 700), untrained)]
    between = (needs[0].total + needs[-1].total) / 2 / memory._USABLE_SHARE
    monkeypatch.setattr(memory, "free_memory", lambda: int(between))
    (tight,) = segment_batch(images, untrained, few.parent / "two", BatchOptions(jobs=1))
    assert seen[0] == 2048
    assert seen[1] < 2048
    assert (free.status, free.count, free.message) == (tight.status, tight.count, tight.message)
    for path in (few.parent / "one").glob("a_*"):
        assert path.read_bytes() == (few.parent / "two" / path.name).read_bytes()


def test_images_that_do_not_fit_side_by_side_wait_for_each_other():
    room, need, together = MemoryBudget(lambda: 100), MemoryNeed(50, 0), []
    inside, most, lock = [0], [0], threading.Lock()

    def work():
        with room.reserve([need], None, threading.Event()):
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            time.sleep(0.02)
            with lock:
                inside[0] -= 1
            together.append(None)

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(together), most[0]) == (5, 1)


def test_who_waits_for_memory_ends_when_work_is_to_end():
    room, stop = MemoryBudget(lambda: 100), threading.Event()
    stop.set()
    with (
        room.reserve([MemoryNeed(80, 0)], None, threading.Event()),
        pytest.raises(Stopped),
        room.reserve([MemoryNeed(80, 0)], None, stop),
    ):
        pass


def test_a_machine_that_says_nothing_refuses_nothing():
    with MemoryBudget(lambda: None).reserve([MemoryNeed(2**60, 2**60)], None, threading.Event()) as number:
        assert number == 0


def test_a_limit_of_addresses_is_said_as_such(monkeypatch):
    monkeypatch.setattr(memory, "free_address_space", lambda: 2**28)
    with pytest.raises(InputError, match=r"needs 0.35 GiB, 0.25 GiB of addresses \(ulimit -v\) are left"):  # noqa: SIM117
        with MemoryBudget(lambda: 2**33).reserve([MemoryNeed(100 * MIB, 0)], None, threading.Event()):
            pass


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("could not create a primitive"),
        RuntimeError("could not create a memory object"),
        RuntimeError("can't start new thread"),
        RuntimeError("std::bad_alloc"),
        OSError(12, "Cannot allocate memory"),
        ImportError("x.so: failed to map segment from shared object"),
    ],
    ids=str,
)
def test_what_libraries_say_when_memory_runs_out(error):
    assert is_out_of_memory(error)


def test_a_limit_of_processes_is_not_said_to_be_one_of_memory():
    assert "ulimit -u" in own_words(RuntimeError("can't start new thread"))
    assert own_words(RuntimeError("std::bad_alloc")) == "not enough memory"


@pytest.mark.parametrize("error", [RuntimeError("shape"), OSError(2, "no"), ImportError("no module"), ValueError("x")])
def test_other_errors_are_not_about_memory(error):
    assert not is_out_of_memory(error)


def write(folder, **files):
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Return the folder of control groups of a machine with 64 cores and much memory."""
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "_OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    return tmp_path


@pytest.mark.parametrize(("quota", "cores"), [("150000 100000", 2), ("50000 100000", 1), ("max 100000", 64)])
def test_cores_are_those_that_the_container_gives(groups, quota, cores):
    write(groups, own="0::/job/step\n", cgroup__job__cpu_dot_max=quota, cgroup__job__step__cpu_dot_max="max 100000")
    assert available_cores() == cores
    (groups / "cgroup" / "job" / "cpu.max").unlink()
    write(groups, own="3:cpu,cpuacct:/job\n")
    first, _, period = quota.partition(" ")
    write(groups, **{"cgroup__cpu,cpuacct__job__cpu_dot_cfs_quota_us": first.replace("max", "-1")})
    write(groups, **{"cgroup__cpu,cpuacct__job__cpu_dot_cfs_period_us": period})
    assert available_cores() == cores


def test_cores_are_those_of_the_affinity(groups, monkeypatch):
    write(groups, own="")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5}, raising=False)
    assert available_cores() == 1
    assert count_readers(["."], None) == 1
    assert runner._jobs(None, 100, type("P", (), {"device": type("D", (), {"type": "cpu"})})) == 1


def test_memory_is_what_the_container_leaves(groups):
    group = "cgroup__job__memory_dot_"
    write(groups, own="0::/job\n", **{f"{group}max": str(500 * MIB), f"{group}current": str(450 * MIB)})
    write(groups, **{f"{group}stat": f"anon 5\ninactive_file {100 * MIB}\n"})
    assert free_memory() == 150 * MIB
    write(groups, **{f"{group}max": "max"})
    assert free_memory() > 150 * MIB
