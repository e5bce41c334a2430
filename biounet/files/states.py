"""Size, time and hash of an image on disk: a file, a folder, or those files of a folder that are one series."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from biounet.files.atomic import hash_file, hash_tree
from biounet.files.formats.dicom.series import is_scene, series_files


def image_paths(path: Path, scene: str) -> list[Path]:
    """Return the files of an image: the path itself, or those of a series in the folder that it is.

    Raise `InputError` if the series is not there.
    """
    if path.is_dir() and is_scene(scene):
        return [file.path for file in series_files(path, scene)]
    return [path]


def image_state(path: Path, scene: str = "") -> tuple[int, int]:
    """Return the size of an image in bytes, and the time of its last change in ns; raise `OSError` or `InputError`."""
    paths = image_paths(path, scene)
    if paths == [path] and path.is_dir():
        paths = [path, *(Path(root, name) for root, _, names in os.walk(path) for name in names)]
    states = [file.stat() for file in paths]
    return sum(state.st_size for state in states), max(state.st_mtime_ns for state in states)


def hash_image(path: Path, scene: str = "") -> str:
    """Return the SHA-256 of a file, or of a folder; of a series that of the hashes of its files, whatever their names.

    Raise `OSError` or `InputError` if it cannot be read.
    """
    files = image_paths(path, scene)
    if files == [path]:
        return hash_tree(path)  # of a scene in a file, that of the whole file
    return hashlib.sha256("\n".join(sorted(map(hash_file, files))).encode()).hexdigest()
