"""The HTML report of a batch: pages that need no network, and load nothing but the pictures beside them."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

import numpy as np

from biounet.core import Figure
from biounet.files import write_text
from biounet.measurement import GroupSummary
from biounet.reporting.charts import (
    Axis,
    Bar,
    bars,
    escape,
    nice_ticks,
    number,
    plural,
    size_histogram,
    size_unit,
    time_chart,
)
from biounet.reporting.group_charts import group_charts
from biounet.reporting.overlays import palette
from biounet.reporting.page import digest
from biounet.reporting.report_rows import FIRST, MAX_BARS, ReportRow, Survey, survey
from biounet.reporting.view_files import DATA_SUFFIX, PICTURE_SUFFIX, THUMBNAIL_SUFFIX

_BADGES = {"ok": "✓ ok", "empty": "○ empty", "flagged": "! flagged", "failed": "✕ failed"}
_MAX_BINS = 40
_MAX_REASONS = 12  # that are listed, and pages for each
_NEIGHBOURS = 3  # pages before and after the one shown that there are links to
PAGE_ROWS = 2000
"""Images on each page."""
_NAMES = {"_labels": "labels", "_objects": "objects", "_overlay": "outlines", "_report": "case report"}
_HEADINGS = {
    "density_per_mm2": "Objects per mm²",
    "density_per_mm3": "Objects per mm³",
    "mean_confidence": "Mean confidence",
}


@dataclass(frozen=True)
class ReportOptions:
    """How a report is written.

    Attributes
    ----------
    settings
        Settings of the batch, for the line below the heading.
    files
        Further files of the batch, relative to the page.
    groups
        Figures of groups of images, for a plot, a table, and a map of the wells of a plate.
    single_file
        Whether all pictures stand in the page itself, so that it can be sent; links to other files are left out.
    """

    settings: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[str] = ()
    groups: GroupSummary | None = None
    single_file: bool = False


def write_report(path: Path, rows: Sequence[ReportRow], *, title: str, options: ReportOptions | None = None) -> None:
    """Write the report of a batch, atomically; equal rows give equal bytes.

    More than 2000 images are on several pages, ``report.html``, ``report_2.html`` and so on.

    Parameters
    ----------
    path
        The HTML file; all files of `rows` are relative to its folder.
    rows
        One per image; a sequence may make them when they are asked for, and those of one page are held in memory. Those
        that failed come first, then those that are flagged, else in the order given.
    title
        Heading of the page.
    """
    options = options or ReportOptions()
    files = _Files(path.parent if options.single_file else None)
    report = _Report(rows, survey(rows), title, options, files)
    for page in reversed(range(report.pages)):  # the first says what is on the others
        write_text(page_path(path, page), report.render(page, path.name))


def page_path(path: Path, number: int) -> Path:
    """Return the path of a page of a report, counted from 0."""
    return path if number == 0 else path.with_name(f"{path.stem}_{number + 1}{path.suffix}")


def page_count(images: int) -> int:
    """Return the number of pages of a report on so many images."""
    return max(1, -(-images // PAGE_ROWS))


def render_report(
    rows: Sequence[ReportRow], title: str, options: ReportOptions | None = None, files: _Files | None = None
) -> str:
    """Return the first page: summary, what to look at first, charts, and a table of images to sort and filter."""
    report = _Report(rows, survey(rows), title, options or ReportOptions(), files or _Files(None))
    pages = [report.render(number, "report.html") for number in reversed(range(report.pages))]
    return pages[-1]


class _Report:
    """The pages of a report, of which the first is rendered last: it says on which page images of a reason are."""

    def __init__(
        self, rows: Sequence[ReportRow], found: Survey, title: str, options: ReportOptions, files: _Files
    ) -> None:
        self._rows, self._found, self._title, self._options, self._files = rows, found, title, options, files
        self._columns = _figure_columns(found.figures)
        self._pages_of: dict[tuple[str, str], list[int]] = {}  # by status and reason, the last page first
        self.pages = page_count(len(rows))

    def render(self, number: int, name: str) -> str:
        """Return a page, counted from 0; `name` is that of the first one."""
        places = self._found.order[number * PAGE_ROWS : (number + 1) * PAGE_ROWS]
        shown = [(place, self._rows[place]) for place in places]
        self._note_reasons(number, [row for _, row in shown])
        style = _resource("report.css") + f"#images {{ --figures: {1 + len(self._columns)}; }}\n"
        script = _resource("report.js") + _resource("viewer.js")
        first, options, files = number == 0, self._options, self._files
        return Template(_resource("report.html")).substitute(
            policy=escape(_policy(style, script)),
            title=escape(self._title if first else f"{self._title}, page {number + 1} of {self.pages}"),
            style=style,
            settings=_settings(options.settings) if first else "",
            summary=_summary(self._found) if first else "",
            attention=_attention(self._found, self._pages_of, Path(name)) if first else "",
            charts=_charts(self._found, options.groups) if first else "",
            pages=_page_links(number, self.pages, Path(name)),
            heads=_heads(self._columns),
            rows="\n".join(_table_row(place, row, self._columns, files) for place, row in shown),
            files="" if options.single_file else _links(options.files, Path),
            data=_data(shown, files),
            script=script,
        )

    def _note_reasons(self, number: int, rows: Sequence[ReportRow]) -> None:
        found = {(row.status, reason): None for row in rows if row.status in FIRST for reason in row.reasons}
        for key in found:
            self._pages_of.setdefault(key, []).append(number)


def _page_links(number: int, count: int, path: Path) -> str:
    """Return links to the first, the last and the neighbouring pages; nothing if there is one page only."""
    if count == 1:
        return ""
    shown = sorted({0, count - 1, *range(max(0, number - _NEIGHBOURS), min(count, number + _NEIGHBOURS + 1))})
    parts, before = [], -1
    for page in shown:
        parts += ["<span>…</span>"] if page > before + 1 else []
        address = escape(link(page_path(path, page).name))
        text = str(page + 1)
        parts.append(f'<b aria-current="page">{text}</b>' if page == number else f'<a href="{address}">{text}</a>')
        before = page
    return (
        f'<nav class="pages" aria-label="Pages"><span>Page</span>{"".join(parts)}'
        f"<small>{_grouped(PAGE_ROWS)} images on each; filters and sorting are about one page</small></nav>"
    )


class _Files:
    """The files that the page shows: by their links, or with their contents."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    @property
    def embedded(self) -> bool:
        return self._folder is not None

    def picture(self, path: str) -> str:
        """Return the address of a picture, or the picture itself."""
        if self._folder is None:
            return link(path)
        content = base64.b64encode((self._folder / path).read_bytes()).decode()
        return f"data:image/{path.rpartition('.')[2]};base64,{content}"

    def view(self, view: str) -> str | None:
        """Return the data of an image with its picture as JSON; None where the page loads them when needed."""
        if self._folder is None:
            return None
        script = (self._folder / f"{view}{DATA_SUFFIX}").read_text(encoding="utf-8")
        data = json.loads(script[script.index("(") + 1 : script.rindex(")")])
        return _json(data | {"picture": self.picture(f"{view}{PICTURE_SUFFIX}")})


