"""The HTML report: its contents, that names cannot inject markup, and that it needs no network."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from urllib.parse import unquote

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from biounet.measurement import Table
from biounet.reporting import ReportRow, Sizes, object_sizes, write_report
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
    """Return the text of the cells of each row, without the picture."""
    texts = [element["text"] for element in page.all("td")]
    return [texts[n + 1 : n + 6] for n in range(0, len(texts), 6)]


class TestContent:
    def test_one_row_per_image_in_order(self):
        assert cells(Page(render_report(ROWS, "nuclei"))) == [
            ["a.tif", "✓ ok", "12", "0.50", ""],
            ["b.tif", "○ empty", "0", "0.25", "nothing was found"],
            ["c.tif", "! flagged", "1\u202f234", "1.00", "pixel size unknown"],
            ["d.tif", "✕ failed", "–", "0.25", "file ends early"],
        ]

    def test_summary(self):
        assert summary(Page(render_report(ROWS, "nuclei"))) == {
            "images": "4", "objects": "1\u202f246", "empty": "1", "flagged": "1", "failed": "1", "seconds": "2.0",
        }  # fmt: skip

    def test_no_count_differs_from_zero_objects(self):
        page = Page(render_report([ReportRow("a.tif", "ok", None, 0.1)], "classes"))
        assert summary(page)["objects"] == "–"
        assert not page.all("svg")

    def test_zero_objects(self):
        assert summary(Page(render_report([ROWS[1]], "nuclei")))["objects"] == "0"

    def test_filters_and_badges_have_every_status(self):
        page = Page(render_report(ROWS, "nuclei"))
        assert [option["value"] for option in page.all("option")] == ["", *(row.status for row in ROWS)]

    def test_no_images(self):
        page = Page(render_report([], "nuclei"))
        assert summary(page)["images"] == "0"
        assert not page.all("td")

    def test_sorting_keys_are_plain_numbers(self):
        keys = [
            element["data-key"] for element in Page(render_report(ROWS, "nuclei")).all("td") if "data-key" in element
        ]
        assert keys[2::5] == ["12", "0", "1234", ""]


class TestChart:
    def heights(self, page):
        return [float(rect["height"]) for rect in page.all("rect") if rect["class"].startswith("bar")]

    def test_few_images_have_a_bar_each(self):
        page = Page(render_report(ROWS, "nuclei"))
        assert [title["text"] for title in page.all("title")][1:] == [
            "a.tif: ok, 12", "b.tif: empty, 0", "c.tif: flagged, 1234", "d.tif: failed",
        ]  # fmt: skip
        heights = self.heights(page)
        assert max(heights) == heights[2]
        assert heights[0] - heights[1] == pytest.approx(150 * 12 / 1234, abs=0.02)

    def test_many_images_are_a_histogram_of_those_counted(self):
        rows = [ReportRow(f"{n}.tif", "ok", n % 3, 0.1) for n in range(99)] + [ROWS[3]]
        page = Page(render_report(rows, "nuclei"))
        assert [title["text"] for title in page.all("title")][1:] == [
            "0 to 0 objects: 33 images", "1 to 1 objects: 33 images", "2 to 2 objects: 33 images",
        ]  # fmt: skip
        assert len(set(self.heights(page))) == 1


class TestSizes:
    def titles(self, page):
        return [title["text"] for title in page.all("title")][1:]

    def page(self, *sizes):
        rows = [ReportRow("a", "ok", None, 0.1, sizes=Sizes(name, np.array(values, float))) for name, values in sizes]
        return Page(render_report(rows, "t"))

    def test_one_histogram_of_the_objects_of_all_images(self):
        page = self.page(("area_um2", [1, 100, 100]), ("area_um2", [10_000]))
        assert page.all("figcaption")[0]["text"] == "Areas of objects"
        assert self.titles(page) == [
            "1 to 21.54 µm²: 1 objects", "21.54 to 464.2 µm²: 2 objects", "464.2 to 1e+04 µm²: 1 objects",
        ]  # fmt: skip
        assert "median 100" in page.all("text")[1]["text"]

    @given(st.lists(st.floats(1e-3, 1e9), min_size=1, max_size=50))
    def test_every_object_is_counted_once(self, values):
        counts = [int(text.split(": ")[1].split()[0]) for text in self.titles(self.page(("volume_mm3", values)))]
        assert sum(counts) == len(values)

    def test_units_are_not_mixed(self):
        page = self.page(("volume_um3", [5, 5]), ("volume_px", [7]), ("volume_um3", []))
        assert [caption["text"] for caption in page.all("figcaption")] == ["Volumes of objects"] * 2
        assert self.titles(page) == ["5 to 5 µm³: 2 objects", "7 to 7 voxels: 1 objects"]

    def test_object_sizes_of_objects(self):
        columns = {"label": np.array([1, 2]), "area_px": np.array([3, 4]), "area_um2": np.array([0.75, 1.0])}
        assert object_sizes(Table("objects", columns)).column == "area_um2"
        del columns["area_um2"]
        sizes = object_sizes(Table("objects", columns))
        assert (sizes.column, sizes.values.tolist()) == ("area_px", [3, 4])

    def test_object_sizes_of_lesions(self):
        names = np.array(["whole", "whole", "whole", "core", "core"], object)
        columns = {"class": names, "lesion": np.array([0, 1, 2, 0, 1]), "voxels": np.array([9, 6, 3, 2, 2])}
        assert object_sizes(Table("lesions", columns)).values.tolist() == [6, 3]

    def test_no_histogram_without_objects(self):
        assert not self.page(("area_px", [])).all("svg")


class TestSettings:
    def test_settings_are_below_the_heading(self):
        page = Page(render_report(ROWS, "nuclei", {"join": "0.8", "device": "<cpu>"}))
        assert page.all("header")[0]["text"] == "nucleijoin 0.8device <cpu>"

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
        assert cells(page)[0][0] == cells(page)[0][4] == text

    @settings(max_examples=40, deadline=None)
    @given(st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), min_size=1))
    def test_any_text_round_trips(self, text):
        row = cells(Page(render_report([ReportRow(text, "ok", 1, 0.1, text)], "t")))[0]
        assert row[0] == row[4] == text

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
            (element,) = page.all(tag)
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
