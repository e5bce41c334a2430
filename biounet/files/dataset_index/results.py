"""Which label image of biounet is compared with which annotation."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from biounet.core import InputError, list_some
from biounet.files.dataset_index.cases import group_cases
from biounet.files.dataset_index.names import (
    IMAGE_ENDINGS,
    annotated_stems,
    is_body_mask,
    is_nifti,
    is_whole,
    mask_ending,
    match_any_case,
    normalise_unicode,
    select_annotations,
    split_annotation,
    stem_of,
    unique_values,
)
from biounet.files.dataset_index.outline_files import coco_names
from biounet.files.dataset_index.scan import FileKind, NameRules, scan
from biounet.files.formats.dicom.segmentation import is_segmentation
from biounet.files.formats.unsupported import check_supported

_RESULT = "_labels"
_NO_LABELS = (FileKind.HIDDEN, FileKind.OTHER, FileKind.OUTLINES)
_MAX_NAMES = 10  # that a message lists


class ResultPair(NamedTuple):
    """An annotation, the result that is compared with it, and a name for the image of both, which has no suffix.

    Several images have the same annotation where one file holds the outlines of all.
    """

    truth: Path
    predicted: Path
    image: Path


def pair_results(
    predicted: Path, truth: Path, channels: Sequence[str] = (), annotation: Sequence[str] = ()
) -> list[ResultPair]:
    """Pair annotations with results.

    Parameters
    ----------
    predicted
        Folder of results, ``<name>_labels.tif`` or ``.nii.gz``, in folders below as well.
    truth
        Folder of annotations: the same names, with any suffix and optionally ``_masks`` or the like, in the same
        folders or, where a name occurs once, in any. Or folders of cases with one annotation each, with or without the
        images: the result is ``<case>_labels``, or below ``<case>/`` with the name of the case or of a channel. Links
        to folders are followed, in both.
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
        If there is no annotation, or one has no result, or several could be that of one image.
    """
    for folder in (predicted, truth):
        if not folder.is_dir():
            raise InputError("not a folder" if folder.exists() else "no such folder", path=folder)
    results = _find_results(predicted)
    annotations = _find_annotations(truth, predicted, NameRules(tuple(channels), tuple(annotation)))
    if not annotations:
        check_supported(truth)
        raise InputError("no annotation found", path=truth)
    result_paths = {*results.values()}
    if path := next((path for path in annotations.values() if path in result_paths), None):
        raise InputError("both the result and the annotation", path=path, hint="name the folder of the annotations")
    found = _match(results, annotations, channels)
    missing = [key for key, result in found.items() if result is None]
    if missing:
        cause = f"no result for {len(missing)} of {len(annotations)} annotations: {list_some(missing, _MAX_NAMES)}"
        raise InputError(cause, path=predicted, hint=f"a result is called <image>{_RESULT}.tif or .nii.gz")
    pairs = ((key, result) for key, result in found.items() if result is not None)
    return [ResultPair(annotations[key], result, truth / key) for key, result in pairs]


def _find_results(folder: Path) -> dict[str, Path]:
    files = [file for file in scan(folder, NameRules()) if file.may_be_annotation and is_whole(file.path)]
    results = (file for file in files if stem_of(file.path).endswith(_RESULT))
    return _by_key("a result", ((_key(file.relative), file.path) for file in results))


def _find_annotations(truth: Path, predicted: Path, rules: NameRules) -> dict[str, Path]:
    """Return the annotations of a folder and below by key, those of cases by the name of the case."""
    nested = predicted != truth and predicted.resolve().is_relative_to(truth.resolve())
    files = [file for file in scan(truth, rules) if not (nested and file.path.is_relative_to(predicted))]
    images = [file.image for file in files if file.kind not in _NO_LABELS and is_whole(file.path)]
    single: dict[Path, Path] = {}
    cases: list[tuple[str, Path]] = []
    for image in group_cases(images, rules.channels):
        if image.is_case:
            cases += [(image.relative.as_posix(), path) for path in image.annotations(rules.annotation)]
        elif not is_body_mask(image.path) or split_annotation(stem_of(image.path), rules.annotation) is not None:
            single[image.path] = image.relative
    groups: dict[str, list[Path]] = defaultdict(list)
    drawn = {file.path: file.relative for file in files if file.holds_outlines or is_segmentation(file.path)}
    for path in select_annotations({**single, **drawn}, rules.annotation):
        for key in _drawn_keys(path, drawn[path], rules.annotation) if path in drawn else ():
            groups[key].append(path)
        if path in single:
            groups[_key(single[path], rules.annotation)].append(path)
    if any(len(group) > 1 for group in groups.values()) or any(
        f"{key}{end}" in groups for key in groups for end in IMAGE_ENDINGS
    ):  # a_masks.tif beside its image a.tif, or a_img.tif
        groups = {key: [path for path in group if mask_ending(path) or path in drawn] for key, group in groups.items()}
    return _by_key("an annotation", [*cases, *((key, path) for key, group in groups.items() for path in group)])


def _by_key(what: str, files: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    by_key: dict[str, Path] = {}
    for key, path in files:
        if key in by_key:
            raise InputError(f"{path} is {what} of the same image", path=by_key[key])
        by_key[key] = path
    return by_key


def _key(relative: Path, patterns: Sequence[str] = ()) -> str:
    """Return what an annotation and its result have in common: the folder, and the stem of their image."""
    stem = annotated_stems(relative, patterns)[0] or stem_of(relative)
    return normalise_unicode((relative.parent / stem).as_posix())


def _drawn_keys(path: Path, relative: Path, patterns: Sequence[str]) -> list[str]:
    """Return the keys of the images whose outlines a file holds."""
    names = coco_names(path)
    if len(names) == 1:
        names = (PurePosixPath(names[0].name),)
    stems = [name.parent / stem_of(Path(name.name)) for name in names]
    return [normalise_unicode((relative.parent / stem).as_posix()) for stem in stems] or [_key(relative, patterns)]


def _match(results: dict[str, Path], annotations: dict[str, Path], channels: Sequence[str]) -> dict[str, Path | None]:
    """Return the result with the name of each annotation, else that of its case; None if there is none."""
    by_name = unique_values((PurePosixPath(key).name, path) for key, path in results.items())
    any_case = match_any_case({key: path for key, path in results.items() if key not in annotations}, annotations)
    names_are_unique = len({PurePosixPath(key).name for key in annotations}) == len(annotations)
    counts = Counter(PurePosixPath(key).parent for key in annotations)  # in each folder

    def find(key: str) -> Path | None:
        name = PurePosixPath(key)
        full = name.with_name(normalise_unicode(stem_of(annotations[key])))  # an image may be named like an annotation
        names = (name, full, *(name.with_name(f"{name.name}{end}") for end in IMAGE_ENDINGS))
        same = next((results[str(one)] for one in names if str(one) in results), None)
        same = same or (by_name.get(name.name) if names_are_unique else None) or any_case.get(key)
        if same is not None:
            return same
        case = name.parent if name.parent.name and counts[name.parent] == 1 else name
        of_case = (str(path) for path in (case, case / case.name, *(case / channel for channel in channels)))
        fitting = [results[path] for path in of_case if path in results]
        of_series = re.compile(
            rf"{re.escape(case.name)}_\d+_.+"
        )  # of a folder of DICOM files, by number and description
        volumes = (path for path in results.values() if is_nifti(path))
        fitting = fitting or [path for path in volumes if of_series.fullmatch(stem_of(path))]
        return fitting[0] if len(fitting) == 1 else by_name.get(case.name)

    return {key: find(key) for key in annotations}
