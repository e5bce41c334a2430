"""The HTML report of a batch: one page that needs no network, and loads nothing but the pictures beside it."""

from __future__ import annotations

import base64
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from biounet.core import Figure, Status
from biounet.files import write_text
from biounet.measurement import GroupSummary, Table
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
from biounet.reporting.view_files import DATA_SUFFIX, PICTURE_SUFFIX, THUMBNAIL_SUFFIX

_BADGES = {"ok": "✓ ok", "empty": "○ empty", "flagged": "! flagged", "failed": "✕ failed"}
_FIRST = ("failed", "flagged")  # in this order; the other images follow as they come
_MAX_IMAGE_BARS = 80  # images with a bar each; more are a histogram
_MAX_BINS = 40
_MAX_REASONS = 12  # that are listed
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*(?:e[+-]?\d+)?%?")
_NAMES = {"_labels": "labels", "_objects": "objects", "_overlay": "outlines", "_report": "case report"}
_HEADINGS = {
    "density_per_mm2": "Objects per mm²",
    "density_per_mm3": "Objects per mm³",
    "mean_confidence": "Mean confidence",
}


class Sizes(NamedTuple):
    """Positive sizes (n,) of the objects of an image, and the column of its table that they are from."""

    column: str
    values: NDArray[np.floating[Any]]


@dataclass(frozen=True)
class ReportRow:
    """One image in the report.

    Attributes
    ----------
    status
        ``ok``, ``empty`` (no objects), ``flagged`` (with warnings) or ``failed``.
    count
        Number of objects; None where nothing was counted.
    message
        Error or notes.
    overlay
        Path of the overlay relative to the page, with ``/``.
    sizes
        Of the objects; None where they were not measured.
    files
        Paths of all its files relative to the page; those of the viewer are among them.
    figures
        Further figures by their names, as in ``counts.csv``.
    warnings
        Why it is flagged; else, all of `message`.
    times
        Number and count of each frame of a time series.
    """

    image: str
    status: Status
    count: int | None
    seconds: float
    message: str = ""
    overlay: str | None = None
    sizes: Sizes | None = None
    files: Sequence[str] = ()
    figures: Mapping[str, Figure] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    times: Sequence[tuple[int, int | None]] = ()

    @property
    def view(self) -> str | None:
        """What the names of its files for the viewer begin with; None where they are not there."""
        return next((path.removesuffix(DATA_SUFFIX) for path in self.files if path.endswith(DATA_SUFFIX)), None)

    @property
    def reasons(self) -> dict[str, str]:
        """Why it failed or is flagged: texts, by the same without their figures, for counting equal ones."""
        cause = self.message.partition(" (hint: ")[0]
        parts = [cause] if self.status == "failed" else self.warnings or self.message.split("; ")
        return {_NUMBER.sub("…", part): part for part in parts if part}


