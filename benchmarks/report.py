"""The report of many images: python benchmarks/report.py [--images 2000] [--dense] [--single-file].

Makes synthetic fields of nuclei of 520 x 696 pixels, writes their outputs as a batch does, copies them until there are
so many images, and opens the report in a headless Chromium (with playwright), wide and narrow. Says how large the
report is, how long it takes until everything that is seen at first is there (the load event), how long sorting,
filtering and opening an image take, and how much memory the page has. ``--dense`` takes one field of 4096 x 4096 pixels
with about 25 000 nuclei instead, and says how long its files take to write and its viewer to open.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from playwright.sync_api import Browser, Page, sync_playwright

from biounet.core import Grid, Volume
from biounet.measurement import image_figures, measure_objects
from biounet.reporting import (
    OutputOptions,
    ReportOptions,
    ReportRow,
    object_sizes,
    view_folder,
    write_outputs,
    write_report,
)
from biounet.segmentation import Segmentation
from biounet.synthetic import draw_field_settings, make_field

DISTINCT = 20
WARNING = "{:.0%} of the objects touch the border"


def make_dense(side: int = 4096) -> tuple[np.ndarray, np.ndarray]:
    """Return an image with about 25 000 discs on a lattice, and its labels."""
    rng, step = np.random.default_rng(0), 26
    rows, columns = np.indices((step, step)) - step // 2
    disc = rows**2 + columns**2 <= 10**2
    labels = np.zeros((side, side), np.int32)
    for number, at in enumerate(np.ndindex(side // step, side // step), 1):
        y, x = at[0] * step, at[1] * step
        labels[y : y + step, x : x + step][disc] = number
    return (200 + 1000 * (labels > 0) + rng.normal(0, 60, labels.shape)).clip(0).astype(np.uint16), labels


def make_row(folder: Path, name: str, image: np.ndarray, labels: np.ndarray) -> ReportRow:
    """Write the outputs of an image, and return its row."""
    labels, grid = labels.astype(np.int32), Grid(labels.shape, (0.5, 0.5), "um")
    confidence = np.random.default_rng(labels.max()).uniform(0.4, 1, labels.max())
    table = measure_objects(labels, image[None], grid, confidence, ("intensity",))
    result = Segmentation(labels, len(confidence), table, Volume(image[None], grid))
    paths = write_outputs(result, folder, name, OutputOptions(view_folder=folder / view_folder(Path())))
    files = tuple(path.relative_to(folder).as_posix() for path in paths)
    figures = image_figures(table)
    sizes = object_sizes(table)
    return ReportRow(f"{name}.tif", "ok", result.count, 0.4, "", f"{name}_overlay.png", sizes, files, figures)


def copy_row(folder: Path, row: ReportRow, number: int) -> ReportRow:
    """Copy the files of a row to other names; some images failed, and some are flagged."""
    name = f"plate{number // 384}_well{number % 384:03}"
    if number % 97 == 0:
        return ReportRow(f"{name}.tif", "failed", None, 0.1, f"truncated: {number} bytes are missing")
    old = row.image.removesuffix(".tif")
    files = tuple(path.replace(old, name) for path in row.files)
    for source, target in zip(row.files, files, strict=True):
        shutil.copy(folder / source, folder / target)
    flagged = number % 23 == 0
    status, message = ("flagged", WARNING.format(number % 50 / 100 + 0.5)) if flagged else ("ok", "")
    overlay = f"{name}_overlay.png"
    return replace(row, image=f"{name}.tif", status=status, message=message, overlay=overlay, files=files)


def make_report(folder: Path, images: int, single_file: bool) -> Path:
    rng = np.random.default_rng(0)
    rows = []
    for number in range(min(DISTINCT, images)):
        image, labels = make_field(number, replace(draw_field_settings(rng), shape=(520, 696)))
        rows.append(make_row(folder, f"field{number}", image, labels))
    copies = [copy_row(folder, rows[number % len(rows)], number) for number in range(images)]
    path, start = folder / "report.html", time.perf_counter()
    options = ReportOptions({"model": "nuclei", "holes": "filled"}, ("counts.csv",), single_file=single_file)
    write_report(path, copies, title=f"nuclei: {images} images", options=options)
    views = sum(
        file.stat().st_size
        for row in copies
        for file in map(folder.__truediv__, row.files)
        if "report_files" in str(file)
    )
    print(
        f"written in {time.perf_counter() - start:.2f} s: {path.stat().st_size / 1e6:.1f} MB,"
        f" beside it {views / 1e6:.1f} MB"
    )
    return path


def watch(browser: Browser, width: int) -> tuple[Page, list[str]]:
    page, said = browser.new_page(viewport={"width": width, "height": 900}), []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("requestfailed", lambda request: said.append(request.url))
    return page, said


def seconds(page: Page, script: str) -> float:
    """Return how long a script takes until what it changed is drawn."""
    draw = "new Promise((done) => requestAnimationFrame(() => setTimeout(done)))"
    return (
        page.evaluate(
            f"(async () => {{ const t = performance.now(); {script}; await {draw}; return performance.now() - t; }})()"
        )
        / 1e3
    )


def measure(browser: Browser, path: Path, width: int) -> None:
    page, said = watch(browser, width)
    page.goto(path.as_uri())
    timing = page.evaluate("performance.getEntriesByType('navigation')[0].toJSON()")
    sideways = page.evaluate("document.documentElement.scrollWidth") > width
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    heap = {m["name"]: m["value"] for m in session.send("Performance.getMetrics")["metrics"]}["JSHeapUsedSize"]
    sorting = seconds(page, "[...document.querySelectorAll('#images th button')].at(2).click()")
    search = (
        "const words = document.getElementById('words'); words.value = 'e'; words.dispatchEvent(new Event('input'))"
    )
    filtering = seconds(page, search)
    start = time.perf_counter()
    page.evaluate("[...document.querySelectorAll('#images tbody tr:not([hidden]) .name a.open')][0].click()")
    page.wait_for_selector("#viewer[data-shown]")
    opening = time.perf_counter() - start
    print(
        f"{width} px: loaded {timing['loadEventEnd'] / 1e3:.2f} s, sorted {sorting:.2f} s, filtered {filtering:.2f} s,"
        f" image opened {opening:.2f} s, heap {heap / 1e6:.0f} MB, sideways scroll: {sideways},"
        f" console: {said or 'nothing'}"
    )
    page.close()


def measure_dense(folder: Path, browser: Browser) -> None:
    image, labels = make_dense()
    make_row(folder, "warm", image[:512, :512].copy(), np.minimum(labels[:512, :512], 1))
    start = time.perf_counter()
    row = make_row(folder, "dense", image, labels)
    sizes = {path: (folder / path).stat().st_size for path in row.files if path.startswith("report_files")}
    print(f"{row.count} objects, all files in {time.perf_counter() - start:.2f} s; bytes: {sizes}")
    write_report(folder / "report.html", [row], title="dense")
    measure(browser, folder / "report.html", 1400)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--dense", action="store_true")
    parser.add_argument("--single-file", action="store_true")
    chosen = parser.parse_args()
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with tempfile.TemporaryDirectory() as name, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        print("Chromium", browser.version)
        if chosen.dense:
            measure_dense(Path(name), browser)
            return
        path = make_report(Path(name), chosen.images, chosen.single_file)
        for width in (1400, 420):
            measure(browser, path, width)


if __name__ == "__main__":
    main()