def _json(data: Any) -> str:  # noqa: ANN401 - JSON
    """Return JSON that can stand in a page."""
    return json.dumps(data).replace("<", "\\u003c")


def link(path: str) -> str:
    """Return the address of a file relative to the page."""
    return quote(os.fsencode(path))


@cache
def _resource(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """Return what the page may load: this style and script, and the files beside it."""
    return (
        f"default-src 'none'; img-src 'self' file: data:; style-src '{digest(style)}'; "
        f"script-src '{digest(script)}' 'self' file:; base-uri 'none'; form-action 'none'"
    )


def _data(rows: Sequence[tuple[int, ReportRow]], files: _Files) -> str:
    """Return what the script reads: the colours of objects and, in a single file, the data of all images."""
    colours = [[bytes(colour).hex() for colour in palette(bright=bright)] for bright in (False, True)]
    parts = [f'<script type="application/json" id="palettes">{_json(colours)}</script>']
    for place, row in rows:
        view = None if row.view is None else files.view(row.view)
        if view is not None:
            parts.append(f'<script type="application/json" id="view-{place}">{view}</script>')
    return "\n".join(parts)


def _settings(settings: Mapping[str, str]) -> str:
    parts = "".join(f"<span>{escape(name)} <b>{escape(value)}</b></span>" for name, value in settings.items())
    return f'<p class="settings">{parts}</p>' if parts else ""


def _summary(found: Survey) -> str:
    total = found.statuses
    figures = [
        ("images", _grouped(total.total()), ""),
        ("objects", _grouped(sum(found.counts)) if found.counts else "–", ""),
        *(
            (status, _grouped(total[status]), status if total[status] else "")
            for status in ("failed", "flagged", "empty")
        ),
        ("time", _duration(found.seconds), ""),
    ]
    tiles = "".join(f'<div class="{mark}"><dt>{name}</dt><dd>{value}</dd></div>' for name, value, mark in figures)
    return f'<dl class="summary">{tiles}</dl>'


def _grouped(count: int) -> str:
    return f"{count:,}".replace(",", "\u202f")


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _attention(found: Survey, pages_of: Mapping[tuple[str, str], Sequence[int]], path: Path) -> str:
    """Return the reasons for which images failed or are flagged, the most frequent first, as buttons that show them."""
    items = []
    for status in FIRST:
        counts, texts = found.reasons[status], found.reason_texts
        for reason, count in counts.most_common(_MAX_REASONS):
            pages = [page for page in reversed(pages_of.get((status, reason), ())) if page]
            links = _links_to_reason(status, reason, pages[:_MAX_REASONS], path)
            items.append(_reason(status, reason, count, (texts[reason] if count == 1 else reason, links)))
        if len(counts) > _MAX_REASONS:
            more = plural(len(counts) - _MAX_REASONS, "more reason")
            items.append(_reason(status, "", found.statuses[status], (f"{more}: show all that are {status}", "")))
    if not items:
        return ""
    return f'<section class="attention"><h2>Look at these first</h2><ul>{"".join(items)}</ul></section>'


def _links_to_reason(status: str, reason: str, pages: Sequence[int], path: Path) -> str:
    """Return links to the other pages that have images of a reason."""
    target = quote(f"{status}:{reason}")
    links = [f'<a href="{escape(link(page_path(path, page).name))}#{target}">{page + 1}</a>' for page in pages]
    return f'<small class="pages">also on page {" ".join(links)}</small>' if links else ""


def _reason(status: str, reason: str, count: int, content: tuple[str, str]) -> str:
    text, links = content
    return (
        f'<li><button type="button" data-status="{status}" data-reason="{escape(reason)}">'
        f'<span><span class="badge {status}">{_BADGES[status]}</span></span><b>{_grouped(count)}</b>'
        f"<span>{escape(text)}</span></button>{links}</li>"
    )


def _figure_columns(names: Iterable[str]) -> dict[str, str]:
    """Return the figures that have a column, and its heading."""
    names = list(names)
    medians = {name: _median_heading(name) for name in names if name.startswith(("median_area", "median_volume"))}
    return {name: heading for name, heading in (medians | _HEADINGS).items() if name in names}


def _median_heading(name: str) -> str:
    quantity, unit = size_unit(name.removeprefix("median_"))
    return f"Median {quantity.lower()}, {unit.replace('pixels', 'px')}"


def _heads(columns: Mapping[str, str]) -> str:
    def head(name: str, kind: str = "", css: str = "") -> str:
        numeric = ' data-kind="number"' if kind else ""
        return f'<th class="{css or kind}"{numeric}><button type="button">{escape(name)}</button></th>'

    figures = "".join(head(heading, "figure") for heading in ("Objects", *columns.values()))
    return f'<th class="picture"></th>{head("Image")}{head("Status", css="status")}{figures}{head("Message")}'


def _table_row(place: int, row: ReportRow, columns: Mapping[str, str], files: _Files) -> str:
    name, picture = f"<bdi>{escape(row.image)}</bdi>", ""
    shown = row.overlay if row.view is None else f"{row.view}{THUMBNAIL_SUFFIX}"
    if shown is not None:
        address = escape("#" if files.embedded else link(row.overlay or shown))
        source = escape(files.picture(shown))
        image = f'<img src="{source}" alt="" loading="lazy" decoding="async" width="96" height="72">'
        picture = f'<a class="open" href="{address}" tabindex="-1" aria-hidden="true">{image}</a>'
        name = f'<a class="open" href="{address}">{name}</a>'
    if not files.embedded and (links := _links(row.files, _short_name)):
        name += f'<span class="files">{links}</span>'
    view = "" if row.view is None else f' data-view="{escape(link(row.view))}"'
    reasons = f' data-reasons="{escape(chr(10).join(row.reasons))}"' if row.status in FIRST else ""
    figures = [("Objects", row.count), *((heading, row.figures.get(key)) for key, heading in columns.items())]
    return (
        f'<tr data-number="{place}" data-status="{row.status}" data-name="{escape(row.image)}"'
        f' data-message="{escape(row.message)}"{view}{reasons}><td class="picture">{picture}</td>'
        f'<td class="name" data-key="{escape(row.image)}">{name}</td>'
        f'<td data-key="{row.status}"><span class="badge {row.status}">{_BADGES[row.status]}</span></td>'
        f"{''.join(_figure_cell(heading, value) for heading, value in figures)}"
        f'<td class="message" data-key="{escape(row.message)}"><bdi>{escape(row.message)}</bdi></td></tr>'
    )


def _figure_cell(heading: str, value: Figure) -> str:
    if value is None:
        shown = "–"
    elif isinstance(value, str):
        shown = value
    elif isinstance(value, int):
        shown = _grouped(value)
    else:
        shown = f"{value:.2f}" if "confidence" in heading else number(value)
    key = "" if value is None else escape(str(value))
    return f'<td class="figure" data-label="{escape(heading)}" data-key="{key}">{escape(shown)}</td>'


def _links(paths: Sequence[str], name: Callable[[str], object]) -> str:
    shown = [(link(path), str(name(path))) for path in paths if name(path)]
    return "".join(f'<a href="{escape(address)}">{escape(text)}</a>' for address, text in shown)


def _short_name(path: str) -> str:
    """Return what a file of an image is; nothing for those that the viewer shows."""
    return next((name for ending, name in _NAMES.items() if ending in path.rpartition("/")[2]), "")


def _charts(found: Survey, groups: GroupSummary | None) -> str:
    charts = [_count_chart(found), *map(size_histogram, found.sizes), *([] if groups is None else group_charts(groups))]
    charts += [time_chart(found.series, found.series_count)] if found.series else []
    shown = "\n".join(chart for chart in charts if chart)
    return f'<section class="charts" aria-label="Charts">{shown}</section>' if shown else ""


def _count_chart(found: Survey) -> str:
    """Return a bar for each image or, for many images, a histogram of their counts."""
    images = found.statuses.total()
    if not found.counts:
        return ""
    if images <= MAX_BARS:
        items = [Bar(n, n + 1, one.objects, one.text, one.status) for n, one in enumerate(found.first)]
        x = Axis(0, max(images, 4), "images, in the order of their names", ticked=False)
        return bars("Objects in each image", items, x, "objects")
    counts = np.array(found.counts, dtype=np.int64)
    top = int(counts.max()) + 1
    steps = nice_ticks(0, top, _MAX_BINS)
    width = max(1, round(steps[1] - steps[0]))
    bins = np.bincount(counts // width)
    items = [
        Bar(n * width, (n + 1) * width, int(count), f"{_span(n, width)} objects: {plural(int(count), 'image')}")
        for n, count in enumerate(bins)
    ]
    x = Axis(0, len(bins) * width, "objects in an image")
    return bars("Images by number of objects", items, x, "images", note=f"median {number(float(np.median(counts)))}")


def _span(place: int, width: int) -> str:
    return str(place) if width == 1 else f"{place * width} to {(place + 1) * width - 1}"