def object_sizes(table: Table) -> Sizes:
    """Return the areas or volumes of the counted objects or lesions of a table, in a unit of length if it has one."""
    name = table.size_column
    return Sizes(name, table.columns[name][table.counted].astype(np.float32))


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

    Parameters
    ----------
    path
        The HTML file; all files of `rows` are relative to its folder.
    rows
        One per image. Those that failed come first, then those that are flagged, else in the order given.
    title
        Heading of the page.
    """
    options = options or ReportOptions()
    write_text(path, render_report(rows, title, options, _Files(path.parent if options.single_file else None)))


def render_report(
    rows: Sequence[ReportRow], title: str, options: ReportOptions | None = None, files: _Files | None = None
) -> str:
    """Return the page: summary, what to look at first, charts, and a table of images to sort and filter."""
    options, files = options or ReportOptions(), files or _Files(None)
    columns = _figure_columns(rows)
    style = _resource("report.css") + f"#images {{ --figures: {1 + len(columns)}; }}\n"
    script = _resource("report.js") + _resource("viewer.js")
    ordered = sorted(rows, key=lambda row: _FIRST.index(row.status) if row.status in _FIRST else len(_FIRST))
    places = {id(row): place for place, row in enumerate(rows)}
    return Template(_resource("report.html")).substitute(
        policy=escape(_policy(style, script)),
        title=escape(title),
        style=style,
        settings=_settings(options.settings),
        summary=_summary(rows),
        attention=_attention(rows),
        charts=_charts(rows, options.groups),
        heads=_heads(columns),
        rows="\n".join(_table_row(places[id(row)], row, columns, files) for row in ordered),
        files="" if options.single_file else _links(options.files, Path),
        data=_data(rows, files),
        script=script,
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


def _data(rows: Sequence[ReportRow], files: _Files) -> str:
    """Return what the script reads: the colours of objects and, in a single file, the data of all images."""
    colours = [[bytes(colour).hex() for colour in palette(bright=bright)] for bright in (False, True)]
    parts = [f'<script type="application/json" id="palettes">{_json(colours)}</script>']
    for place, row in enumerate(rows):
        view = None if row.view is None else files.view(row.view)
        if view is not None:
            parts.append(f'<script type="application/json" id="view-{place}">{view}</script>')
    return "\n".join(parts)


def _settings(settings: Mapping[str, str]) -> str:
    parts = "".join(f"<span>{escape(name)} <b>{escape(value)}</b></span>" for name, value in settings.items())
    return f'<p class="settings">{parts}</p>' if parts else ""


def _summary(rows: Sequence[ReportRow]) -> str:
    total = Counter(row.status for row in rows)
    counts = [row.count for row in rows if row.count is not None]
    figures = [
        ("images", _grouped(len(rows)), ""),
        ("objects", _grouped(sum(counts)) if counts else "–", ""),
        *(
            (status, _grouped(total[status]), status if total[status] else "")
            for status in ("failed", "flagged", "empty")
        ),
        ("time", _duration(sum(row.seconds for row in rows)), ""),
    ]
    tiles = "".join(f'<div class="{mark}"><dt>{name}</dt><dd>{value}</dd></div>' for name, value, mark in figures)
    return f'<dl class="summary">{tiles}</dl>'


def _grouped(count: int) -> str:
    return f"{count:,}".replace(",", "\u202f")


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _attention(rows: Sequence[ReportRow]) -> str:
    """Return the reasons for which images failed or are flagged, the most frequent first, as buttons that show them."""
    items = []
    for status in _FIRST:
        found = [row for row in rows if row.status == status]
        texts = {reason: text for row in found for reason, text in row.reasons.items()}
        counts = Counter(reason for row in found for reason in row.reasons)
        for reason, count in counts.most_common(_MAX_REASONS):
            items.append(_reason(status, reason, count, texts[reason] if count == 1 else reason))
        if len(counts) > _MAX_REASONS:
            more = plural(len(counts) - _MAX_REASONS, "more reason")
            items.append(_reason(status, "", len(found), f"{more}: show all that are {status}"))
    if not items:
        return ""
    return f'<section class="attention"><h2>Look at these first</h2><ul>{"".join(items)}</ul></section>'


def _reason(status: str, reason: str, count: int, text: str) -> str:
    return (
        f'<li><button type="button" data-status="{status}" data-reason="{escape(reason)}">'
        f'<span><span class="badge {status}">{_BADGES[status]}</span></span><b>{_grouped(count)}</b>'
        f"<span>{escape(text)}</span></button></li>"
    )


def _figure_columns(rows: Sequence[ReportRow]) -> dict[str, str]:
    """Return the figures that have a column, and its heading."""
    names = dict.fromkeys(name for row in rows for name, value in row.figures.items() if value is not None)
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
    reasons = f' data-reasons="{escape(chr(10).join(row.reasons))}"' if row.status in _FIRST else ""
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


def _charts(rows: Sequence[ReportRow], groups: GroupSummary | None) -> str:
    series = {row.image: row.times for row in rows if len(row.times) > 1}
    charts = [_count_chart(rows), *_size_charts(rows), *([] if groups is None else group_charts(groups))]
    charts += [time_chart(series)] if series else []
    shown = "\n".join(chart for chart in charts if chart)
    return f'<section class="charts" aria-label="Charts">{shown}</section>' if shown else ""


def _count_chart(rows: Sequence[ReportRow]) -> str:
    """Return a bar for each image or, for many images, a histogram of their counts."""
    counts = np.array([row.count for row in rows if row.count is not None], dtype=np.int64)
    if not counts.size:
        return ""
    if len(rows) <= _MAX_IMAGE_BARS:
        items = [
            Bar(n, n + 1, row.count or 0, f"{row.image}: {_outcome(row)}", row.status) for n, row in enumerate(rows)
        ]
        x = Axis(0, max(len(rows), 4), "images, in the order of their names", ticked=False)
        return bars("Objects in each image", items, x, "objects")
    top = int(counts.max()) + 1
    steps = nice_ticks(0, top, _MAX_BINS)
    width = max(1, round(steps[1] - steps[0]))
    images = np.bincount(counts // width)
    items = [
        Bar(n * width, (n + 1) * width, int(count), f"{_span(n, width)} objects: {plural(int(count), 'image')}")
        for n, count in enumerate(images)
    ]
    x = Axis(0, len(images) * width, "objects in an image")
    return bars("Images by number of objects", items, x, "images", note=f"median {number(float(np.median(counts)))}")


def _span(place: int, width: int) -> str:
    return str(place) if width == 1 else f"{place * width} to {(place + 1) * width - 1}"


def _size_charts(rows: Sequence[ReportRow]) -> list[str]:
    """Return a histogram of the sizes of all objects for each unit of the images."""
    columns: dict[str, list[NDArray[Any]]] = {}
    for row in rows:
        if row.sizes is not None and len(row.sizes.values):
            columns.setdefault(row.sizes.column, []).append(row.sizes.values)
    return [size_histogram(column, np.concatenate(values)) for column, values in columns.items()]


def _outcome(row: ReportRow) -> str:
    return row.status if row.count is None else f"{row.status}, {row.count}"
