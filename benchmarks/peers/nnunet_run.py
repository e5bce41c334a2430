"""Train and run nnU-Net 2 on volumes, on the CPU.

    nnunet_run.py train   --data DATA/hippocampus --minutes 15 --out MODEL [--slices]
    nnunet_run.py train   --data DATA/brain-tumour --leave-out 0 --minutes 30 --out MODEL [--slices]
    nnunet_run.py predict --model MODEL --images DATA/hippocampus/val/images --out OUT [--mirror]
    nnunet_run.py predict --model MODEL --images DATA/brain-tumour/CASE --out OUT [--mirror]

It plans and preprocesses as it does by itself (3d_fullres) and trains on all cases but the one left out; neither
planning nor preprocessing counts. With ``--slices`` every tenth slice is labelled and the rest is its ignore label.
By default it plans for a GPU of 8 GB: for brain-tumour patches of 128³, of which a CPU of 2 cores gets through one
batch in minutes. ``--gpu-gb 1`` is its own option for smaller patches, 64³ there, and so for more batches.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import harness
import numpy as np

# Read when the package is loaded: processes that prepare, and those that augment while the network learns.
os.environ.setdefault("nnUNet_def_n_proc", str(harness.THREADS))
os.environ.setdefault("nnUNet_n_proc_DA", "1")

EVERY = 10
SEED = 0
ENDING = ".nii.gz"
CONFIGURATION = "3d_fullres"


@dataclass(frozen=True)
class Task:
    """What the files of a data set hold; `axis` is that of the labelled slices in (z, y, x)."""

    channels: tuple[str, ...]
    labels: dict[str, int | list[int]]
    ignore: int
    axis: int
    # The value that each region gets in the label image, the inner ones last.
    order: tuple[int, ...] | None = None


TASKS = {
    "hippocampus": Task(("mri",), {"background": 0, "anterior": 1, "posterior": 2}, ignore=3, axis=1),
    "brain-tumour": Task(
        ("flair", "t1c"),
        {"background": 0, "whole": [1, 2, 3, 4], "core": [1, 3, 4], "enhancing": [4]},
        ignore=5,
        axis=0,
        order=(2, 1, 4),
    ),
}


def cases_of(images: Path) -> dict[str, list[Path]]:
    """Return the files of each case: those of a folder, or the channels if the folder is a case."""
    channels = [images / f"{name}{ENDING}" for name in TASKS["brain-tumour"].channels]
    if channels[0].exists():
        return {images.name: channels}
    return {path.name.removesuffix(ENDING): [path] for path in sorted(images.glob(f"*{ENDING}"))}


def training_files(data: Path, leave_out: int | None) -> dict[str, tuple[list[Path], Path]]:
    """Return images and label file of each training case."""
    if data.name == "hippocampus":
        images = cases_of(data / "train" / "images")
        return {case: (files, data / "train" / "labels" / files[0].name) for case, files in images.items()}
    folders = sorted(path for path in data.iterdir() if path.is_dir())
    kept = [folder for index, folder in enumerate(folders) if index != leave_out]
    if kept == folders:
        sys.exit(f"--leave-out names the case to score, 0 to {len(folders) - 1}")
    return {folder.name: (cases_of(folder)[folder.name], folder / f"tumour{ENDING}") for folder in kept}


def write_channels(files: list[Path], case: str, folder: Path) -> list[str]:
    """Write the images of a case as the tool wants them, which takes 0 for what was removed around a brain.

    In brain-tumour that is the least value of an image. Adding a constant changes nothing else: it normalises.
    """
    import SimpleITK as sitk

    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{case}_{channel:04d}{ENDING}" for channel in range(len(files))]
    for source, path in zip(files, paths, strict=True):
        image = sitk.Cast(sitk.ReadImage(source), sitk.sitkFloat32)
        sitk.WriteImage(image - float(sitk.GetArrayViewFromImage(image).min()), path)
    return [str(path) for path in paths]


def write_labels(source: Path, path: Path, task: Task, start: int | None) -> None:
    """Write the labels of a case; if `start` is given, of every tenth slice from there."""
    import SimpleITK as sitk

    image = sitk.ReadImage(source)
    labels = sitk.GetArrayFromImage(image).astype(np.uint8)
    if start is not None:
        unknown = np.arange(labels.shape[task.axis]) % EVERY != start
        np.moveaxis(labels, task.axis, 0)[unknown] = task.ignore
    written = sitk.GetImageFromArray(labels)
    written.CopyInformation(image)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(written, path)


def prepare(data: Path, work: Path, leave_out: int | None, gpu_gb: float | None, *, slices: bool) -> dict[str, object]:
    """Write the data set in the tool's format below `work`, let it plan and preprocess; return ``dataset.json``."""
    task, raw = TASKS[data.name], work / "raw" / "Dataset001_volumes"
    draw = np.random.default_rng(SEED)
    cases = training_files(data, leave_out)
    for case, (images, labels) in cases.items():
        write_channels(images, case, raw / "imagesTr")
        start = int(draw.integers(EVERY)) if slices else None
        write_labels(labels, raw / "labelsTr" / f"{case}{ENDING}", task, start)
    dataset: dict[str, object] = {
        "channel_names": {str(index): name for index, name in enumerate(task.channels)},
        "labels": task.labels | ({"ignore": task.ignore} if slices else {}),
        "numTraining": len(cases),
        "file_ending": ENDING,
    }
    if task.order is not None:
        dataset["regions_class_order"] = task.order
    harness.write_json(raw / "dataset.json", dataset)

    from nnunetv2.experiment_planning import plan_and_preprocess_api as api

    api.extract_fingerprint_dataset(1, num_processes=harness.THREADS, check_dataset_integrity=True)
    api.plan_experiment_dataset(1, gpu_memory_target_in_gb=gpu_gb)
    api.preprocess_dataset(1, configurations=[CONFIGURATION], num_processes=[harness.THREADS])
    return dataset


