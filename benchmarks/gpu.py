"""Every figure of the project that needs a GPU: python benchmarks/gpu.py --out FOLDER [--device cuda] [--only speed,…].

On a bare machine: a CUDA build of torch and the other dependencies from a folder of wheels, and the checkout as the
working folder with ``PYTHONPATH=.``. Copy the data sets, and name their folder with --data; without them images are
synthetic, and accuracy is left out. Nothing is downloaded. ``--quick`` takes some minutes on a CPU and says nothing
about speed: it shows that each part runs. FOLDER/gpu.json is written after each part, so that what was measured stays
when a later one fails, and ``--only`` adds to it; FOLDER/gpu.md holds the lines for RESULTS.md.

Parts, as --only takes them:

speed       files to labels, Mpx/s in 2D and Mvox/s in 3D (goals 300 and 100), with the seconds of each stage; the
            network alone, from 1 to 8 threads
agreement   labels of the device and of the CPU: counts, and AP of one against the other; and whether the device
            computes a voxel to the same bits wherever it lies in a block, by which super-blocks agree
memory      what happens as the memory of the GPU is taken away: one block at a time, smaller blocks, the CPU
scratch     nuclei2d from random weights in 60 s with everything inside (goal: mean AP .60)
resume      the same in --minutes, stopped half-way and resumed
processes   one process of torchrun and none: the largest difference of weights, beside that of two equal runs
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import tifffile
import torch

from biounet.api import Segmenter, load
from biounet.batch import BatchOptions, segment_batch
from biounet.core import Recipe, Stopped, available_cores, builtin_models, find_recipe, read_recipe
from biounet.evaluation import score_instances
from biounet.files import ReaderPool, ReadOptions, find_images, find_pairs, read_annotation, read_volume
from biounet.network import Model, load_model, model_predictor, pick_device
from biounet.segmentation import SegmentOptions
from biounet.synthetic import draw_field_settings, draw_stack_settings, make_field, make_stack
from biounet.training import Case, TrainCallbacks, TrainOptions, hold_out, make_case, train

NATIVE = SegmentOptions(diameter="native")
GIB = 2**30
DISTINCT = 16  # images of a batch; the others are copies


@dataclass(frozen=True)
class Setup:
    """What is measured, where."""

    device: str
    data: Path
    work: Path
    quick: bool
    minutes: float

    @property
    def is_gpu(self) -> bool:
        """Whether the device is one."""
        return self.device.startswith("cuda")

    def images(self, name: str) -> list[Path]:
        """Return the images of a data set that are held out; none where the data are not there."""
        return sorted((self.data / name / "val" / "images").glob("*.tif*"))


def builtin(name: str) -> Model:
    return load_model(builtin_models()[name])


def mosaic(setup: Setup, dims: int, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Return an image of a shape, of held-out images beside each other, mirrored and turned; or a synthetic one."""
    draw = np.random.default_rng(seed)
    paths = setup.images("nuclei2d" if dims == 2 else "nuclei3d-embryo")
    if paths:
        tiles = [tifffile.imread(path) for path in draw.permutation(paths)[:8]]
        tiles = [tile[..., 0] if tile.ndim > dims else tile for tile in tiles]
    else:
        tiles = [_synthetic(dims, number) for number in range(seed, seed + 4)]
    out = np.zeros(shape, tiles[0].dtype)
    steps = [range(0, size, least) for size, least in zip(shape, np.min([t.shape for t in tiles], 0), strict=True)]
    for place in np.ndindex(*map(len, steps)):
        tile = np.flip(tiles[draw.integers(len(tiles))], [axis for axis in range(dims) if draw.random() < 0.5])
        begin = [step[at] for step, at in zip(steps, place, strict=True)]
        region = tuple(slice(b, min(b + n, size)) for b, n, size in zip(begin, tile.shape, shape, strict=True))
        out[region] = tile[tuple(slice(0, part.stop - part.start) for part in region)]
    return out


def _synthetic(dims: int, seed: int) -> np.ndarray:
    if dims == 2:
        return make_field(seed, draw_field_settings(seed, (256, 256)))[0]
    return make_stack(seed, draw_stack_settings(seed))[0]


