"""The report on one volume with lesions: a page that prints, with volumes, diameters, and slices with outlines."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from biounet.reporting.charts import escape, plural
from biounet.reporting.overlays import palette
from biounet.reporting.page import digest
from biounet.reporting.view_files import encode_picture

if TYPE_CHECKING:
    from biounet.segmentation import Segmentation

_PICTURE_SIDE, _PICTURE_BYTES = 2048, 500_000
_MAX_LESIONS = 40  # that are listed of each region; all are in the table beside the page
_SIDES = (("x", "R", "L"), ("y", "A", "P"), ("z", "S", "I"))


def render_case(result: Segmentation, name: str, overlay: NDArray[np.uint8], model: str = "") -> str:
    """Return the page of a volume of which regions and lesions were measured.

    Parameters
    ----------
    name
        Heading of the page.
    overlay
        Slices with outlines, RGB ``(y, x, 3)``.
    model
        What the model is called, for the line below the heading.
    """
    style = files(__package__).joinpath("case_report.css").read_text(encoding="utf-8")
    picture = base64.b64encode(encode_picture(overlay, (_PICTURE_SIDE, _PICTURE_SIDE), _PICTURE_BYTES)).decode()
    template = Template(files(__package__).joinpath("case_report.html").read_text(encoding="utf-8"))
    return template.substitute(
        policy=escape(f"default-src 'none'; img-src data:; style-src '{digest(style)}'; base-uri 'none'"),
        title=escape(name),
        style=style,
        about=escape(" · ".join(_about(result, model))),
        notes="".join(f"<li>{escape(note)}</li>" for note in result.notes),
        regions=_regions(result),
        lesions=_lesions(result),
        picture=f"data:image/webp;base64,{picture}",
        legend=_legend(result),
    )


def _about(result: Segmentation, model: str) -> Iterator[str]:
    grid = result.volume.grid
    yield " × ".join(str(n) for n in reversed(grid.shape)) + " voxels"
    if grid.spacing is not None:
        unit = "mm" if grid.unit == "mm" else "µm"
        yield " × ".join(f"{step:.4g}" for step in reversed(grid.spacing)) + f" {unit}"
    else:
        yield "voxel size unknown"
    if grid.axcodes is not None:
        yield f"stored as {grid.axcodes}"
    if model:
        yield f"model {model}"


def _regions(result: Segmentation) -> str:
    """Return a row for each region: volume, number of lesions, longest diameter."""
    columns = result.columns
    rows = []
    for at in np.flatnonzero(columns["lesion"] == 0):
        inside = np.flatnonzero((columns["class"] == columns["class"][at]) & (columns["lesion"] > 0))
        longest = _largest(columns.get("longest_diameter_mm"), inside)
        cells = (str(columns["class"][at]), _volume(columns, at), str(len(inside)), longest)
        rows.append(_row(cells))
    heads = ("region", f"volume ({_volume_unit(columns)})", "lesions", "longest diameter (mm)")
    return _table(heads if "longest_diameter_mm" in columns else heads[:3], rows)


def _largest(diameters: NDArray[Any] | None, inside: NDArray[np.intp]) -> str | None:
    if diameters is None:
        return None
    return _number(float(np.max(diameters[inside]))) if len(inside) else "–"


def _lesions(result: Segmentation) -> str:
    """Return a table of the lesions of each region, the largest first."""
    columns, parts = result.columns, []
    in_axial = "longest_diameter_mm" in columns
    heads = ["lesion", f"volume ({_volume_unit(columns)})"]
    heads += ["longest diameter (mm)", "perpendicular (mm)", "in 3D (mm)"] if in_axial else []
    has_place = "centroid_x_ras_mm" in columns
    heads += [f"centre (mm), {_frame(columns)}"] if has_place else []
    for region in dict.fromkeys(columns["class"].tolist()):
        inside = np.flatnonzero((columns["class"] == region) & (columns["lesion"] > 0))
        rows = [_row(_lesion(columns, int(at), in_axial, has_place)) for at in inside[:_MAX_LESIONS]]
        more = plural(len(inside) - _MAX_LESIONS, "smaller lesion") if len(inside) > _MAX_LESIONS else ""
        note = f"<p>and {more}: see the table of objects</p>" if more else ""
        if rows:
            parts.append(f"<section><h2>Lesions: {escape(str(region))}</h2>{_table(heads, rows)}{note}</section>")
    return "".join(parts)


def _lesion(columns: dict[str, NDArray[Any]], at: int, in_axial: bool, has_place: bool) -> Iterator[str]:
    number = str(columns["lesion"][at])
    yield f"{number} (at the edge)" if columns["touches_border"][at] else number
    yield _volume(columns, at)
    if in_axial:
        for name in ("longest_diameter_mm", "perpendicular_diameter_mm", "longest_diameter_3d_mm"):
            yield _number(float(columns[name][at])) if name in columns else "–"
    if has_place:
        places = ((float(columns[f"centroid_{axis}_ras_mm"][at]), plus, minus) for axis, plus, minus in _SIDES)
        yield ", ".join(f"{plus if value >= 0 else minus} {abs(value):.0f}" for value, plus, minus in places)


def _frame(columns: dict[str, NDArray[Any]]) -> str:
    frame = str(columns["frame"][0]) if "frame" in columns and len(columns["frame"]) else ""
    return f"{frame} coordinates" if frame else "coordinates"


def _volume_unit(columns: dict[str, NDArray[Any]]) -> str:
    return "mL" if "volume_ml" in columns else "mm³" if "volume_mm3" in columns else "voxels"


def _volume(columns: dict[str, NDArray[Any]], at: int | np.integer[Any]) -> str:
    name = next(name for name in ("volume_ml", "volume_mm3", "voxels") if name in columns)
    value = float(columns[name][at])
    return f"{value:.0f}" if name == "voxels" else f"{value:.2f}" if value >= 0.1 else _number(value)


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.1f}" if value >= 1 else f"{value:.3g}"


def _row(cells: Iterator[str] | Sequence[str | None]) -> str:
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells if cell is not None) + "</tr>"


def _table(heads: Sequence[str], rows: Sequence[str]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _legend(result: Segmentation) -> str:
    """Return a square of the colour of each class that is there, as SVG, since the page forbids other styles."""
    present = set(np.unique(result.labels).tolist()) - {0}
    colours = palette()
    parts = []
    for value, name in result.class_names.items():
        if value in present:
            red, green, blue = colours[(value - 1) % len(colours)].tolist()
            square = f'<svg viewBox="0 0 12 12"><rect width="12" height="12" fill="rgb({red},{green},{blue})"/></svg>'
            parts.append(f"<span>{square} {escape(name)}</span>")
    return "".join(parts)
