"""The HTML report: its contents, that names cannot inject markup, and that it needs no network."""

import base64
import gc
import hashlib
import re
import weakref
from collections.abc import Sequence
from html.parser import HTMLParser
from urllib.parse import unquote

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from biounet.measurement import GroupFigures, GroupSummary, Table
from biounet.reporting import ReportOptions, ReportRow, SizeHistogram, object_sizes, write_report
from biounet.reporting.charts import log_ticks, nice_ticks
from biounet.reporting.html_report import render_report

VOID = {"meta", "img", "input", "path", "rect"}
ROWS = [
    ReportRow("a.tif", "ok", 12, 0.5, overlay="a_overlay.png"),
    ReportRow("b.tif", "empty", 0, 0.25, "nothing was found"),
    ReportRow("c.tif", "flagged", 1234, 1.0, "pixel size unknown"),
    ReportRow("d.tif", "failed", None, 0.25, "file ends early"),
]


class Page(HTMLParser):
    """The elements of a page with attributes and text; tags must be closed in order."""

    def __init__(self, page):
        super().__init__()
        self.open, self.elements = [], []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        element = {"tag": tag, "text": "", **dict(attributes)}
        assert len(element) == 2 + len(attributes)
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attributes):
        self.elements.append({"tag": tag, "text": "", **dict(attributes)})

    def handle_endtag(self, tag):
        assert self.open.pop()["tag"] == tag

    def handle_data(self, text):
        for element in self.open:
            element["text"] += text

    def all(self, tag):
        return [element for element in self.elements if element["tag"] == tag]


def summary(page):
    names, values = ([element["text"] for element in page.all(tag)] for tag in ("dt", "dd"))
    return dict(zip(names, values, strict=True))


def cells(page):
    """Return the text of the cells of each row of images, without the picture."""
    texts, rows = [element["text"] for element in page.all("td")], [e for e in page.all("tr") if "data-number" in e]
    width = len(texts) // max(len(rows), 1)
    return [texts[n + 1 : n + width] for n in range(0, len(texts), width or 1)]


def tips(page):
    """Return the texts that charts show below the pointer."""
    return [title["text"] for title in page.all("title")][1:]


def buttons(page):
    """Return what to look at first: status, number of images and reason."""
    found = [element for element in page.all("button") if "data-reason" in element]
    return [(button["data-status"], button["text"].split(button["data-status"], 1)[1]) for button in found]


class TestContent:
    def test_failed_and_flagged_come_first_and_the_others_as_they_are(self):
        assert cells(Page(render_report(ROWS, "nuclei"))) == [
            ["d.tif", "✕ failed", "–", "file ends early"],
            ["c.tif", "! flagged", "1\u202f234", "pixel size unknown"],
            ["a.tif", "✓ ok", "12", ""],
            ["b.tif", "○ empty", "0", "nothing was found"],
        ]

    def test_summary(self):
        assert summary(Page(render_report(ROWS, "nuclei"))) == {
            "images": "4", "objects": "1\u202f246", "failed": "1", "flagged": "1", "empty": "1", "time": "2.0 s",
        }  # fmt: skip

    def test_no_count_differs_from_zero_objects(self):
        page = Page(render_report([ReportRow("a.tif", "ok", None, 0.1)], "classes"))
        assert summary(page)["objects"] == "–"
        assert not page.all("svg")

    def test_zero_objects(self):
        assert summary(Page(render_report([ROWS[1]], "nuclei")))["objects"] == "0"

    def test_every_status_can_be_chosen(self):
        page = Page(render_report(ROWS, "nuclei"))
        assert {option["value"] for option in page.all("option")} == {"", *(row.status for row in ROWS)}

    def test_no_images(self):
        page = Page(render_report([], "nuclei"))
        assert summary(page)["images"] == "0"
        assert not page.all("td")

    def test_figures_have_a_column_where_any_image_has_them(self):
        figures = ({"median_area_um2": 84.25, "mean_confidence": 0.9}, {"median_area_um2": None})
        rows = [ReportRow(name, "ok", 1, 0.1, figures=found) for name, found in zip("ab", figures, strict=True)]
        page = Page(render_report(rows, "nuclei"))
        assert [head["text"] for head in page.all("th")] == [
            "", "Image", "Status", "Objects", "Median area, µm²", "Mean confidence", "Message",
        ]  # fmt: skip
        assert [row[2:5] for row in cells(page)] == [["1", "84.25", "0.90"], ["1", "–", "–"]]

    def test_sorting_keys_are_plain_numbers(self):
        keys = [e["data-key"] for e in Page(render_report(ROWS, "nuclei")).all("td") if e.get("class") == "figure"]
        assert keys == ["", "1234", "12", "0"]

    def test_reasons_are_counted_without_their_figures(self):
        messages = ("hot pixels: 0.2% of them; 80% at the border", "hot pixels: 31% of them", "blank")
        rows = [ReportRow(f"{n}.tif", "flagged", 1, 0.1, text) for n, text in enumerate(messages)]
        failed = ReportRow("x.tif", "failed", None, 0.1, "plane 3 is missing (hint: copy it again)")
        assert buttons(Page(render_report([*rows, failed], "nuclei"))) == [
            ("failed", "1plane 3 is missing"),
            ("flagged", "2hot pixels: … of them"),
            ("flagged", "180% at the border"),
            ("flagged", "1blank"),
        ]

    def test_nothing_to_look_at_first(self):
        assert "first" not in Page(render_report([ROWS[0]], "nuclei")).all("main")[0]["text"].split("Images")[0]

    def test_links_to_every_file(self):
        paths = (
            "report_files/a_view.js",
            "report_files/a_thumb.webp",
            "a_objects.csv",
            "a_overlay.png",
            "a_labels.tif",
        )
        row = ReportRow("a.tif", "ok", 1, 0.1, overlay="a_overlay.png", files=paths)
        page = Page(render_report([row], "t", ReportOptions(files=("counts.csv",))))
        links = {link["href"]: link["text"] for link in page.all("a")}
        assert links == {
            "a_overlay.png": "outlines", "a_objects.csv": "objects", "a_labels.tif": "labels",
            "counts.csv": "counts.csv",
        }  # fmt: skip
        assert page.all("img")[0]["src"] == "report_files/a_thumb.webp"
        assert next(row["data-view"] for row in page.all("tr") if "data-view" in row) == "report_files/a"