def write_images(setup: Setup, dims: int, count: int, shape: tuple[int, ...]) -> Path:
    """Write files as a microscope leaves them: compressed, with a pixel size; return their folder."""
    folder = setup.work / f"in{dims}"
    folder.mkdir(exist_ok=True)
    axes = {"axes": "ZYX" if dims == 3 else "YX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    axes |= {"PhysicalSizeXUnit": "µm", "PhysicalSizeYUnit": "µm"}
    axes |= {"PhysicalSizeZ": 2.0, "PhysicalSizeZUnit": "µm"} if dims == 3 else {}
    for number in range(count):
        path = folder / f"{number:03d}.ome.tif"
        if number < DISTINCT:
            tifffile.imwrite(path, mosaic(setup, dims, shape, number), compression="zlib", metadata=axes)
        else:
            shutil.copy(folder / f"{number % DISTINCT:03d}.ome.tif", path)
    return folder


def measure_speed(setup: Setup) -> dict[str, Any]:
    """Return voxels a second of batches of files, and of the network alone."""
    sizes = {2: (256, (2048, 2048)), 3: (32, (128, 512, 512))}
    if setup.quick:
        sizes = {2: (2, (256, 256)), 3: (2, (16, 64, 64))}
    return {f"{dims}d": _speed(setup, dims, *sizes[dims]) for dims in (2, 3)}


def _speed(setup: Setup, dims: int, count: int, shape: tuple[int, ...]) -> dict[str, Any]:
    model, folder = builtin("nuclei" if dims == 2 else "nuclei3d"), write_images(setup, dims, count, shape)
    images = find_images([folder])
    read = ReadOptions(dims=dims, axes="ZYX" if dims == 3 else None)
    options = BatchOptions(read, segment=NATIVE, overlay=False, device=setup.device)
    with ReaderPool(available_cores()) as readers:  # which take seconds to start, and are there in a long batch
        options = replace(options, readers=readers)
        # What is compiled or prepared once is, and all readers have started.
        segment_batch(images[: 2 * available_cores()], model, setup.work / f"warm{dims}", options)
        began = time.perf_counter()
        rows = list(segment_batch(images, model, setup.work / f"out{dims}", options))
    seconds, voxels = time.perf_counter() - began, count * int(np.prod(shape))
    stages: Counter[str] = Counter()
    for row in rows:
        stages.update(row.details.get("seconds", {}))
    failed = [row.message for row in rows if row.status == "failed"]
    return {
        "images": count,
        "shape": list(shape),
        "M_a_second": voxels / seconds / 1e6,
        "objects": sum(row.count or 0 for row in rows),
        "failed": failed,
        "arithmetic": sorted({row.details["arithmetic"] for row in rows if not failed}),
        "seconds_of_stages": {name: round(value, 3) for name, value in stages.items()},
        "seconds_times_cores": round(seconds * available_cores(), 3),
        "network_M_a_second": _network_speed(setup, model, shape, 2 if setup.quick else 20),
    }


def _network_speed(setup: Setup, model: Model, shape: tuple[int, ...], blocks: int) -> dict[str, float]:
    """Return the rate of blocks in memory, asked for by so many threads."""
    predictor = model_predictor(model, setup.device)
    stride = predictor.network.stride
    shape = tuple(max(size // step, 1) * step for size, step in zip(shape, stride, strict=True))
    image = np.random.default_rng(0).normal(size=(len(model.card.inputs), *shape)).astype(np.float32)
    predictor(image)
    rates = {}
    for threads in (1, 2, 4, 8) if setup.is_gpu else (1,):
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(predictor, [image] * threads))
            began = time.perf_counter()
            list(pool.map(predictor, [image] * blocks))
            rates[str(threads)] = blocks * int(np.prod(shape)) / (time.perf_counter() - began) / 1e6
    return rates


def measure_agreement(setup: Setup) -> dict[str, Any]:
    """Return how far labels of the device are from those of the CPU, and whether places in a block matter."""
    figures: dict[str, Any] = {}
    for dims, name in ((2, "nuclei"), (3, "nuclei3d")):
        shape = ((256, 256) if setup.quick else (2048, 2048)) if dims == 2 else (16, 64, 64)
        images = [mosaic(setup, dims, shape, seed) for seed in range(1 if setup.quick else 4)]
        spacing = 0.5 if dims == 2 else (2.0, 0.5, 0.5)
        devices, found = (setup.device, "cpu"), {}
        for device in devices:
            segmenter = Segmenter(builtin(name), device)
            found[device] = [segmenter.segment(image, spacing=spacing, options=NATIVE) for image in images]
        labels = {device: [result.labels for result in results] for device, results in found.items()}
        scores = score_instances(labels["cpu"], labels[setup.device]).as_figures()
        figures[f"{dims}d"] = {
            "counts": {device: [result.count for result in results] for device, results in found.items()},
            "arithmetic": {d: model_predictor(builtin(name), d).arithmetic for d in devices},
            **{key: scores[key] for key in ("ap", "ap50", "ap90") if key in scores},
            "values_that_differ_by_place": _differ_by_place(setup, builtin(name)),
        }
    return figures


def _differ_by_place(setup: Setup, model: Model) -> dict[str, float]:
    """Return the share of values that differ between two blocks that overlap: of one shape, and of two shapes."""
    predictor = model_predictor(model, setup.device)
    stride, reach = predictor.network.stride, predictor.network.receptive_radius
    edge = 32 if setup.quick else {2: 1024, 3: 96}[len(stride)]
    length = [-(-(edge + 2 * r) // s) * s for r, s in zip(reach, stride, strict=True)]
    longer = [n + s for n, s in zip(length, stride, strict=True)]
    image = np.random.default_rng(1).normal(size=(len(model.card.inputs), *longer)).astype(np.float32)
    first = predictor(np.ascontiguousarray(image[(slice(None), *(slice(0, n) for n in length))]))
    shifted = predictor(np.ascontiguousarray(image[(slice(None), *(slice(s, None) for s in stride))]))
    whole = predictor(image)
    inside = [slice(r + s, n - r) for n, r, s in zip(length, reach, stride, strict=True)]
    moved = [slice(part.start - s, part.stop - s) for part, s in zip(inside, stride, strict=True)]
    one = first[(slice(None), *inside)]
    pairs = {"one_shape": shifted[(slice(None), *moved)], "two_shapes": whole[(slice(None), *inside)]}
    return {name: float(np.mean(one != other)) for name, other in pairs.items()}


def measure_memory(setup: Setup) -> list[dict[str, Any]] | str:
    """Return what is noted of an image as the memory of the GPU is taken away, and how many objects are found."""
    if not setup.is_gpu:
        return "needs a GPU; tests/network/test_device_pipeline.py and tests/batch/test_gpu_batch.py script it"
    model, image = builtin("nuclei"), mosaic(setup, 2, (8192, 8192), 0)
    folder = setup.work / "memory"
    folder.mkdir(exist_ok=True)
    tifffile.imwrite(folder / "field.tif", image)
    steps = []
    for left in (None, 4 * GIB, GIB, GIB // 2, GIB // 4, GIB // 16):
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info(pick_device(setup.device))
        taken = 0 if left is None else max(0, free - left)
        ballast = torch.empty(taken, dtype=torch.uint8, device=setup.device)
        options = BatchOptions(segment=NATIVE, overlay=False, device=setup.device)
        began = time.perf_counter()
        [row] = segment_batch(find_images([folder]), model, setup.work / f"memory{left}", options)
        notes = [note["text"] for note in row.details.get("notes", []) if "memory" in note["text"]]
        steps.append(
            {
                "left_GiB": (free if left is None else left) / GIB,
                "count": row.count,
                "notes": notes,
                "seconds": time.perf_counter() - began,
            }
        )
        del ballast
    return steps


def training_cases(setup: Setup, recipe: Recipe) -> tuple[list[Case], list[Case]]:
    """Return the cases of nuclei2d/train, those to train on and those to tune on; synthetic ones without the data."""
    folder = setup.data / "nuclei2d" / "train"
    if not folder.is_dir():
        return _synthetic_cases(setup, recipe)
    pairs = find_pairs(folder / "images", folder / "labels")
    groups = hold_out(pairs[:12] if setup.quick else pairs, recipe.data.validation, recipe.train.seed)
    kept, held = (
        [make_case(read_volume(p.image), read_annotation(p.label, recipe.data), recipe) for p in group]
        for group in groups
    )
    return kept, held


def _synthetic_cases(setup: Setup, recipe: Recipe) -> tuple[list[Case], list[Case]]:
    folder, cases = setup.work / "synthetic", []
    folder.mkdir(exist_ok=True)
    for seed in range(6):
        image, labels = make_field(seed, draw_field_settings(seed, (256, 256)))
        for kind, array in (("image", image), ("labels", labels.astype(np.uint16))):
            tifffile.imwrite(folder / f"{seed}_{kind}.tif", array)
        annotation = read_annotation(folder / f"{seed}_labels.tif", recipe.data)
        cases.append(make_case(read_volume(folder / f"{seed}_image.tif"), annotation, recipe))
    return cases[:4], cases[4:]


def score_held_out(setup: Setup, model: Model) -> dict[str, float] | str:
    """Return the accuracy on nuclei2d/val, which no training has seen."""
    folder = setup.data / "nuclei2d" / "val"
    if not folder.is_dir():
        return "no data"
    pairs, segmenter = find_pairs(folder / "images", folder / "labels"), Segmenter(model, setup.device)
    pairs = pairs[:3] if setup.quick else pairs
    found = [segmenter.segment(pair.image).labels for pair in pairs]
    return score_instances([read_annotation(p.label, model.card.recipe.data).labels for p in pairs], found).as_figures()


def measure_scratch(setup: Setup) -> dict[str, Any]:
    """Return the accuracy after a minute, with reading, validation and tuning inside."""
    began = time.perf_counter()
    minutes = 0.1 if setup.quick else 1.0
    recipe = read_recipe(find_recipe("nuclei_2d")).replace("train", minutes=minutes, epochs=None)
    kept, held = training_cases(setup, recipe)
    steps: list[int] = []
    watch = TrainCallbacks(lambda progress: steps.append(progress.step))
    model = train(kept, held, recipe, TrainOptions(device=setup.device, started=began), callbacks=watch)
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "steps": len(steps), "val": score_held_out(setup, model)}


def measure_resume(setup: Setup) -> dict[str, Any]:
    """Return the accuracy of a longer training that was stopped half-way and resumed."""
    minutes = 0.2 if setup.quick else setup.minutes
    recipe = read_recipe(find_recipe("nuclei_2d")).replace("train", minutes=minutes, epochs=None)
    kept, held = training_cases(setup, recipe)
    stop, last, warnings = Event(), [0, 0.0], []

    def watch(progress: Any) -> None:
        last[:] = progress.step, progress.seconds
        if progress.seconds > 30 * minutes and not warnings:
            warnings.append("stopped")
            stop.set()

    options = {"device": setup.device, "checkpoint": setup.work / "checkpoint.pt"}
    try:
        train(kept, held, recipe, TrainOptions(**options), callbacks=TrainCallbacks(watch, stop=stop))
    except Stopped:
        stop.clear()
    half = list(last)
    callbacks = TrainCallbacks(watch, stop=stop)
    model = train(kept, held, recipe, TrainOptions(**options, resume=True), callbacks=callbacks)
    model_path = setup.work / "resumed.safetensors"
    Segmenter(model).save(model_path)
    return {
        "minutes": minutes,
        "stopped_at": {"step": half[0], "seconds": half[1]},
        "ended_at": {"step": last[0], "seconds": last[1]},
        "val": score_held_out(setup, model),
        "val_of_builtin": score_held_out(setup, load("nuclei").model),
    }


def measure_processes(setup: Setup) -> dict[str, Any]:
    """Return the largest difference of weights between one process of torchrun, and none; and of two equal runs."""
    folder = setup.work / "pairs"
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for seed in range(4):
        image, labels = make_field(seed, draw_field_settings(seed, (128, 128)))
        tifffile.imwrite(folder / "images" / f"{seed}.tif", image)
        tifffile.imwrite(folder / "labels" / f"{seed}.tif", labels.astype(np.uint16))
    recipe = folder / "recipe.toml"
    train_settings = f"epochs = 1\nsteps_per_epoch = {5 if setup.quick else 20}\nbatch = 4\npatch = 64"
    recipe.write_text(f'name = "tiny"\n[network]\nwidths = [8, 8]\n[train]\n{train_settings}\n', encoding="utf-8")
    launched = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "1", "-m", "biounet"]
    runs = {"none": [sys.executable, "-m", "biounet"], "again": [sys.executable, "-m", "biounet"], "one": launched}
    weights = {}
    for name, start in runs.items():
        where = ["--images", folder / "images", "--labels", folder / "labels", "-o", folder / f"{name}.safetensors"]
        subprocess.run([*start, "train", recipe, *where, "--device", setup.device], check=True, capture_output=True)
        weights[name] = load_model(folder / f"{name}.safetensors").network.state_dict()
    return {
        f"none_against_{name}": max(
            float((weights["none"][key].double() - weights[name][key].double()).abs().max()) for key in weights["none"]
        )
        for name in ("again", "one")
    }


PARTS: dict[str, Callable[[Setup], Any]] = {
    "speed": measure_speed,
    "agreement": measure_agreement,
    "memory": measure_memory,
    "scratch": measure_scratch,
    "resume": measure_resume,
    "processes": measure_processes,
}


def describe_machine(setup: Setup) -> dict[str, Any]:
    device = pick_device(setup.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "device": str(device),
        "name": name,
        "cores": available_cores(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "quick": setup.quick,
        "data": setup.data.is_dir(),
    }


def as_markdown(figures: dict[str, Any]) -> str:
    """Return lines for RESULTS.md: a row for each figure."""
    machine = figures["machine"]
    about = ", ".join(f"{key} {machine[key]}" for key in ("name", "cores", "torch", "cuda"))
    lines = [f"`python benchmarks/gpu.py --out FOLDER --device {machine['device']}`, on {about}:", ""]
    lines += ["| part | figure | value |", "|---|---|---|"]
    for part in PARTS:
        lines += [f"| {part} | {name} | {value} |" for name, value in _flat(figures.get(part, {}))]
    return "\n".join(lines) + "\n"


def _flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [line for key, part in value.items() for line in _flat(part, f"{name} {key}".strip())]
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [line for number, part in enumerate(value) for line in _flat(part, f"{name} {number}".strip())]
    return [(name, f"{value:.4g}" if isinstance(value, float) else str(value))]


def main() -> int:
    """Measure, and write what was measured after each part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of gpu.json and gpu.md")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--data", type=Path, default=Path(__file__).parent.parent.parent / "shared" / "data")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between them")
    parser.add_argument("--minutes", type=float, default=5.0, help="of the longer training")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    given.out.mkdir(parents=True, exist_ok=True)
    path, failed = given.out / "gpu.json", 0
    figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    with tempfile.TemporaryDirectory() as work:
        setup = Setup(given.device, given.data, Path(work), given.quick, given.minutes)
        figures["machine"] = describe_machine(setup)
        for part in given.only.split(","):
            began = time.perf_counter()
            try:
                figures[part] = PARTS[part](setup)
            except Exception:  # noqa: BLE001 - the other parts are measured, and this one says why it was not
                traceback.print_exc()
                figures[part], failed = {"failed": traceback.format_exc(limit=1).splitlines()[-1]}, failed + 1
            print(f"{part}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
            path.write_text(json.dumps(figures, indent=1, default=float) + "\n", encoding="utf-8")
    lines = as_markdown(figures)
    (given.out / "gpu.md").write_text(lines, encoding="utf-8")
    print(lines)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
