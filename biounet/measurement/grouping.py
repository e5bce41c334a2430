"""Which image belongs to which group: wells, animals, treatments, as names of files or a table say."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from biounet.core import InputError, SettingsError, list_some
from biounet.files import read_columns, stem_of

_SHOWN_NAMES = 3  # in a message
_REPEATED = re.compile(r"\)[*+{]")  # a group that is repeated, without which no pattern takes exponential time
_MOST_SECONDS = 10.0  # for all images: thousands take a fraction of a second
_WELLS = ("plate", "well")
_RESERVED = {"image", "unit", "units", "images", "failed", "count", "mean", "sd", "sem", "hand", "file", "seed", "of"}
_RESERVED |= {f"density_{figure}_per_mm{dims}" for figure in ("mean", "sd", "sem") for dims in (2, 3)}
_EXAMPLE = r"'(?P<treatment>\w+)/(?P<well>[A-P]\d+)_.*'"


@dataclass(frozen=True)
class Grouping:
    r"""The groups of images, by a pattern for their names or by a table.

    Attributes
    ----------
    names
        What is told of each image: ``("treatment", "well")``.
    unit
        Those of `names` that tell one unit from another: what was treated on its own, such as a well or an animal.
        Means and their errors are over units. Empty: each image is a unit.
    pattern
        Regular expression with a named group for each of `names`, searched in the name of an image.
    table
        Instead of a pattern: values of `names` by the name of an image, with or without its folders and suffix.
    """

    names: tuple[str, ...]
    unit: tuple[str, ...] = ()
    pattern: str | None = None
    table: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def values(self, image: str) -> tuple[str, ...] | None:
        """Return the values of `names` of an image by its name in ``counts.csv``; None where it has none."""
        if self.pattern is None:
            return next((self.table[key] for key in _keys(image) if key in self.table), None)
        match = re.search(self.pattern, image)
        found = () if match is None else tuple(match[name] or "" for name in self.names)
        return found if found and all(found) else None

    def check(self, images: Iterable[str]) -> None:
        """Raise `SettingsError` unless each image belongs to a group; those that do not are named."""
        images = list(images)
        if self.pattern is not None:
            _check_time(self.pattern, images)
        others = [image for image in images if self.values(image) is None]
        if others:
            what = "the pattern does not match" if self.pattern is not None else "the table has no row for"
            which = f"any of {len(images)} images, such as" if len(others) == len(images) else f"{len(others)} images:"
            if len(images) == 1:
                which = "the image"
            where = "it is searched in folder and name, as in counts.csv" if self.pattern is not None else None
            raise SettingsError(f"--group: {what} {which} {list_some(others, _SHOWN_NAMES)}", hint=where)
        owners: dict[str, str] = {}
        for image in images if self.pattern is None else ():
            key = next(key for key in _keys(image) if key in self.table)
            if owners.setdefault(key, image) != image:
                cause = f"--group: the table's row '{key}' is that of {owners[key]} and of {image}"
                raise SettingsError(cause, hint="name the images with their folders, as in counts.csv")
        for key, image in owners.items():
            for other in _keys(image):
                if self.table.get(other, self.table[key]) != self.table[key] and other not in owners:
                    cause = f"--group: the table's rows '{key}' and '{other}' are both of {image}, with other groups"
                    raise SettingsError(cause, hint="leave one of them out")


def read_grouping(group: str | Path, unit: str | None = None) -> Grouping:
    r"""Return the grouping of a pattern, or of a CSV file with the columns ``image`` and one for each name.

    Parameters
    ----------
    group
        Regular expression with named groups, such as ``(?P<treatment>\w+)/(?P<well>[A-P]\d+)``; or the path of a CSV.
    unit
        The name of what was treated on its own. None: ``well`` (of a ``plate``, if that is named), where there is one;
        else each image.

    Raises
    ------
    SettingsError
        If it is neither, or a name cannot be that of a column.
    """
    is_table = isinstance(group, Path) or (group.lower().endswith((".csv", ".tsv", ".txt")) and "(?P<" not in group)
    found = _read_table(Path(group)) if is_table else _parse_pattern(str(group))
    for name in found.names:
        if name.casefold() in _RESERVED:
            raise SettingsError(f"--group: a group cannot be called '{name}', groups.csv has a column of that name")
    if unit is not None and unit not in found.names:
        raise SettingsError(f"--unit {unit}: no such name in --group, which has {', '.join(found.names)}")
    units = (unit,) if unit is not None else tuple(name for name in _WELLS if name in found.names)
    return Grouping(found.names, units if unit or "well" in units else (), found.pattern, found.table)


def decode_grouping(raw: Mapping[str, Any] | None) -> Grouping | None:
    """Return the grouping that was written to JSON with `dataclasses.asdict`."""
    if raw is None:
        return None
    table = {str(image): tuple(map(str, values)) for image, values in raw["table"].items()}
    return Grouping(tuple(raw["names"]), tuple(raw["unit"]), raw["pattern"], table)


def _keys(image: str) -> Iterable[str]:
    """Return how a table may name an image: as in ``counts.csv``, without its suffix, without its folders."""
    path = PurePosixPath(image)
    stem = stem_of(Path(path.name))
    return dict.fromkeys((image, (path.parent / stem).as_posix(), path.name, stem))


def _parse_pattern(pattern: str) -> Grouping:
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise SettingsError(
            f"--group {pattern}: not a regular expression: {error}", hint=f"such as {_EXAMPLE}"
        ) from None
    if not regex.groupindex:
        hint = f"name what the pattern finds, such as {_EXAMPLE}, or give a CSV file"
        raise SettingsError(f"--group {pattern}: a pattern without a named group", hint=hint)
    return Grouping(tuple(regex.groupindex), (), pattern)


def _check_time(pattern: str, images: list[str]) -> None:
    """Raise `SettingsError` if a pattern with a repeated part takes for ever, as (a+)+ may: nothing else can end it."""
    if _REPEATED.search(pattern) is None:
        return
    program = "import json, re, sys; pattern, images = json.load(sys.stdin); [re.search(pattern, i) for i in images]"
    command = [sys.executable, "-I", "-S", "-c", program]
    try:
        subprocess.run(command, input=json.dumps([pattern, images]).encode(), timeout=_MOST_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        hint = "something that is repeated is repeated again, as in (a+)+: repeat it once"
        raise SettingsError(f"--group {pattern}: the pattern takes too long", hint=hint) from None


def _read_table(path: Path) -> Grouping:
    try:
        names, rows = read_columns(path, ("image",))
    except InputError as error:
        raise SettingsError(f"--group: {error.cause}", path=path) from error
    groups = tuple(name for name in names if name != "image")
    if not groups or not all(groups):
        raise SettingsError("a table of groups has a column 'image', and one with a name for each group", path=path)
    table: dict[str, tuple[str, ...]] = {}
    for line, row in rows:
        image, values = row["image"].replace("\\", "/"), tuple(row[name] for name in groups)
        if not image or not all(values):
            lacking = next(name for name, value in (("image", image), *zip(groups, values, strict=True)) if not value)
            raise SettingsError(f"line {line} has no {lacking}", path=path)
        if table.setdefault(image, values) != values:
            raise SettingsError(f"line {line} names {image} again, with other groups", path=path)
    return Grouping(groups, (), None, table)
