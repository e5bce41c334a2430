"""Files as records name them: portable paths and hashes, and whether a file is still the same."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biounet.batch.names import escape, unescape
from biounet.core import InputError, home_folder, list_some
from biounet.files import FileState, FoundImage, hash_image, hash_tree, image_state, tree_state

_SHOWN_FILES = 5  # of a folder, in a message

HashOf = Callable[[Path, str], str]
"""What returns the SHA-256 of an image by its path and scene."""


@dataclass(frozen=True)
class InputFile:
    """A file as it was when it was read."""

    path: str  # as `recorded_path` gives it
    size: int  # bytes
    mtime_ns: int
    sha256: str  # empty where it could not be read


def record_inputs(image: FoundImage, states: Sequence[FileState], out: Path) -> tuple[InputFile, ...]:
    """Return the entries of files, for a record in the folder `out`; those that were not read have no `states`."""
    parts = image.parts
    return tuple(
        InputFile(recorded_path(path, out), state.size, state.mtime_ns, state.sha256)
        for (path, _), state in zip(parts, states or [_unread_state(*part) for part in parts], strict=True)
    )


def record_channels(image: FoundImage) -> dict[str, Any]:
    """Return what the paths of the inputs do not say of an image whose channels are files or that is a scene."""
    scene = {"scene": escape(image.scene)} if image.scene else {}
    files = {"channels": [escape(name) for name in image.channels], "problem": escape(image.problem)}
    return scene | ({name: value for name, value in files.items() if value} if image.channels else {})


def recorded_image(name: str, paths: Sequence[Path], details: Mapping[str, Any]) -> FoundImage:
    """Return the image of this name that `record_channels` gave the details of."""
    first, *others = paths
    channels = tuple(unescape(str(channel)) for channel in details.get("channels", ()))
    problem, scene = (unescape(str(details.get(name, ""))) for name in ("problem", "scene"))
    return FoundImage(first, Path(unescape(name)), tuple(others), channels=channels, problem=problem, scene=scene)


def _unread_state(path: Path, scene: str) -> FileState:
    try:
        return FileState(*image_state(path, scene), "")
    except (OSError, ValueError, InputError):
        return FileState(0, 0, "")


def recorded_path(path: Path, out: Path) -> str:
    """Return the path relative to `out`; or as ``~/…`` when it lies below the user's home and `out` does not."""
    path, out, user = path.absolute(), out.absolute(), home_folder()
    if user and path.is_relative_to(user) and not out.is_relative_to(user):
        return f"~/{path.relative_to(user).as_posix()}"
    try:
        return Path(os.path.relpath(path, out)).as_posix()
    except ValueError:  # another drive of Windows
        return path.as_posix()


def resolve_recorded_path(recorded: str, out: Path) -> Path:
    """Return the path that `recorded_path` was called with."""
    # Links are not resolved: `recorded_path` does not either, and the folder of the results may be one.
    # `os.path.expanduser` leaves the ~ where the home is unknown; Path would raise.
    return Path(os.path.normpath(out.absolute() / os.path.expanduser(recorded)))  # noqa: PTH111


def is_unchanged(file: Path, recorded: InputFile, hash_of: HashOf = hash_image, scene: str = "") -> bool:
    """Whether an image has its recorded content: size and time are equal, or else the SHA-256, where one is recorded.

    `scene` says which, if the path is a folder that holds several.
    """
    try:
        size, mtime_ns = image_state(file, scene)
        if size != recorded.size:
            return False
        return mtime_ns == recorded.mtime_ns or not recorded.sha256 or hash_of(file, scene) == recorded.sha256
    except (OSError, InputError):
        return False


def are_unchanged(image: FoundImage, recorded: Sequence[InputFile], hash_of: HashOf = hash_image) -> bool:
    """Whether an image has its recorded content; what was no file, such as a broken link, may still be none."""
    return len(image.parts) == len(recorded) and all(
        is_unchanged(file, entry, hash_of, scene) or not (entry.sha256 or is_file(file))
        for (file, scene), entry in zip(image.parts, recorded, strict=True)
    )


def has_hash(path: Path, sha256: str) -> bool:
    """Whether a file or folder is there, can be read and has this SHA-256, as `biounet.files.hash_tree` gives it."""
    try:
        return os.path.exists(path) and hash_tree(path) == sha256  # noqa: PTH110 - as in `is_there`
    except OSError:
        return False


def has_state(path: str | Path, state: tuple[int, int]) -> bool:
    """Whether a file or folder is there, and has the size and time that `biounet.files.tree_state` gave."""
    try:
        return tree_state(path) == state
    except (OSError, ValueError):
        return False


def is_file(path: Path) -> bool:
    """Whether there is a file; False also where the name is too long or the folder cannot be searched."""
    return os.path.isfile(path)  # noqa: PTH113 - that of Path raises there


def is_there(path: str | Path) -> bool:
    """Whether there is a file or a folder; False also where the name is too long or the folder cannot be searched."""
    return os.path.exists(path)  # noqa: PTH110 - that of Path raises there


def tree_difference(path: Path, expected: Path) -> str:
    """Return in what a folder differs from another one, naming some of its files; empty if it does not."""
    found, wanted = _files_of(path), _files_of(expected)
    changed = [f"{name} changed" for name in wanted if name in found and found[name] != wanted[name]]
    missing = [f"{name} missing" for name in wanted if name not in found]
    extra = [f"{name} extra" for name in found if name not in wanted]
    return list_some([*missing, *changed, *extra], _SHOWN_FILES)


def _files_of(folder: Path) -> dict[str, str]:
    files = sorted((file.relative_to(folder).as_posix(), file) for file in folder.rglob("*") if file.is_file())
    return {name: hash_tree(file) for name, file in files}
