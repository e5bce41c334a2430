"""The HTML report of a batch: one page that needs no network and loads nothing but the overlays."""

from __future__ import annotations

import base64
import hashlib
import html
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from biounet.files import write_text
from biounet.measurement import GroupSummary, Table

_BADGES = {"ok": "✓ ok", "empty": "○ empty", "flagged": "! flagged", "failed": "✕ failed"}
_MAX_IMAGE_BARS = 80  # images with a bar each; more are a histogram
_MAX_BINS = 40
_UNITS = {"um2": "µm²", "um3": "µm³", "mm2": "mm²", "mm3": "mm³", "px": "pixels"}


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
    """

    image: str
    status: Literal["ok", "empty", "flagged", "failed"]
    count: int | None
    seconds: float
    message: str = ""
    overlay: str | None = None
    sizes: Sizes | None = None


def object_sizes(table: Table) -> Sizes:
    """Return the areas or volumes of the counted objects or lesions of a table, in a unit of length if it has one."""
    name = table.size_column
    return Sizes(name, table.columns[name][table.counted].astype(np.float32))


def write_report(
    path: Path,
    rows: Sequence[ReportRow],
    *,
    title: str,
    settings: Mapping[str, str] | None = None,
    groups: GroupSummary | None = None,
) -> None:
    """Write the report of a batch, atomically; equal rows give equal bytes.

    Parameters
    ----------
    path
        The HTML file; the overlays of `rows` are relative to its folder.
    rows
        One per image, in the initial order of the table.
    title
        Heading of the page.
    settings
        Settings of the batch, for the line below the heading.
    groups
        Figures of groups of images, for a table of their means.
    """
    write_text(path, render_report(rows, title, settings, groups))


def render_report(
    rows: Sequence[ReportRow],
    title: str,
    settings: Mapping[str, str] | None = None,
    groups: GroupSummary | None = None,
) -> str:
    """Return the page: summary, histograms, and a table of images to sort and filter."""
    style, script = _resource("report.css"), _resource("report.js")
    policy = (
        f"default-src 'none'; img-src 'self' file:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return Template(_resource("report.html")).substitute(
        policy=_escape(policy),
        title=_escape(title),
        style=style,
        settings=_settings(settings or {}),
        summary=_summary(rows),
        counts=_count_chart(rows),
        sizes=_size_charts(rows),
        groups="" if groups is None else _group_table(groups),
        rows="\n".join(_table_row(number, row) for number, row in enumerate(rows)),
        script=script,
    )


@cache
def _resource(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _escape(text: str) -> str:
    """Return text for HTML, inside and outside of quotes; undecodable bytes of file names become ``?``."""
    return html.escape(text.encode("utf-8", "replace").decode("utf-8"), quote=True)


def _digest(text: str) -> str:
    """Return the hash that allows this script or style, with the line break before it, in the page's policy."""
    digest = hashlib.sha256(b"\n" + text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _grouped(number: int) -> str:
    return f"{number:,}".replace(",", "\u202f")


def _settings(settings: Mapping[str, str]) -> str:
    parts = "".join(f"<span>{_escape(name)} <b>{_escape(value)}</b></span>" for name, value in settings.items())
    return f'<p class="settings">{parts}</p>' if parts else ""


def _summary(rows: Sequence[ReportRow]) -> str:
    number = {status: sum(row.status == status for row in rows) for status in _BADGES}
    counts = [row.count for row in rows if row.count is not None]
    figures = [
        ("images", _grouped(len(rows)), ""),
        ("objects", _grouped(sum(counts)) if counts else "–", ""),
        *((status, _grouped(number[status]), status if number[status] else "") for status in _BADGES if status != "ok"),
        ("seconds", f"{sum(row.seconds for row in rows):.1f}", ""),
    ]
    tiles = "".join(f'<div class="{mark}"><dt>{name}</dt><dd>{value}</dd></div>' for name, value, mark in figures)
    return f'<dl class="summary">{tiles}</dl>'


def _table_row(number: int, row: ReportRow) -> str:
    name, picture = f"<bdi>{_escape(row.image)}</bdi>", ""
    if row.overlay is not None:
        link = _escape(quote(os.fsencode(row.overlay)))
        picture = (
            f'<a href="{link}"><img src="{link}" alt="" loading="lazy" decoding="async" width="72" height="72"></a>'
        )
        name = f'<a href="{link}">{name}</a>'
    count = "" if row.count is None else str(row.count)
    shown = "–" if row.count is None else _grouped(row.count)
    return (
        f'<tr data-number="{number}" data-status="{row.status}"><td class="picture">{picture}</td>'
        f'<td class="name" data-key="{_escape(row.image)}">{name}</td>'
        f'<td data-key="{row.status}"><span class="badge {row.status}">{_BADGES[row.status]}</span></td>'
        f'<td class="figure" data-key="{count}">{shown}</td>'
        f'<td class="figure" data-key="{row.seconds:.4f}">{row.seconds:.2f}</td>'
        f'<td class="message" data-key="{_escape(row.message)}"><bdi>{_escape(row.message)}</bdi></td></tr>'
    )


def _count_chart(rows: Sequence[ReportRow]) -> str:
    """Return a bar for each image or, for many images, a histogram of their counts."""
    counts = np.array([row.count for row in rows if row.count is not None], dtype=np.int64)
    if not counts.size:
        return ""
    if len(rows) <= _MAX_IMAGE_BARS:
        bars = [(row.count or 0, f"{row.image}: {_outcome(row)}", row.status) for row in rows]
        return _bars(bars, "Objects in each image", "images, in the order of the table as it came")
    width = -(-(int(counts.max()) + 1) // _MAX_BINS)
    images = np.bincount(counts // width)
    bars = [(int(n), f"{i * width} to {(i + 1) * width - 1} objects: {n} images", "ok") for i, n in enumerate(images)]
    return _bars(bars, "Images by number of objects", f"objects per image, 0 to {len(images) * width - 1}")


def _size_charts(rows: Sequence[ReportRow]) -> str:
    """Return a histogram of the sizes of all objects for each unit of the images."""
    columns: dict[str, list[NDArray[Any]]] = {}
    for row in rows:
        if row.sizes is not None and len(row.sizes.values):
            columns.setdefault(row.sizes.column, []).append(row.sizes.values)
    return "\n".join(_size_chart(column, np.concatenate(values)) for column, values in columns.items())


def _size_chart(column: str, sizes: NDArray[Any]) -> str:
    """Return a histogram with logarithmic bins, since cells grow by dividing."""
    quantity, _, unit = column.partition("_")
    unit = "voxels" if quantity == "voxels" or column == "volume_px" else _UNITS.get(unit, unit)
    name = "Areas" if quantity in ("area", "pixels") else "Volumes"
    low, high = float(sizes.min()), float(sizes.max())
    bins = min(_MAX_BINS, int(np.sqrt(sizes.size)) + 1) if high > low else 1
    edges = np.geomspace(low, high, bins + 1)
    edges[[0, -1]] = low, high  # exactly, so that no size falls outside
    heights = np.histogram(sizes, edges)[0] if high > low else [sizes.size]
    bars = [(int(n), f"{edges[i]:.4g} to {edges[i + 1]:.4g} {unit}: {n} objects", "ok") for i, n in enumerate(heights)]
    axis = f"{unit}, {low:.4g} to {high:.4g}, median {np.median(sizes):.4g}; logarithmic"
    return _bars(bars, f"{name} of objects", axis)


def _group_table(groups: GroupSummary) -> str:
    """Return a table of the groups: n, mean, SD and SEM of the counts, over units."""
    n = 1 if groups.unit == "image" else len(groups.unit.split(", "))
    names = groups.names[: len(groups.names) - n]
    heads = (*names, f"n ({groups.unit})", "images", "failed", "mean", "SD", "SEM")
    rows = []
    for row in groups.groups:
        figures = (row.units, row.images, row.failed, *map(_figure, (row.mean, row.sd, row.sem)))
        cells = [f"<td>{_escape(value)}</td>" for value in row.values[: len(names)]]
        cells += [f'<td class="figure">{value}</td>' for value in figures]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    head = "".join(f"<th>{_escape(name)}</th>" for name in heads)
    caption = f"Objects per image, by group; n, mean, SD and SEM are of units: {groups.unit}"
    return (
        f'<figure><figcaption>{_escape(caption)}</figcaption><table id="groups"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></figure>"
    )


def _figure(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4g}"


def _outcome(row: ReportRow) -> str:
    return row.status if row.count is None else f"{row.status}, {row.count}"


def _bars(bars: Sequence[tuple[int, str, str]], title: str, axis: str) -> str:
    """Return an SVG of bars, each with a value, a tooltip and a status."""
    top, step = max(max(value for value, _, _ in bars), 1), 960 / len(bars)
    width, parts = min(step * 0.8, 48), []
    for number, (value, tooltip, status) in enumerate(bars):
        height, x = 150 * value / top, step * (number + 0.5) - width / 2
        column = f'x="{x:.2f}" width="{width:.2f}"'
        parts.append(
            f'<g><title>{_escape(tooltip)}</title><rect class="air" {column} y="20" height="150"/>'
            f'<rect class="bar {status}" {column} y="{168 - height:.2f}" height="{height + 2:.2f}"/></g>'
        )
    return (
        f'<figure><figcaption>{title}</figcaption><svg viewBox="0 0 960 192" role="img" aria-label="{title}">'
        f'<path class="line" d="M0 20H960M0 170H960"/><text x="0" y="14">{_grouped(top)}</text>{"".join(parts)}'
        f'<text x="0" y="188">{axis}</text></svg></figure>'
    )
