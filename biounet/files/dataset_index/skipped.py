"""What lies in a folder that was searched and is no row of the results: each file with the reason."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from biounet.files.dataset_index.names import OUTPUTS, ending, is_annotation, is_image
from biounet.files.formats.foreign import foreign_format
from biounet.files.formats.nifti import BEGINNINGS
from biounet.files.retry import first_bytes

_UNKNOWN = "its ending is not one that is looked for: name the file to try it"
_TRIED = (".lsm", ".stk", ".svs", ".ndpi", ".scn", ".qptiff", ".dng", ".flex", ".nef", ".cr2", ".jpe", ".jfif")
_OTHER = (
    *(".webp", ".heic", ".heif", ".avif", ".psd", ".ppm", ".pgm", ".fits", ".img", ".hdr", ".mrc", ".dv", ".r3d"),
    *(".mrxs", ".ims", ".ics", ".ids", ".mnc", ".jp2", ".j2k", ".jxl", ".exr", ".tga", ".pbm", ".pnm", ".eps"),
    *(".oif", ".oib", ".zvi", ".sld", ".sldy", ".spe", ".sif", ".pic", ".cxd", ".c01", ".xdce", ".dib", ".lim", ".kfb"),
    *(".avi", ".mov", ".mp4", ".npy", ".npz", ".tif.gz", ".tiff.gz"),
)
# What is no image whatever it holds, so that a folder of many tables is not opened file by file.
_TEXT = {
    *(".csv", ".tsv", ".txt", ".md", ".rst", ".json", ".jsonl", ".xml", ".html", ".htm", ".toml", ".yaml", ".yml"),
    *(".ini", ".cfg", ".log", ".py", ".ipynb", ".r", ".m", ".sh", ".bat", ".ijm", ".cppipe", ".cpproj", ".pdf"),
    *(".doc", ".docx", ".xls", ".xlsx", ".ods", ".ppt", ".pptx", ".bval", ".bvec", ".safetensors", ".pt", ".part"),
    *(".roi", ".geojson", ".qpproj", ".qpdata", ".db", ".lock", ".svg", ".sha256", ".md5"),
}
_BEGINNINGS = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", *BEGINNINGS)
_SHOWN = 3  # names that a line lists for each reason


@dataclass(frozen=True)
class SkippedFile:
    """A file that could be an image and is not treated as one.

    Attributes
    ----------
    path
        The file.
    reason
        Why.
    expected
        Whether anybody who knows the folder expects it, as the annotation of a case beside its channels.
    """

    path: Path
    reason: str
    expected: bool = False


def reason_against(path: Path, names: Sequence[str] = ()) -> str | None:
    """Return why a file of a folder is not treated as an image; empty where it is one, None where it cannot be any.

    Parameters
    ----------
    path
        The file.
    names
        Those of annotations, as the recipe has them.
    """
    if is_image(path):
        if path.name.startswith("."):
            return "hidden"
        if ending(path, OUTPUTS):
            return "named like a picture that biounet writes"
        return "named like an annotation: name the file to segment it" if is_annotation(path, names) else ""
    if path.name.startswith("."):
        return None
    return None if path.suffix.lower() in _TEXT else _of_other_ending(path)


def _of_other_ending(path: Path) -> str | None:
    if not path.is_dir() and not path.is_file():  # to read from a pipe could wait for ever
        return None
    if path.name.lower().endswith(_TRIED):
        return _UNKNOWN
    try:
        begin = b"" if path.is_dir() else first_bytes(path, 16)
    except TimeoutError:
        return "the disk does not answer"
    except OSError:
        begin = b""
    known = foreign_format(path)
    if known is not None:
        return f"{known.name} is not read"
    if path.name.lower().endswith(_OTHER):
        return "a format that is not read"
    return _UNKNOWN if begin.startswith(_BEGINNINGS) else None


def describe_skipped(left_out: Iterable[SkippedFile]) -> str:
    """Return one line that says how many files are left out and why, with some of their names."""
    groups: dict[str, list[Path]] = {}
    for one in left_out:
        groups.setdefault(one.reason, []).append(one.path)
    parts = []
    for reason, paths in groups.items():
        names = [path.name for path in paths]
        if len(set(names)) < len(names):  # as the annotations of cases in folders
            names = [f"{path.parent.name}/{path.name}" for path in paths]
        more = ", …" if len(names) > _SHOWN else ""
        parts.append(f"{len(names)} ({reason}): {', '.join(names[:_SHOWN])}{more}")
    total = sum(map(len, groups.values()))
    return f"{total} file{'s' if total > 1 else ''} left out: {'; '.join(parts)}"