def fit(trainer, minutes: float) -> dict[str, object]:
    """Train for a time with the tool's own steps, keep the last weights, and return what was done.

    Its own loop counts epochs of 250 batches, 1000 of them, each with 50 batches of validation, here on training cases.
    A CPU gets through a few epochs in the time, so the clock takes their place: the learning rate falls along the
    tool's own curve with the share of the time that is used, and all of the time is spent on learning.
    """
    trainer.on_train_start()
    trainer.network.train()
    losses: list[float] = []
    begin = time.monotonic()
    while (spent := (time.monotonic() - begin) / 60) < minutes:
        trainer.lr_scheduler.step(trainer.num_epochs * spent / minutes)
        losses.append(float(trainer.train_step(next(trainer.dataloader_train))["loss"]))
    trainer.on_train_end()
    last = float(np.mean(losses[-max(1, len(losses) // 10) :]))
    return {"minutes": minutes, "spent_minutes": spent, "batches": len(losses), "last_loss": last}


def train(data: Path, minutes: float, out: Path, leave_out: int | None, gpu_gb: float | None, *, slices: bool) -> None:
    """Prepare and train with all that the tool chooses by itself."""
    if harness.is_trained(out, minutes):
        print(f"{out} is trained already")
        return
    import torch

    torch.set_num_threads(harness.THREADS)
    work = (out / "work").resolve()
    folders = {"nnUNet_raw": work / "raw", "nnUNet_preprocessed": work / "preprocessed", "nnUNet_results": out}
    for name, folder in folders.items():
        folder.mkdir(parents=True, exist_ok=True)
        os.environ[name] = str(folder)
    dataset = prepare(data.resolve(), work, leave_out, gpu_gb, slices=slices)

    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    plans = json.loads((work / "preprocessed" / "Dataset001_volumes" / "nnUNetPlans.json").read_text())
    trainer = nnUNetTrainer(plans | {"continue_training": False}, CONFIGURATION, "all", dataset, torch.device("cpu"))
    chosen = plans["configurations"][CONFIGURATION]
    shape = {"patch": chosen["patch_size"], "batch": chosen["batch_size"]}
    record = {"tool": "nnunet", **fit(trainer, minutes), **shape, "peak_memory_gb": harness.peak_memory_gb()}
    harness.write_json(out / "training.json", record)
    print(record)


def predict(model: str, images: Path, out: Path, *, mirror: bool) -> None:
    """Segment every case of a folder; with `mirror` also all its mirror images, which is the tool's default."""
    import SimpleITK as sitk
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    torch.set_num_threads(harness.THREADS)
    predictor = nnUNetPredictor(use_mirroring=mirror, device=torch.device("cpu"), allow_tqdm=False)
    trained = next(Path(model).glob("Dataset001_volumes/nnUNetTrainer__*"))
    predictor.initialize_from_trained_model_folder(str(trained), ("all",))
    startup = time.perf_counter() - harness.START
    out.mkdir(parents=True, exist_ok=True)
    clock, voxels = harness.Clock(), 0
    cases = cases_of(images.resolve())
    with tempfile.TemporaryDirectory() as folder:
        for case, files in cases.items():
            channels, labels = write_channels(files, case, Path(folder)), out / f"{case}_labels"
            with clock("segment"):
                predictor.predict_from_files_sequential([channels], [str(labels)])
            voxels += sitk.ReadImage(f"{labels}{ENDING}").GetNumberOfPixels()
    harness.report("nnunet", clock, (len(cases), voxels), out, startup)


OPTIONS: dict[str, harness.Options] = {
    "train": {
        "--leave-out": {"type": int, "metavar": "N", "help": "the case of brain-tumour that is kept for scoring"},
        "--gpu-gb": {"type": float, "metavar": "GB", "help": "plan for a GPU of that memory, in smaller patches"},
        "--slices": {"action": "store_true", "help": "every tenth slice is labelled"},
    },
    "predict": {"--mirror": {"action": "store_true", "help": "average over mirror images"}},
}


if __name__ == "__main__":
    options = vars(harness.parser("nnunet", extra=OPTIONS).parse_args())
    {"train": train, "predict": predict}[options.pop("command")](**options)
