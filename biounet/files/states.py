"""Size, time and hash of an image on disk: a file, a folder, or those files of a folder that are one series."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from biounet.files.atomic import hash_file, hash_tree
from biounet.files.formats.dicom.series import is_scene, series_files


def image_paths(path: Path, scene: str) -> list[Path]:
    """Return the files of an image: the path itself, or those of a series in the folder that it is.

    Raise `InputError` if the series is not there.
    """
    if is_scene(scene) and path.is_dir():
        return [file.path for file in series_files(path, scene)]
    return [path]


def image_state(path: Path, scene: str = "") -> tuple[int, int]:
    """Return the size of an image in bytes, and the time of its last change in ns; raise `OSError` or `InputError`."""
    if not is_scene(scene):  # a file, as nearly always: its state is asked for once, of a million images
        state = os.stat(path)  # noqa: PTH116 - as in `tree_state`
        if not stat.S_ISDIR(state.st_mode):
            return state.st_size, state.st_mtime_ns
    paths = image_paths(path, scene)
    if paths == [path] and path.is_dir():
        paths = [path, *(Path(root, name) for root, _, names in os.walk(path) for name in names)]
    states = [file.stat() for file in paths]
    return sum(state.st_size for state in states), max(state.st_mtime_ns for state in states)


def tree_state(path: str | Path) -> tuple[int, int]:
    """Return the size of a file or folder in bytes, and a number that is another one when it was written to.

    It is the time of the last change in ns, and of a folder a hash of names, sizes and times of all that is in it.
    Raise `OSError` if it is not there.
    """
    state = os.stat(path)  # noqa: PTH116 - Path takes twice the time, and this is asked of millions of files
    if not stat.S_ISDIR(state.st_mode):
        return state.st_size, state.st_mtime_ns
    size, lines, start = 0, [], len(os.fspath(path))
    for root, _, names in os.walk(path):
        lines.append(root[start:])
        for name in names:
            state = os.stat(f"{root}/{name}")  # noqa: PTH116 - as above
            size += state.st_size
            lines.append(f"{root[start:]}/{name} {state.st_size} {state.st_mtime_ns}")
    digest = hashlib.sha256("\n".join(sorted(lines)).encode("utf-8", "surrogateescape")).digest()
    return size, int.from_bytes(digest[:7])


def hash_image(path: Path, scene: str = "") -> str:
    """Return the SHA-256 of a file, or of a folder; of a series that of the hashes of its files, whatever their names.

    Raise `OSError` or `InputError` if it cannot be read.
    """
    files = image_paths(path, scene)
    if files == [path]:
        return hash_tree(path)  # of a scene in a file, that of the whole file
    return hashlib.sha256("\n".join(sorted(map(hash_file, files))).encode()).hexdigest()
