"""Images larger than memory: memory, time, and whether the results are those of memory.

python benchmarks/large_images.py sparse [--side 320000]        nuclei far apart: exact count, memory, a rerun
python benchmarks/large_images.py confluent 4096 8192 16384     nuclei everywhere: flat memory, equal labels and tables
python benchmarks/large_images.py volume 512 --times 1 8 64     the same of volumes: as many cubes of an edge
python benchmarks/large_images.py throughput [--stardist PYTHON MODEL]     against images in memory, and StarDist
python benchmarks/large_images.py memory_estimate               estimated and measured memory, by size and --ram

Each run is ``biounet segment`` in a process of its own. Its memory is the largest that it and its children had at a
time, looked at 50 times a second, and not less than the peak that the system notes of each. Libraries, which they have
in common, count once. Inputs are made by `large_inputs.py` in a folder that is removed at the end (--room).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import large_inputs
import numpy as np
from numpy.typing import NDArray

MIB = 2**20
EQUAL_UP_TO = 8192**2  # voxels up to which an image is segmented in memory, too
IN_MEMORY = "12G"
SMALL = 2048  # pixels of a side of the fields in memory that a rate is compared with


@dataclass(frozen=True)
class Run:
    """What a command took."""

    seconds: float
    peak: float  # MiB
    told: str


class Watch:
    """The largest memory that a process and its children had at a time, in MiB."""

    def __init__(self, pid: int) -> None:
        self._pid, self._ended, self.peak = pid, threading.Event(), 0.0
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Look no more."""
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(0.02):
            found = [_memory(pid) for pid in _family(self._pid)]
            own, files, most = zip(*found, strict=True)
            self.peak = max(self.peak, sum(own) + max(files), *most)


def _family(pid: int) -> list[int]:
    """Return a process and all below it."""
    found = [pid]
    for parent in found:
        try:
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
        except OSError:
            continue  # it has ended
    return found


def _memory(pid: int) -> tuple[float, float, float]:
    """Return the memory of a process in MiB: its own, that of libraries, and the most that it had of both."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0, 0.0, 0.0
    found = dict(line.split(":", 1) for line in lines)
    own, shared, files, most = (
        int(found.get(name, "0 kB").split()[0]) / 1024 for name in ("RssAnon", "RssShmem", "RssFile", "VmHWM")
    )
    return own + shared, files, most


def segment(image: Path, out: Path, *options: str) -> Run:
    """Run ``biounet segment``."""
    command = [sys.executable, "-m", "biounet", "segment", str(image), "-o", str(out), "--diameter", "native", *options]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        watch = Watch(process.pid)
        told = process.communicate()[0]
        watch.end()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}\n{told}")
    return Run(time.perf_counter() - began, watch.peak, told)


def count_in(out: Path) -> tuple[int, float]:
    """Return the number of objects that a run has found in its image, and the seconds that it says."""
    with (out / "counts.csv").open(encoding="utf-8") as file:
        row = next(csv.DictReader(file))
    return int(row["count"]), float(row["seconds"])


def size_of(folder: Path) -> int:
    """Return the bytes in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def sparse(room: Path, options: argparse.Namespace) -> None:
    """Segment a field of known nuclei, of which most is absent; then the same again, and its squares in memory."""
    image, out = room / "sparse.ome.zarr", room / "out"
    known = large_inputs.write_sparse(image, options.side, options.squares)
    run = segment(image, out, "--format", "zarr", "--ram", options.ram)
    found, seconds = count_in(out)
    again = segment(image, out, "--format", "zarr", "--ram", options.ram)
    differ = _squares_that_differ(image, out, options.check)
    head = "| side | nuclei | found | s | peak, MiB | rerun, s | rerun, peak | results, MB | squares that differ |"
    print(f"{head}\n{'|---' * 9}|")
    cells = [options.side, known, found, f"{seconds:.0f}", f"{run.peak:.0f}", f"{again.seconds:.1f}"]
    cells += [f"{again.peak:.0f}", f"{size_of(out) / 1e6:.1f}", f"{differ} of {options.check}"]
    print("| " + " | ".join(map(str, cells)) + " |")