class TestChart:
    def heights(self, page):
        return [float(rect["height"]) for rect in page.all("rect") if rect["class"].startswith("bar")]

    def test_few_images_have_a_bar_each(self):
        page = Page(render_report(ROWS, "nuclei"))
        assert tips(page) == ["a.tif: ok, 12", "b.tif: empty, 0", "c.tif: flagged, 1234", "d.tif: failed"]
        heights = self.heights(page)
        assert max(heights) == heights[2]
        assert heights[0] / heights[2] == pytest.approx(12 / 1234, abs=1e-3)

    def test_many_images_are_a_histogram_of_those_counted(self):
        rows = [ReportRow(f"{n}.tif", "ok", n % 3, 0.1) for n in range(99)] + [ROWS[3]]
        page = Page(render_report(rows, "nuclei"))
        assert tips(page) == ["0 objects: 33 images", "1 objects: 33 images", "2 objects: 33 images"]
        assert len(set(self.heights(page))) == 1

    @given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(2, 9))
    def test_ticks_are_few_round_and_inside(self, low, span, most):
        ticks = nice_ticks(low, low + span, most)
        assert len(ticks) <= most
        assert all(low - 1e-6 * span <= tick <= low + span * (1 + 1e-6) for tick in ticks)
        steps = np.diff(ticks)
        assert np.allclose(steps, steps[0] if len(steps) else 0)

    @given(st.floats(1e-3, 1e6), st.floats(1.01, 1e6))
    def test_logarithmic_ticks_are_few_and_inside(self, low, factor):
        ticks = log_ticks(low, low * factor, 6)
        assert 1 <= len(ticks) <= 6
        assert all(low * 0.999 <= tick <= low * factor * 1.001 for tick in ticks)


class TestSizes:
    def page(self, *sizes):
        rows = [ReportRow("a", "ok", None, 0.1, sizes=SizeHistogram.of(*one)) for one in sizes]
        return Page(render_report(rows, "t"))

    def test_one_histogram_of_the_objects_of_all_images(self):
        page = self.page(("area_um2", [1, 100, 100]), ("area_um2", [10_000]))
        assert page.all("figcaption")[0]["text"] == "Areas of objects median about 100 µm²"
        assert tips(page) == [
            "1 to 22.63 µm²: 1 object", "22.63 to 512 µm²: 2 objects", "512 to 10\u202f000 µm²: 1 object",
        ]  # fmt: skip
        assert "Area of an object (µm²), logarithmic" in [text["text"] for text in page.all("text")]

    @given(st.lists(st.floats(1e-3, 1e9), min_size=1, max_size=50))
    def test_every_object_is_counted_once(self, values):
        counts = [int(text.split(": ")[1].split()[0]) for text in tips(self.page(("volume_mm3", values)))]
        assert sum(counts) == len(values)

    def test_units_are_not_mixed(self):
        page = self.page(("volume_um3", [5, 5]), ("volume_px", [7]), ("volume_um3", []))
        captions = [caption["text"] for caption in page.all("figcaption")]
        assert captions == ["Volumes of objects median 5 µm³", "Volumes of objects median 7 voxels"]

    def test_object_sizes_of_objects(self):
        columns = {"label": np.array([1, 2]), "area_px": np.array([3, 4]), "area_um2": np.array([0.75, 1.0])}
        assert object_sizes(Table("objects", columns)).column == "area_um2"
        del columns["area_um2"]
        sizes = object_sizes(Table("objects", columns))
        assert (sizes.column, sizes.total, sizes.low, sizes.high) == ("area_px", 2, 3, 4)

    def test_object_sizes_of_lesions(self):
        names = np.array(["whole", "whole", "whole", "core", "core"], object)
        columns = {"class": names, "lesion": np.array([0, 1, 2, 0, 1]), "voxels": np.array([9, 6, 3, 2, 2])}
        assert object_sizes(Table("lesions", columns)) == SizeHistogram.of("voxels", [6, 3])

    def test_no_histogram_without_objects(self):
        assert not self.page(("area_px", [])).all("svg")


