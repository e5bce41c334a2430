"""Names of images: how tables spell and sort them, their shards, and those that would give results of one name."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from biounet.core import list_some
from biounet.files import FoundImage, natural_key

SHOWN_NAMES = 3  # in a message
# A backslash that looks like the begin of an escape is escaped as well: different names stay different.
_LIKE_ESCAPE = re.compile(r"\\(?=ud[89a-f][0-9a-f]{2}|x5c)")
_ESCAPE = re.compile(r"\\(?:u(?=d[89a-f])|x(?=5c))(?P<code>d[89a-f][0-9a-f]{2}|5c)")


def image_name(image: FoundImage) -> str:
    """Return the name of an image in tables: its path below the input folder."""
    return escape(image.relative.as_posix())


def escape(text: str) -> str:
    """Escape the bytes of a file name that are no text, so that it can be written; `unescape` is the inverse."""
    return _LIKE_ESCAPE.sub(r"\\x5c", text).encode("utf-8", "backslashreplace").decode()


def unescape(text: str) -> str:
    """Return the text that `escape` was called with."""
    return _ESCAPE.sub(lambda match: chr(int(match["code"], 16)), text)


def natural_name_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Key that sorts names of images as their files are sorted."""
    return natural_key(Path(unescape(name))), name


def is_in_shard(name: str, shard: tuple[int, int] | None) -> bool:
    """Whether an image belongs to a shard. Only the hash of its name decides, not what other images there are."""
    if shard is None:
        return True
    number, count = shard
    return _name_hash(name) % count == number - 1


def drawn_names(names: Iterable[str], fraction: float) -> Callable[[str], bool]:
    """Return a function that says whether a name is drawn: the given fraction of all, rounded up.

    Only the hashes of the names decide: the same names give the same, and a larger fraction holds those of a smaller.
    """
    if fraction == 1:
        return lambda name: True
    hashes = np.sort(np.fromiter(map(_name_hash, names), np.uint64))
    if not hashes.size:
        return lambda name: False
    last = int(hashes[math.ceil(fraction * hashes.size) - 1])
    return lambda name: _name_hash(name) <= last


def _name_hash(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])


def mark_collisions(images: Sequence[FoundImage]) -> list[FoundImage]:
    """Return the images, with a problem for each of those whose results would have the same name as another's."""
    keys = [_collision_key(image) for image in images]
    groups: dict[str, list[FoundImage]] = {}
    for key, image in zip(keys, images, strict=True):
        groups.setdefault(key, []).append(image)
    if len(groups) == len(images):
        return list(images)
    return [_mark_collision(image, groups[key]) for key, image in zip(keys, images, strict=True)]


def _collision_key(image: FoundImage) -> str:
    """Return a name that is equal where a case-insensitive disk takes two names for one: not for ``ß`` and ``ss``."""
    name = f"{image.relative.parent.as_posix()}/{image.stem}"
    if name.isascii():  # as of most of a million images
        return name.lower()
    return "".join(letter.lower() if len(letter.lower()) == 1 else letter for letter in name)


def _mark_collision(image: FoundImage, group: Sequence[FoundImage]) -> FoundImage:
    others = [str(other.path) for other in group if other is not image]
    if not others or image.problem:
        return image
    cause = f"its results would have the names of those of {list_some(others, SHOWN_NAMES)}"
    return replace(image, problem=f"{cause} (hint: rename one, or segment them into different folders)")
