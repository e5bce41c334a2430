"""One HTML page on a batch, which opens anywhere, without a network, years from now."""

from __future__ import annotations

import base64
import hashlib
import html
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import numpy as np

from biounet.files import write_text

_BADGES = {"ok": "✓ ok", "empty": "○ empty", "flagged": "! flagged", "failed": "✕ failed"}
_MOST_BARS = 80  # images that have a bar each; more are a histogram


@dataclass(frozen=True)
class ReportRow:
    """What the page shows of one image.

    Attributes
    ----------
    image
        Its name.
    status
        ``ok``, ``empty`` (nothing found), ``flagged`` (done, look at it) or ``failed``.
    count
        Number of objects; None where nothing was counted.
    seconds
        Time it took.
    message
        Error or remarks.
    overlay
        Path of its overlay relative to the page, with ``/``; None if there is none.
    """

    image: str
    status: Literal["ok", "empty", "flagged", "failed"]
    count: int | None
    seconds: float
    message: str = ""
    overlay: str | None = None


def write_report(path: Path, rows: Sequence[ReportRow], *, title: str) -> None:
    """Write the page of a batch, atomically; equal rows give equal bytes.

    Parameters
    ----------
    path
        The HTML file; the overlays of `rows` are relative to its folder.
    rows
        One per image, in the order in which they are shown at first.
    title
        Heading of the page.
    """
    write_text(path, render_report(rows, title))


