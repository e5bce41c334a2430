"""The report as people use it, in a headless Chromium: skipped where there is none."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from biounet.core import Grid, Volume
from biounet.measurement import measure_objects
from biounet.reporting import (
    OutputOptions,
    ReportOptions,
    ReportRow,
    object_sizes,
    view_folder,
    write_outputs,
    write_report,
)
from support.images import discs

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDTHS = (1400, 420)


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    api = pytest.importorskip("playwright.sync_api", reason="drives the browser: pip install playwright")
    with api.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


def make_row(folder, name, shape, grid, status="ok", message=""):
    """Write the outputs of an image of discs, and return its row."""
    from biounet.segmentation import Segmentation

    image, labels = discs(shape, 6, len(name))
    confidence = np.linspace(0.5, 1, labels.max())
    table = measure_objects(labels.astype(np.int32), image[None], grid, confidence, ("intensity",))
    result = Segmentation(labels.astype(np.int32), len(confidence), table, Volume(image[None], grid))
    paths = write_outputs(result, folder, name, OutputOptions(view_folder=folder / view_folder(Path())))
    files = [path.relative_to(folder).as_posix() for path in paths]
    figures = {"median_area_um2": float(len(name)), "mean_confidence": 0.75}
    overlay = f"{name}_overlay.png"
    return ReportRow(f"{name}.tif", status, len(confidence), 0.1, message, overlay, object_sizes(table), files, figures)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A folder of a report on three images of discs, one of them of unknown pixel size, and one that failed."""
    folder = tmp_path_factory.mktemp("results <b>&#")
    known, unknown = Grid((96, 128), (0.5, 0.5), "um"), Grid((64, 64))
    rows = [
        make_row(folder, "first", known.shape, known),
        make_row(folder, "other one", unknown.shape, unknown, "flagged", "blank: 3 of 4"),
        ReportRow("gone.tif", "failed", None, 0.1, "it ends early"),
        make_row(folder, "z", known.shape, known),
    ]
    write_report(folder / "report.html", rows, title="discs: 4 images")
    (folder / "alone").mkdir()
    write_report(folder / "alone.html", rows, title="discs", options=ReportOptions(single_file=True))
    shutil.move(folder / "alone.html", folder / "alone" / "report.html")
    return folder


@pytest.fixture
def visit(browser):
    """Open a page; whatever it says on the console, or cannot load, is a failure in the end."""
    pages, said = [], []

    def visit(path, width=1400):
        page = browser.new_page(viewport={"width": width, "height": 800})
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("requestfailed", lambda request: said.append(request.url))
        page.goto(path.as_uri())
        pages.append(page)
        return page

    yield visit
    for page in pages:
        page.close()
    assert not said


def names(page):
    """Return the names of the images that are shown, from top to bottom."""
    return [row.get_attribute("data-name") for row in page.query_selector_all("#images tbody tr") if row.is_visible()]


def open_viewer(page, name):
    page.click(f"tr[data-name='{name}'] .name a.open")
    wait_until_shown(page, name)


def wait_until_shown(page, name):
    page.wait_for_selector(f"#viewer[data-shown='{name}']")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("page", ["report.html", "alone/report.html"])
def test_nothing_is_cut_off_and_no_error_is_on_the_console(visit, results, page, width):
    page = visit(results / page, width)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    loaded = "[...document.images].every((image) => image.complete && image.naturalWidth > 0)"
    for _ in range(100):  # the page's policy forbids the scripts that playwright waits with
        if page.evaluate(loaded):
            break
        page.wait_for_timeout(50)
    assert page.evaluate(loaded)
    open_viewer(page, "first.tif")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    boxes = [page.locator(f"#{name}").bounding_box() for name in ("close", "next", "stage")]
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= width for box in boxes)