def _squares_that_differ(image: Path, out: Path, number: int) -> int:
    """Return how many squares have other objects than their neighbourhood has that is segmented in memory.

    What is seen of a square in memory is the whole array of its neighbourhood, at once, on the scale of the image.
    """
    from biounet.core import builtin_models
    from biounet.files import ReadOptions, open_label_store, open_lazy
    from biounet.labelling import label_objects
    from biounet.network import load_model, model_predictor
    from biounet.preprocessing import find_scale, scale_region
    from biounet.segmentation import object_maps, predict_image

    model = load_model(builtin_models()["nuclei"])
    lazy, store = open_lazy((image,), ReadOptions()), open_label_store(next(out.glob("*_labels.ome.zarr")))
    scale = find_scale(lazy, model.card.recipe.normalise, model.card.recipe.data)
    truth, predictor = json.loads(image.with_name(f"{image.name}.json").read_text()), model_predictor(model, "cpu")
    around, differ = 256, 0
    for top, left in truth["squares"][:number]:
        # A multiple of the strides, so that pixels have the phase in the network that they have in the whole image
        corner = [max(0, (at - around) // 32 * 32) for at in (top, left)]
        region = tuple(slice(at, at + large_inputs.SQUARE + 2 * around + 32) for at in corner)
        scaled = scale_region(lazy, scale, region)
        maps = object_maps(predict_image(scaled.image, predictor), scaled.acquired, has_distance=True)
        objects = label_objects(*maps, model.card.label)
        differ += not same_objects(objects.labels, store.read(region))
    return differ


def same_objects(one: NDArray[np.integer], other: NDArray[np.integer]) -> bool:
    """Whether two label images have the same objects, whatever their numbers."""
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1)
    return all(len(np.unique(side)) == len(side) for side in pairs)


def confluent(room: Path, options: argparse.Namespace) -> None:
    """Segment fields full of nuclei, each twice as long as the one before."""
    _table_head()
    for side in options.sides:
        image = room / f"confluent-{side}.ome.zarr"
        large_inputs.write_confluent(image, side)
        _report(room, image, (side, side), options.ram)


def volume(room: Path, options: argparse.Namespace) -> None:
    """Segment volumes full of nuclei, of so many cubes."""
    _table_head()
    for times in options.times:
        image, length = room / f"volume-{times}.ome.zarr", options.edge * round(times ** (1 / 3))
        large_inputs.write_volume(image, options.edge, times)
        _report(room, image, (length,) * 3, options.ram, "--model", "nuclei3d")


def _table_head() -> None:
    print("| voxels | --ram | objects | s | M voxels/s | peak, MiB | results, MB | in memory: labels, table |")
    print("|---" * 8 + "|", flush=True)


def _report(room: Path, image: Path, shape: Sequence[int], limits: Sequence[str], *more: str) -> None:
    """Print a row for each limit of memory; remove the image and its results."""
    whole = room / "memory"
    is_compared = np.prod(shape) <= EQUAL_UP_TO
    if is_compared:
        segment(image, whole, "--format", "tif", "--ram", IN_MEMORY, *more)
    for ram in limits:
        out = room / "out"
        run = segment(image, out, "--format", "zarr", *(() if ram == "default" else ("--ram", ram)), *more)
        count, seconds = count_in(out)
        equal = " and ".join(_comparisons(out, whole)) if is_compared else ""
        rate = np.prod([float(n) for n in shape]) / 1e6 / seconds
        size = " x ".join(map(str, shape))
        figures = f"{count} | {seconds:.0f} | {rate:.2f} | {run.peak:.0f} | {size_of(out) / 1e6:.0f} | {equal}"
        print(f"| {size} | {ram} | {figures} |", flush=True)
        shutil.rmtree(out)
    shutil.rmtree(whole, ignore_errors=True)
    shutil.rmtree(image)


def _comparisons(out: Path, whole: Path) -> Iterator[str]:
    """Say of labels and table whether they are those of memory."""
    import tifffile

    from biounet.files import open_label_store

    store = open_label_store(next(out.glob("*_labels.ome.zarr")))
    expected = tifffile.imread(next(whole.glob("*_labels.tif")))
    is_equal = all(np.array_equal(store.read(region), expected[region]) for region in store.levels[0].regions())
    yield "equal" if is_equal else "LABELS DIFFER"
    tables = [next(folder.glob("*_objects.csv")).read_bytes() for folder in (out, whole)]
    yield "equal" if tables[0] == tables[1] else "TABLE DIFFERS"


def throughput(room: Path, options: argparse.Namespace) -> None:
    """Compare the rate of a large field, file to zarr, with that of small ones in memory, and with StarDist's."""
    small, large = room / "small", room / "large.ome.zarr"
    small.mkdir()
    import tifffile

    windows = large_inputs.confluent_windows()
    for number in range(options.fields):
        part = (slice(0, SMALL), slice(number * SMALL, (number + 1) * SMALL))
        tifffile.imwrite(
            small / f"{number}.tif", large_inputs.mosaic(part, windows), tile=(512, 512), compression="zlib"
        )
    large_inputs.write_confluent(large, options.side)
    rates: dict[str, list[float]] = {"2048 in memory": [], f"{options.side}": []}
    for _ in range(options.repeats):
        run = _rate_in_memory(small, options.fields)
        rates["2048 in memory"].append(run)
        out = room / "out"
        shutil.rmtree(out, ignore_errors=True)
        segment(large, out, "--format", "zarr")
        rates[f"{options.side}"].append(options.side**2 / 1e6 / count_in(out)[1])
    if options.stardist:
        rates |= _beside_stardist(room, large, options)
    print("| what | Mpx/s, each run | best |\n|---|---|---|")
    for name, each in rates.items():
        print(f"| {name} | {', '.join(f'{one:.2f}' for one in each)} | {max(each):.2f} |")
    memory, own = (max(each) for each in list(rates.values())[:2])
    print(f"large / in memory: {own / memory:.2f}")


_MEMORY_PROGRAM = """
import sys, time
from itertools import product
from pathlib import Path
from concurrent.futures import ThreadPoolExecutor
import torch
from biounet.batch import BatchOptions, segment_batch
from biounet.core import builtin_models
from biounet.files import find_images
from biounet.network import load_model
from biounet.segmentation import SegmentOptions
model, (folder, out) = load_model(builtin_models()["nuclei"]), map(Path, sys.argv[1:])
found = find_images([folder])
options = BatchOptions(segment=SegmentOptions(diameter="native"))
segment_batch(found[:1], model, out / "warm", options, lambda row: None)
began = time.perf_counter()
segment_batch(found, model, out / "all", options, lambda row: None)
print(time.perf_counter() - began)
"""


def _rate_in_memory(folder: Path, fields: int) -> float:
    """Return the Mpx/s of a batch of small fields, file to label image and table, once all is loaded."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as out:
        command = [sys.executable, "-c", _MEMORY_PROGRAM, str(folder), out]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return fields * SMALL**2 / 1e6 / float(answer.splitlines()[-1])


_STARDIST_PROGRAM = """
import os, sys, time
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np, tensorflow, tifffile
from itertools import product
from pathlib import Path
threads = int(sys.argv[4])
tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
tensorflow.config.threading.set_inter_op_parallelism_threads(threads)
from csbdeep.utils import normalize
from stardist.models import StarDist2D
folder, image, out = Path(sys.argv[1]), tifffile.imread(sys.argv[2]), sys.argv[3]
model = StarDist2D(None, name=folder.name, basedir=str(folder.parent))
model.predict_instances(normalize(image[:1024, :1024], 1, 99.8))
began = time.perf_counter()
scaled = normalize(image, 1, 99.8).astype(np.float32)
options = {"block_size": 2048, "min_overlap": 128, "context": 96, "show_progress": False}
labels, _ = model.predict_instances_big(scaled, axes="YX", **options)
tifffile.imwrite(out, labels.astype(np.int32), compression="zlib")
print(labels.max(), time.perf_counter() - began)
"""


def _beside_stardist(room: Path, large: Path, options: argparse.Namespace) -> dict[str, list[float]]:
    """Return the rates of StarDist and of super-blocks on a part of 4096 x 4096 pixels, in turn."""
    import tifffile
    import zarr

    python, model = options.stardist
    part, name = np.asarray(zarr.open_array(large / "0", mode="r")[:4096, :4096]), "4096 (super-blocks)"
    tifffile.imwrite(room / "part.tif", part)
    image = room / "part.ome.zarr"
    large_inputs.write_ome_zarr(image, part.shape, part.dtype, lambda region: part[region])
    rates: dict[str, list[float]] = {name: [], "4096 (StarDist, predict_instances_big)": []}
    for _ in range(options.repeats):
        out = room / "part-out"
        shutil.rmtree(out, ignore_errors=True)
        segment(image, out, "--format", "zarr")
        rates[name].append(part.size / 1e6 / count_in(out)[1])
        command = [python, "-c", _STARDIST_PROGRAM, model, str(room / "part.tif"), str(room / "sd.tif"), str(_cores())]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
        rates["4096 (StarDist, predict_instances_big)"].append(part.size / 1e6 / float(answer[-1]))
    own, other = (max(each) for each in rates.values())
    print(f"super-blocks / StarDist: {own / other:.1f}")
    return rates


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def memory_estimate(room: Path, options: argparse.Namespace) -> None:
    """Compare the memory that is estimated of images with the peak of their runs."""
    from biounet.core import available_cores, builtin_models
    from biounet.files import ReadOptions, open_lazy
    from biounet.large_images import Means, choose_size
    from biounet.network import load_model, save_model
    from biounet.segmentation import model_zoom

    print("| image | zoom | --ram | super-blocks | block | at a time | estimated, MiB | peak, MiB | estimated / peak |")
    print("|---" * 9 + "|", flush=True)
    kinds: list[tuple[str, int, Callable[[Path, int], None]]] = [
        *(("nuclei", side, large_inputs.write_confluent) for side in options.sides),
        *(("nuclei3d", edge, large_inputs.write_volume) for edge in options.edges),
    ]
    for name, length, write in kinds:
        image, model = room / f"{name}-{length}.ome.zarr", load_model(builtin_models()[name])
        if options.floats:
            model = replace(model, activation_ranges={}, file_sha256="")
        save_model(model, room / "model.safetensors")
        write(image, length)
        lazy = open_lazy((image,), ReadOptions(dims=model.network.dims))
        for diameter, ram in product(options.diameters, options.ram):
            zoom = model_zoom(lazy, model.card, diameter if diameter == "native" else float(diameter))
            size = choose_size(lazy, model, Means(available_cores(), _bytes(ram), pictures=True), zoom)
            out, more = room / "out", ("--diameter", diameter, "--model", str(room / "model.safetensors"))
            run = segment(image, out, "--format", "zarr", "--ram", ram, *more)
            factors = "x".join(f"{factor:.2f}" for factor in zoom)
            cells = ["x".join(map(str, lazy.grid.shape)), factors, ram, size.edge, size.block, size.workers]
            figures = f"{size.memory / MIB:.0f} | {run.peak:.0f} | {size.memory / MIB / run.peak:.2f}"
            print(f"| {' | '.join(map(str, cells))} | {figures} |", flush=True)
            shutil.rmtree(out)
        shutil.rmtree(image)


def _bytes(text: str) -> int:
    return int(float(text[:-1]) * {"M": 2**20, "G": 2**30}[text[-1]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--room", type=Path, default=Path("/tmp"), help="folder below which inputs and results are made"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("sparse")
    one.add_argument("--side", type=int, default=320_000)
    one.add_argument("--squares", type=int, default=400)
    one.add_argument("--ram", default="2G")
    one.add_argument("--check", type=int, default=100, help="squares that are segmented in memory, too")
    one = commands.add_parser("confluent")
    one.add_argument("sides", type=int, nargs="+")
    one.add_argument("--ram", nargs="+", default=["2G"], help="or: default")
    one = commands.add_parser("volume")
    one.add_argument("edge", type=int)
    one.add_argument("--times", type=int, nargs="+", default=[1])
    one.add_argument("--ram", nargs="+", default=["2G"])
    one = commands.add_parser("throughput")
    one.add_argument("--side", type=int, default=16384)
    one.add_argument("--fields", type=int, default=8)
    one.add_argument("--repeats", type=int, default=2)
    one.add_argument("--stardist", nargs=2, metavar=("PYTHON", "MODEL"))
    one = commands.add_parser("memory_estimate")
    one.add_argument("--sides", type=int, nargs="*", default=[4096, 8192, 16384])
    one.add_argument("--edges", type=int, nargs="*", default=[256, 512])
    one.add_argument("--ram", nargs="+", default=["1G", "2G", "4G"])
    one.add_argument("--diameters", nargs="+", default=["native"], help="such as 32 for half of the pixels' number")
    one.add_argument("--floats", action="store_true", help="compute as models that have no 8-bit integers")
    options = parser.parse_args()
    kinds = {each.__name__: each for each in (sparse, confluent, volume, throughput, memory_estimate)}
    with tempfile.TemporaryDirectory(prefix="large-images-", dir=options.room) as room:
        kinds[options.command](Path(room), options)


if __name__ == "__main__":
    main()
