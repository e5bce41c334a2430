"""Which description of a series, as scanners and people write it, means which channel of a model."""

from __future__ import annotations

import re
from collections.abc import Sequence

_WORDS = re.compile(r"\+c|c\+|[a-z]+\d+[a-z]*|[a-z]+|\d+")
_CONTRAST = {"ce", "gd", "gad", "gado", "km", "post", "contrast", "enhanced", "+c", "c+", "dotarem", "gadovist"}
_NO_CONTRAST = {"pre", "native", "nativ", "without", "non", "no"}
_WEIGHTED = re.compile(r"(t[12])w(i)?$")
_SEQUENCES_OF_T1 = {"mprage", "bravo", "spgr", "tfe", "vibe", "flash"}


def match_channels(descriptions: Sequence[str], channels: Sequence[str]) -> dict[str, list[int]]:
    """Return the indices of the descriptions that fit each channel.

    A channel fits a description that has its name as a word. Of T1-weighted images, ``t1`` means those before and
    ``t1c``, ``t1ce`` or ``t1gd`` those after contrast agent, which words such as ``+C``, ``Gd`` or ``post`` tell;
    ``t2`` is none of FLAIR.
    """
    kinds = [_kind(text) for text in descriptions]
    found = {}
    for channel in channels:
        wanted = _kind(channel)
        name = re.sub(r"[\W_]", "", channel.casefold())
        by_word = [n for n, text in enumerate(descriptions) if name in _words(text)]
        by_kind = [n for n, kind in enumerate(kinds) if wanted and kind == wanted]
        found[channel] = by_kind if wanted else by_word
    return found


def _words(text: str) -> list[str]:
    words = _WORDS.findall(text.casefold().replace("_", " "))
    return [_WEIGHTED.sub(r"\1", word) for word in words]


def _kind(text: str) -> str:
    """Return ``t1``, ``t1c``, ``t2`` or ``flair`` for what means one of them; else an empty text."""
    words = set(_words(text))
    for word in [*words]:
        if match := re.fullmatch(r"(t1)(c|ce|gd|km|post)", word):
            words |= {match[1], "contrast"}
    if any("flair" in word for word in words) or {"tirm", "dark"} <= words:
        return "flair"
    if "t1" in words or (words & _SEQUENCES_OF_T1 and "t2" not in words):
        after = bool(words & _CONTRAST) and not words & _NO_CONTRAST
        return "t1c" if after else "t1"
    return "t2" if "t2" in words else ""
