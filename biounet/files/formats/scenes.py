"""Files that hold several images: what these are called, and which of them is meant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from biounet.core import InputError, SettingsError, is_integer, list_some

_SHOWN = 8  # images that a message lists
_HOW_TO_CHOOSE = "segment and measure take --scene 0; check and train, a CSV with the columns image, scene and label"
ONE_IMAGE = "0"
"""Key of the image of a path that holds one."""


@dataclass(frozen=True)
class Scene:
    """One of the images of a path that holds several.

    Attributes
    ----------
    key
        What tells it from the others whatever their names, as in `ReadOptions.scene`: its number from 0, in a folder
        of DICOM files the SeriesInstanceUID.
    name
        As the file states it; empty if it does not.
    shape
        For messages, where there is no name.
    """

    key: str
    name: str = ""
    shape: str = ""

    def __str__(self) -> str:
        more = self.name or self.shape
        return f"{self.key} ({more})" if more else self.key


Found = TypeVar("Found", bound=Scene)


def as_scene(value: object) -> str:
    """Return what a user says about scenes as text: numbers from 0 or names, with commas between several."""
    several = isinstance(value, Sequence) and not isinstance(value, str)
    parts = list(value) if several else [value]  # type: ignore[call-overload]
    if not all(isinstance(part, str) or is_integer(part) for part in parts):
        raise SettingsError(f"scene {value!r}: numbers from 0 or names")
    return ",".join(str(part).strip() for part in parts)


def choose_scenes(scenes: Sequence[Found], wanted: str, path: Path) -> list[Found]:
    """Return the scenes that `as_scene` gave the keys or names of, all of them for an empty text.

    Raise `InputError` if one is not there, or if several have a name.
    """
    if not wanted:
        return list(scenes)
    if whole := _matches(scenes, wanted):  # a name may hold a comma
        return [_only(whole, wanted, path)]
    parts = dict.fromkeys(part.strip() for part in wanted.split(","))
    chosen = []
    for part in filter(None, parts):
        found = _matches(scenes, part)
        if not found:
            raise InputError(f"no scene {part}: it holds {_describe(scenes)}", path=path)
        chosen.append(_only(found, part, path))
    return list(dict.fromkeys(chosen))


def choose_scene(scenes: Sequence[Found], wanted: str, path: Path) -> Found:
    """Return the one scene that is meant; raise `InputError` if that leaves a choice."""
    chosen = choose_scenes(scenes, wanted, path)
    if len(chosen) != 1:
        raise InputError(f"holds {_describe(scenes)}", path=path, hint=_HOW_TO_CHOOSE if scenes else None)
    return chosen[0]


def _matches(scenes: Sequence[Found], wanted: str) -> list[Found]:
    """Return the scene of this key, or those of this name, without folders if need be.

    Capitals only matter where there is a choice.
    """
    names = {scene: (scene.name, scene.name.rpartition("/")[2]) for scene in scenes}
    folded = {scene: tuple(map(str.casefold, both)) for scene, both in names.items()}
    for matches in (
        [scene for scene in scenes if scene.key == wanted],
        [scene for scene in scenes if scene.name == wanted],
        [scene for scene in scenes if folded[scene][0] == wanted.casefold()],
        [scene for scene in scenes if names[scene][1] == wanted],
        [scene for scene in scenes if folded[scene][1] == wanted.casefold()],
    ):
        if matches:
            return matches
    return []


def _only(found: Sequence[Found], wanted: str, path: Path) -> Found:
    if len(found) > 1:
        hint = f"give the number of one, such as {found[0].key}"
        raise InputError(f"{len(found)} scenes are called '{wanted}'", path=path, hint=hint)
    return found[0]


def _describe(scenes: Sequence[Scene]) -> str:
    names = list_some([str(scene) for scene in scenes], _SHOWN)
    if not scenes:
        return "no image"
    return f"{len(scenes)} images: {names}" if len(scenes) > 1 else f"one image: {names}"
