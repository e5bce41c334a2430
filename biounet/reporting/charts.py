"""Charts of the report as SVG, with axes that can be read: ticks at 1, 2 and 5 times powers of ten, and units."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from biounet.reporting.size_histogram import SizeHistogram

WIDTH, HEIGHT = 560, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 32, 52
_INNER = WIDTH - _LEFT - _RIGHT
_FLOOR = HEIGHT - _BOTTOM
_MAX_BINS = 40
_UNITS = {"um2": "µm²", "um3": "µm³", "mm2": "mm²", "mm3": "mm³", "px": "pixels"}


class Bar(NamedTuple):
    """A bar from `low` to `high` along the axis, with a text for the pointer and a class of its colour."""

    low: float
    high: float
    value: float
    text: str
    status: str = "ok"


class Axis(NamedTuple):
    """An axis from `low` to `high`, linear or logarithmic, with ticks or not."""

    low: float
    high: float
    label: str
    logarithmic: bool = False
    ticked: bool = True

    def share(self, value: float) -> float:
        """Return where a value lies, from 0 to 1."""
        low, high, value = (
            (math.log10(n) for n in (self.low, self.high, value)) if self.logarithmic else (self.low, self.high, value)
        )
        return (value - low) / (high - low) if high > low else 0.5

    def ticks(self, most: int = 6) -> list[float]:
        """Return values to write beside the axis, `most` at the most."""
        return log_ticks(self.low, self.high, most) if self.logarithmic else nice_ticks(self.low, self.high, most)


def nice_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return multiples of 1, 2 or 5 times a power of ten from `low` to `high`, at most `most`."""
    if high <= low:
        return [low]
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    while True:
        for factor in (1, 2, 5):
            first, last = math.ceil(low / (step * factor) - 1e-9), math.floor(high / (step * factor) + 1e-9)
            if last - first < most:
                return [float(f"{n * step * factor:.12g}") for n in range(first, last + 1)]
        step *= 10


