"""One walk through a folder, which classifies each file by its name: image, annotation, output, hidden or other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from biounet.core import InputError
from biounet.files.dataset_index.cases import FoundImage
from biounet.files.dataset_index.names import (
    OUTPUT_ENDINGS,
    REPORT_FOLDER,
    STORES,
    in_annotation_folder,
    is_annotation,
    is_cellpose_pickle,
    is_image,
    is_label_store,
    may_be_outlines,
    natural_key,
    split_annotation,
    stem_of,
)
from biounet.files.dataset_index.outline_files import is_outline_file
from biounet.files.formats.leica_lif import LIF_MAGIC
from biounet.files.formats.nifti import NIFTI_MAGIC
from biounet.files.formats.nikon_nd2 import ND2_MAGIC
from biounet.files.formats.ome_zarr import is_zarr, is_zarr_by
from biounet.files.formats.unsupported import find_unsupported
from biounet.files.formats.zeiss_czi import CZI_MAGIC
from biounet.files.retry import read_first_bytes

_STORES = (*STORES, ".n5")
_OTHER_SUFFIX = "its ending is not one that is looked for: name the file to try it"
_TIFF_SUFFIXES = (".lsm", ".stk", ".scn", ".qptiff", ".dng", ".flex", ".nef", ".cr2", ".jpe", ".jfif")
_UNREAD_SUFFIXES = (
    *(".webp", ".heic", ".heif", ".avif", ".psd", ".ppm", ".pgm", ".fits", ".img", ".hdr", ".mrc", ".dv", ".r3d"),
    *(".mrxs", ".ims", ".ics", ".ids", ".mnc", ".jp2", ".j2k", ".jxl", ".exr", ".tga", ".pbm", ".pnm", ".eps"),
    *(".oif", ".oib", ".zvi", ".sld", ".sldy", ".spe", ".sif", ".pic", ".cxd", ".c01", ".xdce", ".dib", ".lim", ".kfb"),
    *(".avi", ".mov", ".mp4", ".npz", ".tif.gz", ".tiff.gz"),
)
# Never an image whatever they hold, so that a folder of many tables is not opened file by file.
_NO_IMAGE = {
    *(
        ".csv",
        ".tsv",
        ".txt",
        ".md",
        ".rst",
        ".jsonl",
        ".xml",
        ".html",
        ".htm",
        ".js",
        ".toml",
        ".yaml",
        ".yml",
    ),
    *(".ini", ".cfg", ".log", ".py", ".ipynb", ".r", ".m", ".sh", ".bat", ".ijm", ".cppipe", ".cpproj", ".pdf"),
    *(".doc", ".docx", ".xls", ".xlsx", ".ods", ".ppt", ".pptx", ".bval", ".bvec", ".safetensors", ".pt", ".part"),
    *(".qpproj", ".qpdata", ".db", ".lock", ".svg", ".sha256", ".md5"),
}
_MAGIC = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", *NIFTI_MAGIC)
_MICROSCOPE_MAGIC = (LIF_MAGIC, ND2_MAGIC, CZI_MAGIC)
_MAX_NAMES = 3  # that a line lists for each reason


class FileKind(Enum):
    """What a file is by its name; the value says why a search for images skips it."""

    IMAGE = ""
    ANNOTATION = "named like an annotation: name the file to segment it"
    IN_ANNOTATION_FOLDER = "in a folder of annotations: name the folder to segment what it holds"
    OUTLINES = "may be outlines"
    OUTPUT = "named like a picture that biounet writes"
    HIDDEN = "hidden"
    OTHER = "without the suffix of an image"


@dataclass(frozen=True)
class ScannedFile:
    """A file, its path below the folder that was scanned, and its kind."""

    path: Path
    relative: Path
    kind: FileKind

    @property
    def image(self) -> FoundImage:
        """The file as an image."""
        return FoundImage(self.path, self.relative)

    @property
    def may_be_annotation(self) -> bool:
        """Whether it has the name of an image or annotation: people correct results and train on them."""
        return self.kind in (FileKind.IMAGE, FileKind.ANNOTATION, FileKind.IN_ANNOTATION_FOLDER)

    @property
    def holds_outlines(self) -> bool:
        """Whether it holds outlines that another program drew."""
        return self.kind is FileKind.OUTLINES and is_outline_file(self.path)


@dataclass(frozen=True)
class SkippedFile:
    """A file that could be an image and is not treated as one.

    `expected` if it belongs there, as the annotation of a case beside its channels.
    """

    path: Path
    reason: str
    expected: bool = False


@dataclass(frozen=True)
class NameRules:
    """The channels of a model, names or patterns of annotations beside the usual ones, and which series are images."""

    channels: tuple[str, ...] = ()
    annotation: tuple[str, ...] = ()
    series: str = ""

    def classify(self, paths: Iterable[Path], folder: Path) -> list[ScannedFile]:
        """Return those of the files below a folder that could be images, and what they are by their names."""
        kinds = ((path, self._kind(path, path.relative_to(folder))) for path in paths)
        return [ScannedFile(path, path.relative_to(folder), kind) for path, kind in kinds if kind is not None]

    def _kind(self, path: Path, relative: Path) -> FileKind | None:
        hidden = path.name.startswith(".")
        if REPORT_FOLDER in relative.parts[:-1] and path.name.endswith(".webp"):
            return FileKind.OUTPUT
        if not hidden and is_label_store(path):
            return FileKind.ANNOTATION
        if not is_image(path) and not (path.is_dir() and is_zarr(path)):
            if not hidden and may_be_outlines(path):
                return FileKind.OUTLINES
            return None if hidden or path.suffix.lower() in _NO_IMAGE else FileKind.OTHER
        if hidden:
            return FileKind.HIDDEN
        if len(self.channels) > 1 and split_annotation(stem_of(path), self.channels) is not None:
            return FileKind.IMAGE  # a channel, whatever its name and folder
        if stem_of(path).lower().endswith(OUTPUT_ENDINGS):
            return FileKind.OUTPUT
        if is_annotation(path, self.annotation):
            return FileKind.ANNOTATION
        return FileKind.IN_ANNOTATION_FOLDER if in_annotation_folder(relative) else FileKind.IMAGE


def scan(folder: Path, rules: NameRules, errors: list[InputError] | None = None) -> list[ScannedFile]:
    """Return the files in a folder and below that could be images, in natural order.

    Visible folders below are searched through links too, each folder once. A folder that is a store of its own, such
    as ``x.zarr``, is one file. A folder that cannot be listed is an `InputError`, appended to `errors` if these are
    collected.
    """

    def report(error: OSError) -> None:
        problem = InputError(f"cannot look into this folder: {error.strerror}", path=Path(error.filename))
        if errors is None or problem.path == folder:
            raise problem from error
        errors.append(problem)

    return rules.classify(sorted(_walk(folder, report), key=natural_key), folder)


def _walk(folder: Path, on_error: Callable[[OSError], None]) -> Iterator[Path]:
    visited: set[str] = set()
    for root, folders, names in os.walk(folder, followlinks=True, onerror=on_error):
        real = os.path.realpath(root)
        if real in visited:  # a link to a folder above would never end
            folders.clear()
            continue
        visited.add(real)
        if root != str(folder) and is_zarr_by(names):  # a store with another name
            folders.clear()
            yield Path(root)
            continue
        stores = [name for name in folders if name.lower().endswith(_STORES)]
        folders[:] = [name for name in folders if not name.startswith(".") and name not in stores]
        yield from (Path(root, name) for name in (*names, *stores))


def list_skipped(files: Iterable[ScannedFile]) -> Iterator[SkippedFile]:
    """Yield the files that are not of the kind of an image with the reason; of others only what could be one."""
    for file in files:
        if file.kind is FileKind.OUTLINES:
            continue
        if reason := _other_reason(file.path) if file.kind is FileKind.OTHER else file.kind.value:
            yield SkippedFile(file.path, reason)


def _other_reason(path: Path) -> str | None:
    """Return why a file without the suffix of an image is not read; None if it cannot be an image."""
    if not path.is_dir() and not path.is_file():  # to read from a pipe could wait for ever
        return None
    if path.name.lower().endswith(_TIFF_SUFFIXES):
        return _OTHER_SUFFIX
    if is_cellpose_pickle(path):
        return "Cellpose's own file, a pickle, which may run any code: the masks that it saves as PNG or TIFF are used"
    try:
        begin = b"" if path.is_dir() else read_first_bytes(path, 16)
    except TimeoutError:
        return "the disk does not answer"
    except OSError:
        begin = b""
    if (unsupported := find_unsupported(path)) is not None:
        return f"{unsupported.name} is not read"
    if path.name.lower().endswith(_UNREAD_SUFFIXES):
        return "a format that is not read"
    return _OTHER_SUFFIX if begin.startswith((*_MAGIC, *_MICROSCOPE_MAGIC)) else None


def describe_skipped(files: Iterable[SkippedFile]) -> str:
    """Return one line that says how many files are skipped and why, with some of their names."""
    groups: dict[str, list[Path]] = {}
    for file in files:
        groups.setdefault(file.reason, []).append(file.path)
    parts = []
    for reason, paths in groups.items():
        names = [path.name for path in paths]
        if len(set(names)) < len(names):  # as the annotations of cases in folders
            names = [f"{path.parent.name}/{path.name}" for path in paths]
        more = ", …" if len(names) > _MAX_NAMES else ""
        parts.append(f"{len(names)} ({reason}): {', '.join(names[:_MAX_NAMES])}{more}")
    total = sum(map(len, groups.values()))
    return f"{total} file{'s' if total > 1 else ''} left out: {'; '.join(parts)}"
