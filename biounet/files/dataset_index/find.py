"""Which files are images."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from biounet.core import InputError, as_path
from biounet.files.dataset_index.cases import FoundImage, group_cases, named_case
from biounet.files.dataset_index.names import (
    ANNOTATION_FOLDERS,
    ANNOTATIONS,
    MASKS,
    OUTPUTS,
    SUFFIXES,
    before_annotation,
    is_image,
    natural_key,
    stem_of,
)
from biounet.files.dataset_index.skipped import SkippedFile, reason_against
from biounet.files.formats.foreign import refuse_foreign

_LOOKED_FOR = f"looked for {', '.join(SUFFIXES)}, without names that end in {', '.join((*MASKS, *OUTPUTS))}"
_STORES = (".zarr", ".n5")


@dataclass
class Search:
    """What a search for images finds.

    Attributes
    ----------
    images
        In natural order, each once.
    left_out
        Files that could be images and are none of them.
    """

    images: list[FoundImage] = field(default_factory=list)
    left_out: list[SkippedFile] = field(default_factory=list)


def find_images(
    inputs: Sequence[str | Path], channels: Sequence[str] = (), annotation: Sequence[str] = ()
) -> list[FoundImage]:
    """Find images as `search_images` does, without what is left out."""
    return search_images(inputs, channels, annotation).images


def search_images(inputs: Sequence[str | Path], channels: Sequence[str] = (), annotation: Sequence[str] = ()) -> Search:
    """Find images in files, folders (with all folders below) and patterns, in natural order, each once.

    Hidden files, annotations (``x_masks.tif``) and biounet's own outputs are left out of folders and patterns; a file
    that is named is taken whatever its name. What has the name of an image and is none (a broken link, a pipe), and a
    folder below that cannot be looked into, are among the images: each fails on its own. Several folders keep apart by
    their names, files of one name by those of their folders.

    Parameters
    ----------
    inputs
        Files, folders, patterns; or ``<channel>=<file>`` for each channel of one case.
    channels
        Names of the channels that the model sees: files that are one channel each are joined, as `group_cases` says.
    annotation
        Names or patterns of annotations, beside those that are always taken for one.

    Raises
    ------
    InputError
        If an input does not exist, or nothing is found.
    """
    given = [str(one) for one in inputs]
    named = [one for one in given if channels and "=" in str(*Path(one).parts[:1]) and not exists(Path(one))]
    plain = [one for one in given if one not in named]
    place = _places(plain)
    found: dict[str, FoundImage] = {}
    left_out: dict[Path, SkippedFile] = {}
    names = Names(tuple(channels), tuple(annotation))
    real = cache(os.path.realpath)
    for one in plain:
        search = _of_one(one, names)
        left_out.update({file.path: file for file in search.left_out})
        for image in search.images:
            key = os.path.join(real(image.path.parent), image.path.name)  # noqa: PTH118 - faster for many
            found.setdefault(key, replace(image, relative=place.get(one, Path()) / image.relative))
    if not found and not named:
        for one in plain:
            refuse_foreign(Path(one))
        raise InputError("no image found", path=", ".join(given), hint=_LOOKED_FOR)
    apart = _keep_apart(list(found.values()))
    images = group_cases([image for image in apart if not image.problem], channels)
    left_out.update({file.path: file for image in images for file in _not_in(image, annotation)})
    left_out.update({file.path: file for file in _expected(left_out.values(), images, annotation)})
    images += [image for image in apart if image.problem]
    images = [named_case(named, channels), *images] if named else images
    taken = {file for image in images for file in (image.path, *image.others)}
    return Search(images, [file for path, file in left_out.items() if path not in taken])


@dataclass(frozen=True)
class Names:
    """What decides whether a name is that of an image."""

    channels: tuple[str, ...]
    annotation: tuple[str, ...]

    def against(self, path: Path, root: Path) -> str | None:
        """Return why a file of a folder is no image, as `reason_against` does; a channel is one whatever its name."""
        reason = reason_against(path, self.annotation)
        if reason == "" and not ANNOTATION_FOLDERS.isdisjoint(map(str.lower, path.relative_to(root).parent.parts)):
            reason = "in a folder of annotations: name the folder to segment what it holds"
        is_channel = bool(reason) and reason != "hidden" and is_image(path) and self._is_channel(path)
        return "" if is_channel else reason

    def _is_channel(self, path: Path) -> bool:
        return len(self.channels) > 1 and before_annotation(stem_of(path), self.channels) is not None


def _not_in(image: FoundImage, annotation: Sequence[str]) -> Iterator[SkippedFile]:
    """Give the files of a case that are none of its channels."""
    own = set(image.annotations(annotation))
    for file in image.beside:
        yield SkippedFile(file, "annotation of a case" if file in own else "no channel of the model", file in own)
    yield from (SkippedFile(file, "no channel of the model") for file in image.unused)


def _expected(
    left_out: Iterable[SkippedFile], images: Sequence[FoundImage], annotation: Sequence[str]
) -> list[SkippedFile]:
    """Return those of the files left out that are annotations of cases, which lie beside the channels."""
    cases = [image for image in images if image.is_case]
    known = {(image.path.parent, name) for image in cases for name in ("", *image.names)}
    found = []
    for file in left_out:
        before = before_annotation(stem_of(file.path), annotation or ANNOTATIONS)
        if before is not None and (file.path.parent, before.casefold()) in known:
            found.append(SkippedFile(file.path, "annotation of a case", True))
    return found


def _places(given: Sequence[str]) -> dict[str, Path]:
    """Return what the names of images begin with that are below each of several folders; nothing for one folder."""
    # Those of `os` follow no links, and take names that no file can have.
    folders = {one: Path(os.path.abspath(one)) for one in given if os.path.isdir(one)}  # noqa: PTH100, PTH112
    several = set(folders.values())
    tails = _tails(several) if len(several) > 1 else {}
    return {one: tails[folder] for one, folder in folders.items() if folder in tails}


def _keep_apart(images: Sequence[FoundImage]) -> list[FoundImage]:
    """Give images of one name, such as ``p1/f.tif`` and ``p2/f.tif``, those of their folders in front."""
    groups: dict[str, set[Path]] = {}
    for image in images:
        groups.setdefault(image.relative.as_posix().casefold(), set()).add(image.path.parent.absolute())
    apart = {key: _tails(folders) for key, folders in groups.items() if len(folders) > 1}
    return [_in_front(image, apart.get(image.relative.as_posix().casefold())) for image in images]


def _in_front(image: FoundImage, places: dict[Path, Path] | None) -> FoundImage:
    return image if places is None else replace(image, relative=places[image.path.parent.absolute()] / image.path.name)


def _tails(folders: Collection[Path]) -> dict[Path, Path]:
    """Return for each folder the end of its path, just long enough that all of them differ."""
    longest = max(len(folder.parts) for folder in folders)
    for length in range(1, max(2, longest)):
        tails = {folder: Path(*folder.relative_to(folder.anchor).parts[-length:]) for folder in folders}
        if len(set(tails.values())) == len(folders):
            break
    return tails


def _of_one(given: str, names: Names) -> Search:
    path = as_path(given, "an image, folder or pattern")
    if exists(path) or path.is_symlink():
        return _search(path, names) if path.is_dir() else Search([FoundImage(path, Path(path.name))])
    if not glob.has_magic(given):
        raise InputError("no such file, folder or pattern", path=given)
    root = _fixed_part(path)
    # Path.glob takes no absolute pattern, and people type them.
    matches = sorted((Path(match) for match in glob.glob(given, recursive=True)), key=natural_key)  # noqa: PTH207
    found = sift((match for match in matches if not match.is_dir()), root, names)
    if not found.images:
        for match in matches:
            refuse_foreign(match)
        raise InputError("no image matches this pattern", path=given, hint=_LOOKED_FOR)
    return found


def sift(files: Iterable[Path], root: Path, names: Names) -> Search:
    """Return which of the files below a folder are images, and which are skipped for what reason."""
    found = Search()
    for file in files:
        reason = names.against(file, root)
        if reason:
            found.left_out.append(SkippedFile(file, reason))
        elif reason is not None:
            found.images.append(FoundImage(file, file.relative_to(root)))
    return found


def _search(root: Path, names: Names) -> Search:
    """Return what is called like an image in a folder and below, and those folders that cannot be looked into."""
    closed: list[FoundImage] = []

    def keep(error: OSError) -> None:
        folder = Path(error.filename)
        if folder == root:
            _refuse_folder(error)
        closed.append(FoundImage(folder, folder.relative_to(root), problem=_not_listed(error)))

    found = sift(sorted(walk(root, keep), key=natural_key), root, names)
    found.images += closed
    return found


def exists(path: Path) -> bool:
    """Whether a path exists; one that cannot be looked at does not."""
    try:
        return path.exists()
    except OSError as error:  # no permission, a name that is too long
        raise InputError(f"cannot be looked up: {error.strerror}", path=path) from error


def _fixed_part(pattern: Path) -> Path:
    """Return the folder of a pattern above its first wildcard."""
    folder = pattern
    while glob.has_magic(str(folder)):
        folder = folder.parent
    return folder


def list_images(folder: Path) -> list[Path]:
    """Return the images in a folder and below, without results, annotations and hidden files, in natural order."""
    found = sift(sorted(walk(folder), key=natural_key), folder, Names((), ()))
    return [image.path for image in found.images if image.path.is_file()]


def _refuse_folder(error: OSError) -> None:
    raise InputError(_not_listed(error), path=error.filename) from error


def _not_listed(error: OSError) -> str:
    return f"cannot look into this folder: {error.strerror}"


def walk(folder: Path, onerror: Callable[[OSError], None] = _refuse_folder) -> Iterator[Path]:
    """Give the files of a folder and of the visible ones below, through links to folders, each folder once.

    A folder that is a store of its own, such as ``x.zarr``, is one file.
    """
    seen: set[str] = set()
    for root, folders, names in os.walk(folder, followlinks=True, onerror=onerror):
        real = os.path.realpath(root)
        if real in seen:  # a link to a folder above would lead round for ever
            folders.clear()
            continue
        seen.add(real)
        stores = [name for name in folders if name.lower().endswith(_STORES)]
        folders[:] = [name for name in folders if not name.startswith(".") and name not in stores]
        yield from (Path(root, name) for name in (*names, *stores))