@pytest.mark.parametrize("page", ["report.html", "alone/report.html"])
def test_the_object_below_the_pointer_is_that_of_the_table(visit, results, page):
    page = visit(results / page)
    open_viewer(page, "first.tif")
    with (results / "first_objects.csv").open() as file:
        rows = list(csv.DictReader(file))
    stage = page.locator("#stage").bounding_box()
    zoom = min(stage["width"] / 128, stage["height"] / 96)
    left, top = (stage["width"] - 128 * zoom) / 2, (stage["height"] - 96 * zoom) / 2
    row = max(rows, key=lambda row: float(row["area_px"]))
    x, y = (float(row[f"centroid_{axis}_px"]) + 0.5 for axis in "xy")
    page.mouse.move(stage["x"] + left + x * zoom, stage["y"] + top + y * zoom)
    area, confidence = float(f"{float(row['area_um2']):.4g}"), float(row["confidence"])
    assert page.text_content("#hover") == f"object {row['label']} · {area:g} µm² · confidence {confidence:.2f}"
    page.mouse.move(stage["x"] + left + 1, stage["y"] + 1)
    page.mouse.wheel(0, -100)
    assert page.text_content("#scale-text").endswith("µm")


def test_the_viewer_is_worked_by_keys(visit, results):
    page = visit(results / "report.html")
    open_viewer(page, "first.tif")
    assert page.text_content("#viewer-number") == "2 of 3"
    assert page.is_visible("#scale")
    page.keyboard.press("ArrowRight")
    wait_until_shown(page, "z.tif")
    assert page.is_disabled("#next")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    wait_until_shown(page, "other one.tif")
    assert not page.is_visible("#scale")  # its pixel size is unknown
    page.keyboard.press("o")
    assert page.get_attribute("#outlines", "aria-pressed") == "false"
    page.keyboard.press("Escape")
    assert not page.is_visible("#viewer")
    page.focus("tr[data-name='z.tif'] .name a.open")
    page.keyboard.press("Enter")
    wait_until_shown(page, "z.tif")


def test_outlines_are_drawn_where_the_object_ends_and_can_be_taken_off(visit, results):
    page = visit(results / "alone" / "report.html")
    open_viewer(page, "first.tif")
    shown = page.locator("#stage").screenshot()
    page.keyboard.press("o")
    page.wait_for_timeout(100)
    plain = page.locator("#stage").screenshot()
    assert count_colours(shown) > 4 * count_colours(plain)


def count_colours(png):
    """Return how many pixels of a screenshot are not grey."""
    from imagecodecs import png_decode

    picture = png_decode(png)[..., :3].astype(int)
    return int((np.ptp(picture, axis=2) > 40).sum()) + 1


def test_an_object_is_found_by_its_number(visit, results):
    page = visit(results / "report.html")
    open_viewer(page, "first.tif")
    page.fill("#object", "3")
    page.keyboard.press("Enter")
    assert page.text_content("#hover").startswith("object 3 ")
    page.fill("#object", "99")
    page.keyboard.press("Enter")
    assert page.text_content("#viewer-note") == "object 99 is not seen here"


def test_the_table_is_sorted_and_filtered(visit, results):
    page = visit(results / "report.html")
    assert names(page) == ["gone.tif", "other one.tif", "first.tif", "z.tif"]
    page.click("th button:has-text('Median area')")
    assert names(page) == ["z.tif", "first.tif", "other one.tif", "gone.tif"]
    page.click("th button:has-text('Median area')")
    assert names(page) == ["other one.tif", "first.tif", "z.tif", "gone.tif"]
    page.select_option("#status", "flagged")
    assert names(page) == ["other one.tif"]
    page.select_option("#status", "")
    page.fill("#words", "EARLY")
    assert names(page) == ["gone.tif"]
    page.click("#clear")
    page.click(".attention button:has-text('blank')")
    assert names(page) == ["other one.tif"]
    page.click("#clear")
    page.select_option("#order", "")
    assert names(page) == ["gone.tif", "other one.tif", "first.tif", "z.tif"]