def render_report(rows: Sequence[ReportRow], title: str) -> str:
    """Return the page: summary, counts, and a table to sort and filter; it loads nothing but the overlays."""
    policy = (
        f"default-src 'none'; img-src 'self' file:; style-src '{_digest(_STYLE)}'; script-src '{_digest(_SCRIPT)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    body = "\n".join(_table_row(number, row) for number, row in enumerate(rows))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_escape(policy)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{_escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<header><h1>{_escape(title)}</h1></header>
<main>
{_summary(rows)}
{_chart(rows)}
{_FILTERS}
<table id="images">
{_HEAD}
<tbody>
{body}
</tbody>
</table>
<p id="none" hidden>No image matches.</p>
</main>
<script>{_SCRIPT}</script>
</body>
</html>
"""


def _escape(text: str) -> str:
    """Return text for HTML, inside and outside of quotes; bytes of a file name that are no text become ``?``."""
    return html.escape(text.encode("utf-8", "replace").decode("utf-8"), quote=True)


def _digest(text: str) -> str:
    """Return the hash that lets this very script or style run, and no other that might get into the page."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _grouped(number: int) -> str:
    return f"{number:,}".replace(",", "\u202f")


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


def _chart(rows: Sequence[ReportRow]) -> str:
    """Return a bar of objects for each image or, for many images, a histogram of them."""
    counts = np.array([row.count for row in rows if row.count is not None], dtype=np.int64)
    if not counts.size:
        return ""
    if len(rows) <= _MOST_BARS:
        bars = [(row.count or 0, f"{row.image}: {_outcome(row)}", row.status) for row in rows]
        return _bars(bars, "Objects in each image", "images, in the order of the table as it came")
    width = -(-(int(counts.max()) + 1) // 40)
    images = np.bincount(counts // width)
    bars = [(int(n), f"{i * width} to {(i + 1) * width - 1} objects: {n} images", "ok") for i, n in enumerate(images)]
    return _bars(bars, "Images by number of objects", f"objects per image, 0 to {len(images) * width - 1}")


def _outcome(row: ReportRow) -> str:
    return row.status if row.count is None else f"{row.status}, {row.count}"


def _bars(bars: Sequence[tuple[int, str, str]], title: str, axis: str) -> str:
    """Return an SVG of bars, each with a height, a text for the pointer and a status."""
    top, step = max(max(height for height, _, _ in bars), 1), 960 / len(bars)
    wide, parts = min(step * 0.8, 48), []
    for number, (height, text, status) in enumerate(bars):
        tall, left = 150 * height / top, step * (number + 0.5) - wide / 2
        place = f'x="{left:.2f}" width="{wide:.2f}"'
        parts.append(
            f'<g><title>{_escape(text)}</title><rect class="air" {place} y="20" height="150"/>'
            f'<rect class="bar {status}" {place} y="{168 - tall:.2f}" height="{tall + 2:.2f}"/></g>'
        )
    return (
        f'<figure><figcaption>{title}</figcaption><svg viewBox="0 0 960 192" role="img" aria-label="{title}">'
        f'<path class="line" d="M0 20H960M0 170H960"/><text x="0" y="14">{_grouped(top)}</text>{"".join(parts)}'
        f'<text x="0" y="188">{axis}</text></svg></figure>'
    )


_FILTERS = (
    '<div class="filters" id="filters" hidden><input type="search" id="words" placeholder="Filter by name or message" '
    'aria-label="Filter by name or message"><select id="status" aria-label="Status"><option value="">all</option>'
    + "".join(f'<option value="{status}">{status}</option>' for status in _BADGES)
    + '</select><span id="shown" role="status"></span></div>'
)

_HEAD = (
    "<thead><tr><th></th>"
    + "".join(
        f'<th{kind}><button type="button">{name}</button></th>'
        for name, kind in (
            ("Image", ""),
            ("Status", ""),
            ("Objects", ' class="figure" data-kind="number"'),
            ("Seconds", ' class="figure" data-kind="number"'),
            ("Message", ""),
        )
    )
    + "</tr></thead>"
)

_STYLE = """
:root { color-scheme: light dark; --ground: #fbfbfa; --card: #fff; --ink: #22262b; --soft: #6b7280; --line: #e5e7eb;
  --ok: #2f7d6b; --empty: #64748b; --flagged: #a15c07; --failed: #b3261e; --bar: #5b8db8; }
@media (prefers-color-scheme: dark) { :root { --ground: #15181c; --card: #1d2126; --ink: #e6e8ea; --soft: #98a2ad;
  --line: #30363d; --ok: #63c2a8; --empty: #9aa8b8; --flagged: #e5ab5b; --failed: #f2877f; --bar: #6fa3cf; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 70rem; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; font-variant-numeric: tabular-nums; }
h1 { margin: 0 0 1.5rem; font-size: 1.6rem; font-weight: 600; letter-spacing: -.01em; overflow-wrap: anywhere; }
.summary { display: grid; grid-template-columns: repeat(auto-fit, minmax(8rem, 1fr)); gap: .75rem; margin: 0 0 1.5rem; }
.summary div, figure, table { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.summary div { padding: .8rem 1rem; }
dt, figcaption, th button, svg text, #shown { color: var(--soft); font-size: .8rem; }
dd { margin: 0; font-size: 1.5rem; font-weight: 600; line-height: 1.3; }
.flagged dd { color: var(--flagged); } .failed dd { color: var(--failed); }
figure { margin: 0 0 1.5rem; padding: 1rem 1rem .6rem; }
svg { display: block; width: 100%; height: auto; margin-top: .5rem; }
svg text { fill: var(--soft); font-size: 12px; }
.line { stroke: var(--line); fill: none; } .air { fill: transparent; } .bar { fill: var(--bar); }
g:hover .bar { opacity: .7; } .bar.flagged { fill: var(--flagged); } .bar.failed { fill: var(--failed); }
.filters { display: flex; flex-wrap: wrap; gap: .6rem; align-items: center; margin: 0 0 .75rem; }
.filters[hidden] { display: none; }
input, select { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; padding: .4rem .7rem; }
input { flex: 1 1 16rem; max-width: 26rem; }
table { width: 100%; border-collapse: separate; border-spacing: 0; }
th, td { padding: .5rem .75rem; text-align: left; vertical-align: middle; border-bottom: 1px solid var(--line); }
tbody tr:last-child td { border-bottom: 0; }
th.figure, td.figure { text-align: right; white-space: nowrap; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid var(--bar); outline-offset: 3px; border-radius: 3px; }
th[aria-sort="ascending"] button::after { content: " ↑"; } th[aria-sort="descending"] button::after { content: " ↓"; }
a { color: inherit; text-decoration-color: var(--line); text-underline-offset: 3px; }
.picture { width: 5.5rem; } .name, .message { overflow-wrap: anywhere; } .message { color: var(--soft); }
img { display: block; width: 72px; height: 72px; object-fit: cover; border-radius: 6px; background: var(--line); }
.badge { display: inline-block; padding: .05rem .55rem; border: 1px solid currentColor; border-radius: 99px;
  font-size: .8rem; white-space: nowrap; }
.badge.ok { color: var(--ok); } .badge.empty { color: var(--empty); }
.badge.flagged { color: var(--flagged); } .badge.failed { color: var(--failed); }
@media print { body { padding: 0; max-width: none; font-size: 11px; } .filters { display: none; }
  tr, figure, .summary { break-inside: avoid; } thead { display: table-header-group; } }
"""

_SCRIPT = """
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const body = byId("images").tBodies[0], rows = Array.from(body.rows);
  const heads = Array.from(document.querySelectorAll("th"));
  const words = byId("words"), status = byId("status");
  const text = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const collator = new Intl.Collator(undefined, { numeric: true });
  function filter() {
    const wanted = words.value.toLowerCase().split(" ").filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const found = wanted.every((word) => text.get(row).includes(word));
      const kept = found && (!status.value || row.dataset.status === status.value);
      row.hidden = !kept;
      shown += kept ? 1 : 0;
    }
    byId("shown").textContent = shown === rows.length ? "" : shown + " of " + rows.length;
    byId("none").hidden = shown > 0;
  }
  function sort(head) {
    const column = heads.indexOf(head), number = head.dataset.kind === "number";
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    const key = new Map(rows.map((row) => [row, row.cells[column].dataset.key]));
    const compare = (a, b) => {
      const x = key.get(a), y = key.get(b);
      if (x === "" || y === "") return (x === "") - (y === "") || a.dataset.number - b.dataset.number;
      return sign * (number ? x - y : collator.compare(x, y)) || a.dataset.number - b.dataset.number;
    };
    body.append(...rows.slice().sort(compare));
  }
  heads.forEach((head) => head.querySelector("button")?.addEventListener("click", () => sort(head)));
  words.addEventListener("input", filter);
  status.addEventListener("change", filter);
  byId("filters").hidden = false;
  filter();
})();
"""
