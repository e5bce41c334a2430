"""Keys by which files belong together: the first of several that exists, or one that differs in capitals only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping
from pathlib import PurePosixPath
from typing import TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


def first_match(keys: Iterable[PurePosixPath], files: Mapping[str, T]) -> T | None:
    """Return the file of the first key that has one; None if none has."""
    return next((files[str(key)] for key in keys if str(key) in files), None)


def unique_values(items: Iterable[tuple[K, T]]) -> dict[K, T]:
    """Return the values of those keys that occur once."""
    groups: dict[K, list[T]] = defaultdict(list)
    for key, value in items:
        groups[key].append(value)
    return {key: values[0] for key, values in groups.items() if len(values) == 1}


def match_any_case(files: Mapping[str, T], keys: Collection[str]) -> dict[str, T]:
    """Return the file of each key that is equal to it but for capitals, where one file and one key are."""
    files = unique_values((key.casefold(), file) for key, file in files.items())
    unique_keys = unique_values((key.casefold(), key) for key in keys)
    return {key: files[folded] for folded, key in unique_keys.items() if folded in files}
