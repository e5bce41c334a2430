"""Groups of images in the report: a plot with a point for each unit, a table, and a map of the wells of a plate."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from biounet.measurement import GroupFigures, GroupSummary
from biounet.reporting.charts import HEIGHT, WIDTH, Axis, escape, figure, frame, number, plural, svg, x_place, y_place

_WELL = re.compile(r"[A-P]0?([1-9]|1[0-9]|2[0-4])")
_PLATES = ((2, 3), (3, 4), (4, 6), (6, 8), (8, 12), (16, 24))  # rows and columns of 6 to 384 wells
_MAX_GROUPS = 24  # that fit beside each other
_MAX_LABEL = 14  # letters below the axis
_LIGHTEST, _DARKEST = 0.93, 0.38  # of the map


def group_charts(groups: GroupSummary) -> list[str]:
    """Return the figures of groups: counts, densities where they are known, wells of plates, and the table."""
    charts = []
    if groups.groups and len(groups.groups) <= _MAX_GROUPS:
        charts.append(_points(groups, "mean", "sem", "Objects in an image, by group", "objects in an image"))
        if all(math.isfinite(group.density_mean) for group in groups.groups):
            unit = "mm²" if groups.dims == 2 else "mm³"
            title = f"Objects per {unit}, by group"
            charts.append(_points(groups, "density_mean", "density_sem", title, f"objects per {unit}"))
    return [*charts, *_plate_maps(groups), _table(groups)]


def _label(groups: GroupSummary, row: GroupFigures) -> str:
    """Return the name of a group, by the values of what was named; ``all`` where nothing but units was."""
    return ", ".join(value for value in row.values[: _named(groups)] if value) or "all"


def _named(groups: GroupSummary) -> int:
    """Return how many of the names tell groups apart, and not units."""
    return len(groups.names) - len(groups.unit.split(", "))


def _points(groups: GroupSummary, name: str, error: str, title: str, label: str) -> str:
    """Return a plot with a point for each unit, and mean and standard error of each group."""
    shown = [(group, _values(groups.members(group), name)) for group in groups.groups]
    highest = max((max(values, default=0.0) for _, values in shown), default=0.0)
    highest = max([highest, *(_top(getattr(group, name), getattr(group, error)) for group, _ in shown)], default=1.0)
    names = ", ".join(groups.names[: _named(groups)])
    y, x = Axis(0, highest * 1.05 or 1.0, label), Axis(0, len(shown), names, ticked=False)
    parts = [frame(x, y)]
    for place, (group, values) in enumerate(shown):
        middle, breadth = x_place(x, place + 0.5), (x_place(x, 1) - x_place(x, 0))
        parts.append(_dots(values, y, middle, min(breadth * 0.6, 60)))
        parts.append(_mean(getattr(group, name), getattr(group, error), y, middle, min(breadth * 0.35, 26)))
        parts.append(_group_name(_label(groups, group), len(values), middle, len(shown)))
    note = f"a point per {groups.unit}; mean and SEM over {groups.unit}s"
    return figure(title, svg(title, "".join(parts)), note)


def _values(units: Sequence[GroupFigures], name: str) -> list[float]:
    return [value for unit in units if math.isfinite(value := getattr(unit, name))]


def _top(mean: float, error: float) -> float:
    return 0.0 if math.isnan(mean) else mean + (0.0 if math.isnan(error) else error)


def _dots(values: Sequence[float], y: Axis, middle: float, breadth: float) -> str:
    """Return points side by side in the order of their values, so that equal ones are seen."""
    step = breadth / max(len(values), 2)
    offset = -step * (len(values) - 1) / 2
    order = sorted(values)
    spread = [order[place] for place in _outwards(len(order))]
    return "".join(
        f'<circle class="dot" cx="{middle + offset + place * step:.1f}" cy="{y_place(y, value):.1f}" r="4">'
        f"<title>{number(value)}</title></circle>"
        for place, value in enumerate(spread)
    )


def _outwards(count: int) -> list[int]:
    """Return positions of sorted values such that low and high ones take turns."""
    return [*range(0, count, 2), *reversed(range(1, count, 2))]


def _mean(mean: float, error: float, y: Axis, middle: float, half: float) -> str:
    if math.isnan(mean):
        return ""
    parts = [f"M{middle - half:.1f} {y_place(y, mean):.1f}h{2 * half:.1f}"]
    if math.isfinite(error):
        low, high = y_place(y, max(mean - error, 0)), y_place(y, mean + error)
        parts.append(f"M{middle:.1f} {low:.1f}V{high:.1f}M{middle - half / 2:.1f} {low:.1f}h{half:.1f}")
        parts.append(f"M{middle - half / 2:.1f} {high:.1f}h{half:.1f}")
    return f'<g><title>mean {number(mean)}</title><path class="mark" d="{"".join(parts)}"/></g>'


def _group_name(name: str, count: int, middle: float, groups: int) -> str:
    most = max(3, min(_MAX_LABEL, 70 // groups))
    short = name if len(name) <= most else f"{name[: most - 1]}…"
    return (
        f'<text class="middle strong" x="{middle:.1f}" y="{HEIGHT - 28}"><title>{escape(name)}, n = {count}</title>'
        f"{escape(short)}</text>"
    )


def _table(groups: GroupSummary) -> str:
    """Return a table of the groups: n, mean, SD and SEM of the counts, over units."""
    named = _named(groups)
    heads = (*groups.names[:named], f"n ({groups.unit}s)", "images", "failed", "mean", "SD", "SEM")
    rows = []
    for row in groups.groups:
        figures = (row.units, row.images, row.failed, *map(_shown, (row.mean, row.sd, row.sem)))
        cells = [f"<td>{escape(value)}</td>" for value in row.values[:named]]
        cells += [f'<td class="number">{value}</td>' for value in figures]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    styles = [*[""] * named, *["number"] * (len(heads) - named)]
    head = "".join(f'<th class="{style}">{escape(name)}</th>' for style, name in zip(styles, heads, strict=True))
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
    table = f'<div class="table"><table id="groups">{body}</table></div>'
    return figure("Objects in an image, by group", table, f"SD and SEM over {groups.unit}s")


def _shown(value: float) -> str:
    return number(value) if math.isfinite(value) else "–"


def _plate_maps(groups: GroupSummary) -> list[str]:
    """Return a map for each plate, where every unit is a well such as A1, and has one mean."""
    at = groups.names.index("well") if "well" in groups.names else -1
    if at < 0 or not all(_WELL.fullmatch(unit.values[at].upper()) for unit in groups.units):
        return []
    plates: dict[str, dict[tuple[int, int], GroupFigures]] = {}
    for unit in groups.units:
        plate = next((value for name, value in zip(groups.names, unit.values, strict=True) if name == "plate"), "")
        letter, digits = unit.values[at][0].upper(), unit.values[at][1:]
        well = ord(letter) - ord("A"), int(digits) - 1
        if well in plates.setdefault(plate, {}):
            return []  # several means of one well, as of time points
        plates[plate][well] = unit
    highest = max((unit.mean for wells in plates.values() for unit in wells.values() if unit.units), default=0.0)
    return [_plate_map(name, wells, highest) for name, wells in plates.items()]


def _plate_map(plate: str, wells: dict[tuple[int, int], GroupFigures], highest: float) -> str:
    size = next(
        (size for size in _PLATES if all(row < size[0] and column < size[1] for row, column in wells)), (16, 24)
    )
    step = (WIDTH - 30) / size[1]
    height = round(24 + step * size[0])
    parts = [
        *(f'<text class="middle" x="{30 + step * (n + 0.5):.1f}" y="14">{n + 1}</text>' for n in range(size[1])),
        *(
            f'<text class="middle" x="14" y="{24 + step * (n + 0.5) + 5:.1f}">{chr(65 + n)}</text>'
            for n in range(size[0])
        ),
    ]
    for row in range(size[0]):
        for column in range(size[1]):
            parts.append(_well(wells.get((row, column)), (row, column), step, highest))
    title = f"Plate {plate}: objects in an image" if plate else "Plate: objects in an image"
    note = f"white 0 to dark {number(highest)}; {plural(len(wells), 'well')}"
    return figure(title, svg(title, "".join(parts), height), note)


def _well(unit: GroupFigures | None, place: tuple[int, int], step: float, highest: float) -> str:
    x, y, size = 30 + step * place[1] + 1, 24 + step * place[0] + 1, step - 2
    box = f'x="{x:.1f}" y="{y:.1f}" width="{size:.1f}" height="{size:.1f}" rx="3"'
    name = f"{chr(65 + place[0])}{place[1] + 1}"
    if unit is None or not unit.units:
        return f'<g><title>{name}: nothing counted</title><rect class="nowell" {box}/></g>'
    share = unit.mean / highest if highest else 0.0
    red, green, blue = (round(255 * part) for part in _shade(share))
    text = ""
    if step > 40:
        css = "dark" if share < 0.5 else "light"
        text = (
            f'<text class="middle {css}" x="{x + size / 2:.1f}" y="{y + size / 2 + 5:.1f}">{number(unit.mean)}</text>'
        )
    tip = f"{name}: mean {number(unit.mean)}, {plural(unit.images, 'image')}"
    return f'<g><title>{tip}</title><rect fill="rgb({red},{green},{blue})" {box}/>{text}</g>'


def _shade(share: float) -> tuple[float, float, float]:
    """Return a blue of a lightness that falls evenly with the share, which all kinds of colour vision see."""
    light = _LIGHTEST + (_DARKEST - _LIGHTEST) * share
    return max(0.0, light - 0.35 * share), light - 0.06 * share, min(1.0, light + 0.12 * share)