def log_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return 1, 2 and 5 times powers of ten from `low` to `high`, or the powers alone, at most about `most`."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [factor * 10.0**power for power in powers for factor in factors]
        ticks = [tick for tick in ticks if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
        if len(ticks) <= most:
            break
    while len(ticks) > most:
        ticks = ticks[::2]
    return ticks or [low, high]


def number(value: float) -> str:
    """Return a number as people read it: thousands apart, four digits at the most."""
    if value and not 1e-3 <= abs(value) < 1e7:
        return f"{value:.3g}"
    rounded = float(f"{value:.4g}")
    text = f"{rounded:,.0f}" if abs(rounded) >= 1000 else f"{rounded:g}"
    return text.replace(",", "\u202f")


def escape(text: str) -> str:
    """Return text for HTML, inside and outside of quotes; undecodable bytes of file names become ``?``."""
    return html.escape(text.encode("utf-8", "replace").decode("utf-8"), quote=True)


def figure(title: str, content: str, note: str = "") -> str:
    """Return a figure with a caption."""
    small = f" <small>{escape(note)}</small>" if note else ""
    return f"<figure><figcaption>{escape(title)}{small}</figcaption>{content}</figure>"


def svg(title: str, content: str, height: int = HEIGHT) -> str:
    """Return a drawing."""
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">{content}</svg>'


def frame(x: Axis, y: Axis) -> str:
    """Return axes with ticks and labels; lines of the grid at the ticks of `y`."""
    parts = []
    for tick in y.ticks(5):
        at = y_place(y, tick)
        parts.append(f'<path class="line" d="M{_LEFT} {at:.1f}H{WIDTH - _RIGHT}"/>')
        parts.append(f'<text class="end" x="{_LEFT - 6}" y="{at + 4:.1f}">{number(tick)}</text>')
    for tick in x.ticks() if x.ticked else ():
        at = x_place(x, tick)
        parts.append(f'<path class="axis" d="M{at:.1f} {_FLOOR}v5"/>')
        parts.append(f'<text class="middle" x="{at:.1f}" y="{_FLOOR + 20}">{number(tick)}</text>')
    if y.label:
        parts.append(f'<text x="2" y="{_TOP - 12}">{escape(y.label)}</text>')
    parts.append(f'<path class="axis" d="M{_LEFT} {_FLOOR}H{WIDTH - _RIGHT}"/>')
    parts.append(f'<text class="middle" x="{_LEFT + _INNER / 2}" y="{HEIGHT - 6}">{escape(x.label)}</text>')
    return "".join(parts)


def x_place(axis: Axis, value: float) -> float:
    """Return the x coordinate of a value."""
    return _LEFT + _INNER * axis.share(value)


def y_place(axis: Axis, value: float) -> float:
    """Return the y coordinate of a value."""
    return _FLOOR - (_FLOOR - _TOP) * axis.share(value)


def bars(title: str, items: Sequence[Bar], x: Axis, y_label: str, *, note: str = "", mark: str = "") -> str:
    """Return a figure of bars from 0, each with its text for the pointer."""
    y = Axis(0, max(max(bar.value for bar in items), 1), y_label)
    parts = []
    for bar in items:
        left, right, top = x_place(x, bar.low), x_place(x, bar.high), y_place(y, bar.value)
        gap = min(1.5, (right - left) * 0.1)
        column = f'x="{left + gap:.2f}" width="{max(right - left - 2 * gap, 0.5):.2f}"'
        parts.append(
            f'<g><title>{escape(bar.text)}</title><rect class="air" {column} y="{_TOP}" height="{_FLOOR - _TOP}"/>'
            f'<rect class="bar {bar.status}" {column} y="{top:.2f}" height="{_FLOOR - top:.2f}"/></g>'
        )
    return figure(title, svg(title, frame(x, y) + "".join(parts) + mark), note)


def size_unit(column: str) -> tuple[str, str]:
    """Return what a column of sizes holds, ``Area`` or ``Volume``, and its unit as text."""
    quantity, _, unit = column.partition("_")
    if quantity == "voxels" or column == "volume_px":
        return "Volume", "voxels"
    return "Area" if quantity in ("area", "pixels") else "Volume", _UNITS.get(unit, unit or "pixels")


def size_histogram(sizes: SizeHistogram) -> str:
    """Return a histogram with logarithmic bins, since cells grow by dividing."""
    name, unit = size_unit(sizes.column)
    spans = sizes.grouped(min(_MAX_BINS, math.isqrt(sizes.total) + 1))
    if sizes.low == sizes.high:
        spans = [(sizes.low / 1.1, sizes.high * 1.1, sizes.total)]
    items = [Bar(a, b, n, f"{number(a)} to {number(b)} {unit}: {plural(n, 'object')}") for a, b, n in spans]
    x = Axis(spans[0][0], spans[-1][1], f"{name} of an object ({unit}), logarithmic", logarithmic=True)
    median = sizes.median()
    at = x_place(x, median)
    mark = f'<path class="mark" d="M{at:.1f} {_TOP - 6}V{_FLOOR}"/>'
    shown = number(median) if sizes.low == sizes.high else f"about {number(float(f'{median:.2g}'))}"
    return bars(f"{name}s of objects", items, x, "objects", note=f"median {shown} {unit}", mark=mark)


def time_chart(series: Mapping[str, Sequence[tuple[int, int | None]]], total: int) -> str:
    """Return a line for each time series: the number of objects in its frames; a gap where nothing was counted.

    `total` is the number of all series, of which those shown may be the first.
    """
    times = [t for frames in series.values() for t, _ in frames]
    counts = [count for frames in series.values() for _, count in frames if count is not None]
    x = Axis(min(times), max(times), "frame")
    y = Axis(0, max([*counts, 1]), "objects")
    parts = []
    for name, frames in series.items():
        path, pen = "", "M"
        for t, count in frames:
            if count is not None:
                path += f"{pen}{x_place(x, t):.1f} {y_place(y, count):.1f}"
            pen = "M" if count is None else "L"
        dots = "".join(
            f'<circle class="point" cx="{x_place(x, t):.1f}" cy="{y_place(y, count):.1f}" r="3">'
            f"<title>{escape(name)}, frame {t}: {plural(count, 'object')}</title></circle>"
            for t, count in frames
            if count is not None
        )
        parts.append(f'<g><path class="curve" d="{path}"/>{dots}</g>')
    title, shown = "Objects over time", f"the first {len(series)} of " if total > len(series) else ""
    return figure(title, svg(title, frame(x, y) + "".join(parts)), f"{shown}{total} series" if total > 1 else "")


def plural(count: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{number(count)} {noun}{'' if count == 1 else 's'}"
