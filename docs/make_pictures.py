"""Draw the pictures of the README and the documentation.

    python docs/make_pictures.py [NAME ...] [--rims MODEL] [--heads FOLDER]

Without names all are drawn, in minutes, since some need a training; what the tutorials have trained is given by
`--rims` and `--heads`.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

import biounet
from biounet.core import UNLABELLED, sample_folder
from biounet.reporting import draw_overlay
from biounet.synthetic import draw_field_settings, make_field

HERE = Path(__file__).resolve().parent
MOST = 100_000
"""Bytes of a picture."""

PLATE = r"(?P<treatment>\w+)/(?P<well>[A-H]\d+)"

Picture = NDArray[np.uint8]


def main() -> None:
    """Draw the pictures whose names are given, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PICTURES)}")
    parser.add_argument("--rims", type=Path, help="model of the tutorial in the lab")
    parser.add_argument("--heads", type=Path, help="folder in which the tutorial on MRI was followed")
    arguments = parser.parse_args()
    for name in arguments.names or PICTURES:
        write(HERE / name, PICTURES[name](arguments))


def write(path: Path, picture: Picture) -> None:
    """Write a PNG, with as many colours as `MOST` allows."""
    for colours in (256, 128, 64, 32):
        # The method that keeps rare colours, those of outlines.
        few = Image.fromarray(picture).quantize(colours, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        few.save(path, optimize=True)
        if path.stat().st_size <= MOST:
            return
    raise ValueError(f"{path} has {path.stat().st_size} bytes")


def side_by_side(panels: Sequence[Picture], gap: int = 8) -> Picture:
    """Return panels of equal height in a row."""
    white = np.full((panels[0].shape[0], gap, 3), 255, np.uint8)
    return np.concatenate([part for panel in panels for part in (panel, white)][:-1], 1)


def enlarge(array: NDArray[Any], times: int = 2) -> NDArray[Any]:
    """Return an image whose pixels are squares."""
    return array.repeat(times, -1).repeat(times, -2)


def outlines(image: NDArray[Any], labels: NDArray[Any], times: int = 2) -> Picture:
    """Return an image ``(c, y, x)`` with outlines, enlarged."""
    return draw_overlay(enlarge(image, times), enlarge(np.where(labels > 0, labels, 0), times))


def crowded(_: argparse.Namespace) -> Picture:
    """Return the crowded sample, plain and with outlines."""
    result = biounet.load("nuclei").segment(sample_folder() / "images" / "crowded.tif")
    image = result.volume.array
    return side_by_side([outlines(image, np.zeros_like(result.labels)), outlines(image, result.labels)])


def stack(_: argparse.Namespace) -> Picture:
    """Return the crowded stack."""
    return biounet.load("nuclei3d").segment(sample_folder() / "stacks" / "images" / "crowded.tif").overlay()


def tumour(_: argparse.Namespace) -> Picture:
    """Return a tumour of a model that has learned from two heads of the samples."""
    cases = sample_folder() / "cases"
    with tempfile.TemporaryDirectory() as folder:
        for name in ("case_1", "case_2"):
            shutil.copytree(cases / name, Path(folder) / name)
        model = biounet.train("brain_tumour", folder, epochs=2)
    return model.segment([cases / "case_3" / f"{name}.nii.gz" for name in model.card.recipe.data.channels]).overlay()


def lab_count(_: argparse.Namespace) -> Picture:
    """Return two samples with outlines."""
    results = [biounet.load("nuclei").segment(sample_folder() / "images" / f"{name}.tif") for name in ("nuclei", "dim")]
    return side_by_side([outlines(result.volume.array, result.labels) for result in results])


def lab_window(_: argparse.Namespace) -> Picture:
    """Return a training image with the outlines in its window, and what is outside of it dimmed."""
    image, labels = read_rims("train", "field2")
    picture = outlines(image, labels, 3)
    outside = enlarge(labels == UNLABELLED, 3)
    return np.where(outside[..., None], picture // 3, picture)


def lab_rims(arguments: argparse.Namespace) -> Picture:
    """Return a field of rims: plain, with the outlines of a hand, of the built-in model, and after training."""
    image, labels = read_rims("test", "field7")
    path = sample_folder() / "rims" / "test" / "images" / "field7.tif"
    model = biounet.load(arguments.rims) if arguments.rims else train_rims()
    first, better = (each.segment(path).labels for each in (biounet.load("nuclei"), model))
    return side_by_side([outlines(image, each) for each in (np.zeros_like(labels), labels, first, better)])


def read_rims(part: str, name: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return an image ``(1, y, x)`` of the samples and its labels."""
    folder = sample_folder() / "rims" / part
    volumes = [biounet.read_volume(folder / kind / f"{name}.tif").array for kind in ("images", "labels")]
    return volumes[0], volumes[1][0]


def train_rims() -> biounet.Segmenter:
    """Train as the tutorial does."""
    folder = sample_folder() / "rims" / "train"
    return biounet.train("nuclei_2d", folder / "images", folder / "labels", start="nuclei", minutes=2)


def mri_head(arguments: argparse.Namespace) -> Picture:
    """Return a head of the test of the tutorial on MRI."""
    if arguments.heads is None:
        raise SystemExit("mri_head.png: follow docs/tutorials/2_mri.md and say --heads with its folder")
    model = biounet.load(arguments.heads / "heads.safetensors")
    case = arguments.heads / "heads" / "test" / "case_09"
    return model.segment([case / f"{name}.nii.gz" for name in model.card.recipe.data.channels]).overlay()


def report(_: argparse.Namespace) -> Picture:
    """Return the report of a small plate of synthetic fields, one of them cut short, in a headless Chromium."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as name:
        folder, rng = Path(name), np.random.default_rng(3)
        for number in range(12):
            treatment, coverage = (("control", 0.22), ("low", 0.15), ("high", 0.09))[number // 4]
            settings = replace(draw_field_settings(rng), shape=(384, 512), coverage=coverage, diameter=23.0)
            path = folder / "plate" / treatment / f"{'BCD'[number // 4]}{number % 4 + 2}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            calibration = {"imagej": True, "resolution": (2.0, 2.0), "metadata": {"unit": "um", "axes": "YX"}}
            tifffile.imwrite(path, make_field(number + 10, settings)[0], **calibration)
        (folder / "plate/low/C6.tif").write_bytes((folder / "plate/low/C2.tif").read_bytes()[:3000])
        command = ["biounet", "segment", folder / "plate", "-o", folder / "out", "--group", PLATE]
        subprocess.run(command, check=False)  # one image fails
        with sync_playwright() as driver:
            chromium = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))))
            browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1400, "height": 1500})
            page.goto((folder / "out" / "report.html").as_uri())
            page.wait_for_timeout(1000)
            shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            browser.close()
    return np.asarray(shot.crop((20, 10, 1380, 1500)).resize((1020, 1117), Image.Resampling.LANCZOS))


PICTURES: dict[str, Callable[[argparse.Namespace], Picture]] = {
    "overlay.png": crowded,
    "report.png": report,
    "volume.png": stack,
    "tumour.png": tumour,
    "tutorials/lab_count.png": lab_count,
    "tutorials/lab_window.png": lab_window,
    "tutorials/lab_rims.png": lab_rims,
    "tutorials/mri_head.png": mri_head,
}

if __name__ == "__main__":
    main()