def unit(values, mean, units=1):
    return GroupFigures(values, units, 2, 0, 9, mean, np.nan, np.nan, np.nan, np.nan, np.nan)


class TestPages:
    """Many images are on several pages, each of them once; the first page says where those of a reason are."""

    ROWS = tuple(
        ReportRow(f"{n}.tif", "failed" if n % 3 == 0 else "flagged" if n % 3 == 1 else "ok", n, 0.1, f"why {n % 2}")
        for n in range(10)
    )

    @pytest.fixture
    def pages(self, tmp_path, monkeypatch):
        monkeypatch.setattr("biounet.reporting.html_report.PAGE_ROWS", 3)
        write_report(tmp_path / "report.html", self.ROWS, title="t")
        names = ["report.html", "report_2.html", "report_3.html", "report_4.html"]
        assert sorted(path.name for path in tmp_path.iterdir()) == names
        return [Page((tmp_path / name).read_text("utf-8")) for name in names]

    def test_every_image_is_on_one_page_and_those_to_look_at_come_first(self, pages):
        shown = [[row["data-name"] for row in page.all("tr") if "data-name" in row] for page in pages]
        assert shown == [
            ["0.tif", "3.tif", "6.tif"], ["9.tif", "1.tif", "4.tif"], ["7.tif", "2.tif", "5.tif"], ["8.tif"],
        ]  # fmt: skip

    def test_every_page_leads_to_its_neighbours_and_to_the_ends(self, pages):
        links = [{one["href"] for one in page.all("a") if one.get("href", "").startswith("report")} for page in pages]
        assert all({"report.html", "report_4.html"} & found for found in links)
        assert {"report.html", "report_3.html"} <= links[1]
        assert [one["text"] for one in pages[2].all("b") if one.get("aria-current")] == ["3", "3"]

    def test_the_first_page_is_about_all_images_and_says_where_others_of_a_reason_are(self, pages):
        assert summary(pages[0])["images"] == "10"
        assert [summary(page) for page in pages[1:]] == [{}, {}, {}]
        links = [one["href"] for one in pages[0].all("a") if "#" in one.get("href", "")]
        assert links == [
            "report_2.html#failed%3Awhy%20%E2%80%A6",
            "report_2.html#flagged%3Awhy%20%E2%80%A6",
            "report_3.html#flagged%3Awhy%20%E2%80%A6",
        ]

    def test_few_rows_are_in_memory_at_a_time(self, tmp_path, monkeypatch):
        """Law: a report on any number of images takes the memory of one page."""
        monkeypatch.setattr("biounet.reporting.html_report.PAGE_ROWS", 5)
        live = []

        class Rows(Sequence):
            def __len__(self):
                return 40

            def __getitem__(self, which):
                if which >= 40:
                    raise IndexError
                row = ReportRow(f"{which}.tif", "ok", which, 0.1, sizes=SizeHistogram.of("area_px", [which + 1]))
                live.append(weakref.ref(row))
                gc.collect()
                assert sum(one() is not None for one in live) <= 6
                return row

        write_report(tmp_path / "report.html", Rows(), title="t")
        assert len(live) == 80
        assert len(list(tmp_path.iterdir())) == 8


