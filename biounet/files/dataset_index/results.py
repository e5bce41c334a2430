"""Which label image of biounet is to be compared with which annotation."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from biounet.core import InputError
from biounet.files.dataset_index.cases import FoundImage, group_cases
from biounet.files.dataset_index.find import walk
from biounet.files.dataset_index.names import (
    IMAGES,
    before_annotation,
    is_body_mask,
    is_image,
    mask_ending,
    natural_key,
    spelt,
    stem_of,
)
from biounet.files.formats.foreign import refuse_foreign

_RESULT = "_labels"
_SHOWN = 10  # names that a message lists


def pair_results(
    predicted: Path, truth: Path, channels: Sequence[str] = (), annotation: Sequence[str] = ()
) -> list[tuple[Path, Path]]:
    """Pair annotations with results.

    Parameters
    ----------
    predicted
        Folder of results, ``<name>_labels.tif`` or ``.nii.gz``, in folders below as well.
    truth
        Folder of annotations: the same names, with any suffix, and ``_masks`` or the like if they want, in the same
        folders or, where a name occurs once, in any. Or folders of cases with one annotation each and perhaps the
        images: the result is ``<case>_labels``, or below ``<case>/`` called as the case or a channel. Links to folders
        are followed, in both.
    channels
        Names of the channels that the images of cases are files of.
    annotation
        Names or patterns of the annotations of cases, as in `biounet.files.find_pairs`.

    Returns
    -------
    The annotation and the result of each annotated image, in natural order.

    Raises
    ------
    InputError
        If there is no annotation, or one has no result, or more than one could be that of an image.
    """
    for folder in (predicted, truth):
        if not folder.is_dir():
            raise InputError("not a folder" if folder.exists() else "no such folder", path=folder)
    results = _results(predicted)
    annotations = _annotations(truth, predicted, channels, annotation)
    if not annotations:
        refuse_foreign(truth)
        raise InputError("no annotation found", path=truth)
    own = {*results.values()}
    itself = next((path for path in annotations.values() if path in own), None)
    if itself is not None:
        raise InputError("both the result and the annotation", path=itself, hint="name the folder of the annotations")
    index = _Index(results, annotations, tuple(channels))
    found = {key: index.result_of(key) for key in annotations}
    missing = [key for key, result in found.items() if result is None]
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        cause = f"no result for {len(missing)} of {len(annotations)} annotations: {', '.join(missing[:_SHOWN])}{more}"
        raise InputError(cause, path=predicted, hint=f"a result is called <image>{_RESULT}.tif or .nii.gz")
    return [(annotations[key], result) for key, result in found.items() if result is not None]


def _results(folder: Path) -> dict[str, Path]:
    files = (path for path in _files(folder) if stem_of(path).endswith(_RESULT))
    return _only("result", ((_key(path, folder), path) for path in files))


def _annotations(truth: Path, predicted: Path, channels: Sequence[str], names: Sequence[str]) -> dict[str, Path]:
    """Return the annotations of a folder and below by name, of cases by the name of the case."""
    inside = predicted != truth and predicted.resolve().is_relative_to(truth.resolve())
    files = [path for path in _files(truth) if not (inside and path.is_relative_to(predicted))]
    loose: list[Path] = []
    cases: list[tuple[str, Path]] = []
    for image in group_cases([FoundImage(path, path.relative_to(truth)) for path in files], channels):
        if image.is_case:
            cases += [(image.relative.as_posix(), path) for path in image.annotations(names)]
        elif not is_body_mask(image.path) or before_annotation(stem_of(image.path), names) is not None:
            loose.append(image.path)
    named = [path for path in loose if before_annotation(stem_of(path), names) is not None]
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in named or loose:
        groups[_key(path, truth, names)].append(path)
    if any(len(group) > 1 for group in groups.values()) or any(
        f"{key}{end}" in groups for key in groups for end in IMAGES
    ):  # a_masks.tif beside its image a.tif, or a_img.tif
        groups = {key: [path for path in group if mask_ending(path)] for key, group in groups.items()}
    return _only("annotation", [*cases, *((key, path) for key, group in groups.items() for path in group)])


def _files(folder: Path) -> list[Path]:
    """Return the visible files with the suffix of an image in a folder and below, in natural order."""
    files = (path for path in walk(folder) if is_image(path) and not path.name.startswith(".") and path.is_file())
    return sorted(files, key=natural_key)


def _only(what: str, paths: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    by_key: dict[str, Path] = {}
    for key, path in paths:
        if key in by_key:
            article = "an" if what[0] in "aeiou" else "a"
            raise InputError(f"{path} is {article} {what} of the same image", path=by_key[key])
        by_key[key] = path
    return by_key


def _key(path: Path, root: Path, names: Sequence[str] = ()) -> str:
    stem, folder = stem_of(path), path.relative_to(root).parent
    before = before_annotation(stem, names)
    name = stem.removesuffix(mask_ending(path)) if before is None else before or stem
    return spelt((folder / name).as_posix())


@dataclass(frozen=True)
class _Index:
    """Results and annotations, each by its place and name."""

    results: dict[str, Path]
    annotations: dict[str, Path]
    channels: tuple[str, ...]

    @cached_property
    def _by_name(self) -> dict[str, Path]:
        """Results whose name occurs once."""
        names: dict[str, list[Path]] = defaultdict(list)
        for key, path in self.results.items():
            names[PurePosixPath(key).name].append(path)
        return {name: found[0] for name, found in names.items() if len(found) == 1}

    @cached_property
    def _without_capitals(self) -> dict[str, list[Path]]:
        """Results of no annotation by their keys in small letters."""
        found: dict[str, list[Path]] = defaultdict(list)
        for key, path in self.results.items():
            if key not in self.annotations:
                found[key.casefold()].append(path)
        return found

    @cached_property
    def _names_are_unique(self) -> bool:
        return len({PurePosixPath(key).name for key in self.annotations}) == len(self.annotations)

    @cached_property
    def _in_folder(self) -> Counter[PurePosixPath]:
        """Number of annotations in each folder."""
        return Counter(PurePosixPath(key).parent for key in self.annotations)

    def result_of(self, key: str) -> Path | None:
        """Return the result with the name of an annotation, or else that of its case."""
        own = PurePosixPath(key)
        full = own.with_name(spelt(stem_of(self.annotations[key])))  # an image may be called like an annotation
        for place in (own, full, *(own.with_name(f"{own.name}{end}") for end in IMAGES)):
            if (found := self.results.get(place.as_posix())) is not None:
                return found
        if self._names_are_unique and own.name in self._by_name:
            return self._by_name[own.name]
        alike = self._without_capitals.get(key.casefold(), [])
        if len(alike) == 1:
            return alike[0]
        case = own.parent if own.parent.name and self._in_folder[own.parent] == 1 else own
        names = [case, *(case / name for name in (case.name, *self.channels))]
        fitting = [self.results[name.as_posix()] for name in names if name.as_posix() in self.results]
        return fitting[0] if len(fitting) == 1 else self._by_name.get(case.name)
