"""The reference of columns: ``columns.toml`` says what each holds, and the tests that it has those that there are."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from biounet.measurement import table_kind
from biounet_docs.markdown import table

SOURCE = Path(__file__).with_name("columns.toml")

_PLACES = {
    "axis": "[zyx]",
    "unit": "px|um|mm",
    "unit2": "px|um2|mm2",
    "unit3": "px|um3|mm3",
    "size": "mm2|mm3",
    "channel": ".+",
    "name": ".+",
}
"""What can stand for a word in braces."""

_TABLES = {
    "counts": "counts.csv: one row per image",
    "objects": "<name>_objects.csv: one row per object",
    "lesions": "<name>_objects.csv of volumes with classes: one row per class or region, and per lesion",
    "classes": "<name>_objects.csv of images with classes: one row per class",
    "groups": "groups.csv: one row per group",
}


def page() -> str:
    """Return a table of columns for each kind of table."""
    parts = []
    for kind, title in _TABLES.items():
        entries = read_columns().get(kind, {})
        if entries:
            name, colon, rest = title.partition(":")
            rows = ((f"`{column}`", meaning) for column, meaning in entries.items())
            parts.append(f"## `{name.split(' ')[0]}`{name[len(name.split(' ')[0]) :]}{colon}{rest}\n")
            parts.append(table(("column", "holds"), rows))
    return "\n".join(parts)


@cache
def read_columns() -> dict[str, dict[str, str]]:
    """Return what each column holds, by the kind of table and the name of the column."""
    return tomllib.loads(SOURCE.read_text(encoding="utf-8"))


def find_entry(kind: str, column: str) -> str | None:
    """Return the name in `SOURCE` of a column of a table; None if it is not described."""
    return next((entry for entry in read_columns()[kind] if re.fullmatch(_as_pattern(entry), column)), None)


def kind_of(name: str, header: Sequence[str]) -> str:
    """Return the kind of table that a file of results is; empty for a file of another kind."""
    stem = name.removesuffix(".csv")
    if stem.endswith("_objects"):
        return table_kind(header)
    return stem if stem in ("counts", "groups") else ""


def _as_pattern(entry: str) -> str:
    return re.sub(r"\\\{(\w+)\\\}", lambda place: f"(?:{_PLACES[place[1]]})", re.escape(entry))