class TestGroups:
    WELLS = (unit(("a", "B2"), 10.0), unit(("a", "B3"), 20.0), unit(("b", "C2"), 40.0))
    GROUPS = (
        GroupFigures(("a", ""), 2, 4, 0, 60, 15.0, 7.07, 5.0, np.nan, np.nan, np.nan),
        GroupFigures(("b", ""), 1, 2, 1, 40, 40.0, np.nan, np.nan, np.nan, np.nan, np.nan),
    )

    def page(self, names=("drug", "well"), unit="well", wells=WELLS):
        groups = GroupSummary(names, unit, 2, self.GROUPS, wells)
        return Page(render_report(ROWS, "t", ReportOptions(groups=groups)))

    def test_a_point_for_each_unit_and_the_mean_of_each_group(self):
        page = self.page()
        points = [float(circle["cy"]) for circle in page.all("circle")]
        assert len(points) == 3
        assert "mean 15" in tips(page)
        assert min(points) == points[2]  # 40, the highest

    def test_the_table_says_over_what_errors_are(self):
        text = self.page().all("table")[0]["text"]
        assert "n (wells)" in text
        assert text.endswith("a240157.075b12140––")

    def test_wells_of_a_plate_are_a_map(self):
        page = self.page()
        assert [tip for tip in tips(page) if ": mean" in tip] == [
            "B2: mean 10, 2 images", "B3: mean 20, 2 images", "C2: mean 40, 2 images",
        ]  # fmt: skip
        animals = self.page(("drug", "animal"), "animal", (unit(("a", "M1"), 1.0),))
        assert not [tip for tip in tips(animals) if ": mean" in tip]


def test_counts_over_time_are_a_line_with_gaps():
    rows = [ReportRow("a.tif", "ok", 9, 0.1, times=[(0, 2), (1, None), (2, 3), (3, 4)]), ROWS[0]]
    page = Page(render_report(rows, "t"))
    (curve,) = [path for path in page.all("path") if path.get("class") == "curve"]
    assert curve["d"].count("M") == 2
    assert curve["d"].count("L") == 1
    assert [tip for tip in tips(page) if "frame" in tip][1:] == [
        "a.tif, frame 2: 3 objects", "a.tif, frame 3: 4 objects",
    ]  # fmt: skip


class TestSettings:
    def test_settings_are_below_the_heading(self):
        page = Page(render_report(ROWS, "nuclei", ReportOptions({"holes": "filled", "device": "<cpu>"})))
        assert page.all("header")[0]["text"] == "nucleiholes filleddevice <cpu>"

    def test_no_line_without_settings(self):
        assert not [p for p in Page(render_report(ROWS, "nuclei")).all("p") if p.get("class") == "settings"]


class TestSafety:
    @pytest.mark.parametrize(
        "text", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "' onload='x", "&lt;"]
    )
    def test_names_and_messages_are_text(self, text):
        plain = Page(render_report([ReportRow("a", "failed", None, 0.1, "b", "c.png")], "d"))
        page = Page(render_report([ReportRow(text, "failed", None, 0.1, text, f"{text}.png")], text))
        assert [element["tag"] for element in page.elements] == [element["tag"] for element in plain.elements]
        assert [element.keys() for element in page.elements] == [element.keys() for element in plain.elements]
        assert page.all("h1")[0]["text"] == text
        assert cells(page)[0][0] == cells(page)[0][3] == text

    @settings(max_examples=40, deadline=None)
    @given(st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), min_size=1))
    def test_any_text_round_trips(self, text):
        row = cells(Page(render_report([ReportRow(text, "ok", 1, 0.1, text)], "t")))[0]
        assert row[0] == row[3] == text

    @pytest.mark.parametrize("name", ["a b#1?.png", "100%.png", "ü/日本.png", "x\udce9.png", "javascript:alert(1)"])
    def test_links_point_to_the_overlay(self, name):
        page = Page(render_report([ReportRow("a", "ok", 1, 0.1, overlay=name)], "t"))
        links = {page.all("img")[0]["src"], *(link["href"] for link in page.all("a"))}
        assert len(links) == 1
        link = links.pop()
        assert not set(link) & set("?#: ")
        assert unquote(link, errors="surrogateescape") == name

    def test_undecodable_names(self, tmp_path):
        write_report(tmp_path / "report.html", [ReportRow("x\udce9.tif", "ok", 1, 0.1)], title="t")
        assert "x?.tif" in (tmp_path / "report.html").read_text("utf-8")

    def test_content_security_policy_allows_only_its_script_and_style(self):
        page = Page(render_report(ROWS, "nuclei"))
        policy = next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
        assert policy.startswith("default-src 'none'; ")
        assert "unsafe" not in policy
        for tag in ("script", "style"):
            (element,) = [element for element in page.all(tag) if "type" not in element]
            digest = base64.b64encode(hashlib.sha256(element["text"].encode()).digest()).decode()
            assert f"{tag}-src 'sha256-{digest}'" in policy
        assert not [name for element in page.elements for name in element if name == "style" or name.startswith("on")]

    def test_loads_nothing_from_elsewhere(self):
        assert not re.search(r"https?:|//\w|@import|url\(", render_report(ROWS, "nuclei"))


def test_equal_rows_give_equal_files(tmp_path):
    for name in ("one.html", "two.html"):
        write_report(tmp_path / name, ROWS, title="nuclei")
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()
    assert (tmp_path / "one.html").read_text("utf-8") == render_report(ROWS, "nuclei")
