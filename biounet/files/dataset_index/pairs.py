"""Which annotation belongs to which image."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from biounet.core import InputError, as_path, list_some
from biounet.files.axes import shorten_scene
from biounet.files.dataset_index.cases import FoundImage, group_cases
from biounet.files.dataset_index.csv_table import read_table
from biounet.files.dataset_index.dicom_index import (
    dicom_files,
    find_dicom,
    folder_keys,
    referenced_series,
    series_keys,
)
from biounet.files.dataset_index.find import exists
from biounet.files.dataset_index.names import (
    IMAGE_ENDINGS,
    PICKLE_ENDING,
    SEPARATOR,
    image_key,
    in_annotation_folder,
    is_annotation,
    is_body_mask,
    is_cellpose_pickle,
    is_whole,
    mask_ending,
    match_any_case,
    may_be_outlines,
    select_annotations,
    stem_of,
    unique_values,
    without_mask_ending,
)
from biounet.files.dataset_index.outline_files import annotated_keys
from biounet.files.dataset_index.scan import FileKind, NameRules, ScannedFile, SkippedFile, list_skipped, scan
from biounet.files.dataset_index.scenes import list_images, scene_stem
from biounet.files.formats.unsupported import check_supported
from biounet.files.isolation.client import ReaderPool

_UNANNOTATED_HINT = (
    "keep images that nobody annotated in another folder, or name the pairs in a CSV with the columns image and label"
)
_MAX_NAMES = 5  # that a message lists


@dataclass(frozen=True)
class Pair:
    """An image, the file of its annotation, and the files of its further channels in their order.

    Of several files, `image` is that of the first channel; of several images in a file, `scene` says which.
    """

    image: Path
    label: Path
    others: tuple[Path, ...] = ()
    scene: str = ""
    name: str = ""  # of a scene: what its annotation is called like

    @property
    def drawn_on(self) -> Path:
        """What outlines of many images in one file name this one: its file, or the name of a scene in its folder."""
        return self.image.with_name(self.name) if self.name else self.image

    def files(self) -> tuple[Path, ...]:
        """Return one file for each channel, or the one file that holds all."""
        return (self.image, *self.others)


@dataclass(frozen=True)
class Unpaired:
    """What `pair_files` did not pair: an error for each file without a partner, and files that need none.

    The error of the first image without annotation says what to do with such images.
    """

    problems: tuple[InputError, ...]
    skipped: tuple[SkippedFile, ...] = ()


def find_pairs(
    images: str | Path,
    labels: str | Path | None = None,
    channels: Sequence[str] = (),
    annotation: Sequence[str] = (),
    series: str = "",
) -> list[Pair]:
    """Pair images with annotations.

    Parameters
    ----------
    images
        A folder; or, without `labels`, a folder in which ``x.tif`` has a sibling such as ``x_masks.tif`` or
        ``images/x.tif`` a partner such as ``masks/x.png``, or a case one file that is named like an annotation; or
        a folder with nnU-Net's ``dataset.json``; or a table with the columns ``image``, or one for each channel, and
        ``label``, as `read_table` reads it.
    labels
        A folder whose files have the names of the images or cases, with any suffix, and optionally ``_masks`` or the
        like; or one file, if `images` is one.
    channels
        Names of the channels of the model: files that are one channel each are joined, as `group_cases` says.
    annotation
        Names or patterns of the annotation, such as ``lesions`` for ``p1/lesions.nii.gz`` and ``p1_lesions.nii.gz``;
        empty: the usual ones.
    series
        Which series of DICOM files are images, as in `biounet.files.ReadOptions`. Their annotations have their names,
        or that of their folder; or are DICOM SEG, which say what series they are of.

    Raises
    ------
    InputError
        Naming the images without annotation and the annotations without image.
    """
    pairs, unpaired = pair_files(images, labels, channels, annotation, series)
    if problems := unpaired.problems:
        unannotated = any(problem.hint == _UNANNOTATED_HINT for problem in problems)
        texts = [problem.cause if problem.hint == _UNANNOTATED_HINT else str(problem) for problem in problems]
        more = f"; and {len(texts) - _MAX_NAMES} more" if len(texts) > _MAX_NAMES else ""
        hint = f"'biounet check' lists all{f'; {_UNANNOTATED_HINT}' if unannotated else ''}"
        raise InputError(f"{'; '.join(texts[:_MAX_NAMES])}{more}", path=images, hint=hint)
    if not pairs:
        check_supported(Path(images))
        raise InputError("no image with an annotation found", path=images)
    return pairs


def pair_files(
    images: str | Path,
    labels: str | Path | None = None,
    channels: Sequence[str] = (),
    annotation: Sequence[str] = (),
    series: str = "",
) -> tuple[list[Pair], Unpaired]:
    """Pair as `find_pairs` does, and return what has no partner instead of raising."""
    images = as_path(images, "the folder of images")
    for folder in (images, as_path(labels, "the folder of annotations") if labels is not None else images):
        if not exists(folder):
            raise InputError("no such folder", path=folder)
    if is_whole(images):
        if labels is not None and is_whole(Path(labels)):
            return [Pair(images, Path(labels))], Unpaired(())
        rows, missing = read_table(images, channels)
        pairs = [Pair(row.files[0], row.files[-1], row.files[1:-1], row.scene) for row in rows]
        return pairs, Unpaired(tuple(map(InputError, missing)))
    rules = NameRules(tuple(channels), tuple(annotation), series)
    declared = (images / "dataset.json").is_file() or (images / "labelsTr").is_dir()
    if labels is None and declared and (images / "imagesTr").is_dir():
        images, labels = images / "imagesTr", images / "labelsTr"
        return pair_files(images, labels, channels, annotation, series)
    if labels is None or images.samefile(labels):
        return _pair_inside(images, rules)
    return _pair_folders(images, Path(labels), rules)


def _pair_folders(images: Path, labels: Path, rules: NameRules) -> tuple[list[Pair], Unpaired]:
    """Pair the images of one folder with the annotations of another, which may be below it, such as ``img/masks``."""
    image_files, label_files = scan(images, rules), scan(labels, rules)
    usable = (file for file in label_files if file.holds_outlines or (file.may_be_annotation and is_whole(file.path)))
    drawn = [file.path for file in usable]
    chosen = select_annotations(drawn, rules.annotation)
    nested = labels.resolve().is_relative_to(images.resolve())
    excluded = {path.resolve() for path in drawn} if nested else set()
    found = [file for file in image_files if file.kind is FileKind.IMAGE and is_whole(file.path)]
    found = [file for file in found if not nested or file.path.resolve() not in excluded]
    if not nested:
        found += _images_named_like_annotations(image_files, found, chosen, labels)
    dicom = find_dicom(dicom_files(image_files), images, rules.channels, series=rules.series)
    if not found and not dicom.images:
        check_supported(images)
    used = {file.path for file in found}
    rest = [file for file in image_files if file.path not in used]
    skipped = list(list_skipped(rest))
    skipped += [
        SkippedFile(file.path, "not a file") for file in rest if file.kind is FileKind.IMAGE and not is_whole(file.path)
    ]
    skipped += list_skipped(file for file in label_files if not file.may_be_annotation)
    skipped += [*_not_files(label_files), *dicom.skipped]
    cases = group_cases([file.image for file in image_files if file.path in used], rules.channels)
    chosen = dict.fromkeys((*chosen, *dicom.segmentations, *find_dicom(dicom_files(label_files), labels).segmentations))
    return _pair([*cases, *dicom.images], chosen, labels, rules, skipped)


def _images_named_like_annotations(
    files: Iterable[ScannedFile], images: Collection[ScannedFile], labels: Iterable[Path], label_folder: Path
) -> list[ScannedFile]:
    """Return files that are named like annotations and are images: an annotation has their name, and no image has it.

    `images` are those of the files that are images by their names, `labels` the annotations below `label_folder`.
    """
    image_keys = {file.image.key for file in images}
    wanted: set[str] = set()
    for label in labels:
        parent = label.relative_to(label_folder).parent
        keys = {image_key(parent, stem_of(label)), image_key(parent, without_mask_ending(label))}
        wanted |= keys if not keys & image_keys else set()
    return [file for file in files if file.may_be_annotation and file.image.key in wanted]


def _pair_inside(folder: Path, rules: NameRules) -> tuple[list[Pair], Unpaired]:
    """Pair images with annotations in the same folder or in one of the folders below."""
    files = scan(folder, rules)
    usable = [file for file in files if file.may_be_annotation and is_whole(file.path)]
    found = group_cases([file.image for file in usable], rules.channels)
    single = [image for image in found if not image.is_case]
    named = (one for one in single if is_annotation(one.path, rules.annotation) or in_annotation_folder(one.relative))
    masks = [image.path for image in named]
    stems = {(image.path.parent, image.stem) for image in found}
    annotated = {(mask.parent, without_mask_ending(mask)) for mask in masks if mask_ending(mask)}
    # x_label.tif is an image if there is x_label_masks.tif, and no x.tif that it could be the annotation of.
    masks = [
        mask
        for mask in masks
        if (mask.parent, stem_of(mask)) not in annotated or (mask.parent, without_mask_ending(mask)) in stems
    ]
    masks += [file.path for file in files if file.holds_outlines]
    is_mask = set(masks)
    images = [image for image in found if image.is_case or image.path not in is_mask]
    chosen = select_annotations(masks, rules.annotation)
    skipped = list(list_skipped(file for file in files if not file.may_be_annotation))
    skipped += [SkippedFile(mask, "annotation of another name") for mask in is_mask.difference(chosen)]
    dicom = find_dicom(dicom_files(files), folder, rules.channels, series=rules.series)
    skipped += [*_not_files(files), *dicom.skipped]
    return _pair([*images, *dicom.images], [*chosen, *dicom.segmentations], folder, rules, skipped)


def _pair(
    images: Sequence[FoundImage], labels: Iterable[Path], folder: Path, rules: NameRules, skipped: Iterable[SkippedFile]
) -> tuple[list[Pair], Unpaired]:
    """Pair images with the annotations below a folder by their keys."""
    with ReaderPool() as readers:
        images = list_images(images, readers)
    aliases, folders = _alias_keys(images), folder_keys(images)
    image_keys = {image.key for image in images}.union(aliases.values(), *folders.values())
    by_key, problems = _labels_by_key(labels, folder, rules.annotation, image_keys, series_keys(images))
    without_image = {key: label for key, label in by_key.items() if key not in image_keys}
    any_case = match_any_case(without_image, image_keys)
    longer_names = _longer_names(without_image.values(), folder)
    skipped = list(skipped)
    pickles = {stem_of(file.path): file.path for file in skipped if is_cellpose_pickle(file.path)}
    pairs: dict[str, Pair] = {}
    hint: str | None = _UNANNOTATED_HINT
    matches = []
    for image in images:
        keys = (image.key, aliases.get(image.relative, image.key), *folders.get(image.relative, ()))
        matches.append(next((by_key[key] for key in keys if key in by_key), None) or any_case.get(image.key))
    annotated = {image.path for image, match in zip(images, matches, strict=True) if match is not None}
    for image, match in zip(images, matches, strict=True):
        key, annotations = image.key, image.annotations(rules.annotation)
        match = match or (annotations[0] if len(annotations) == 1 else None)
        if image.problem:
            problems.append(InputError(f"{image.path}: {image.problem}"))
        elif key in pairs:
            problems.append(InputError(f"{image.path} and {pairs[key].image} have one name"))
        elif match is not None and annotations and may_be_outlines(match) and match.parent == image.path.parent:
            problems.append(_several(match, annotations[0]))
        elif match is None and image.scene and image.path in annotated:
            continue  # nobody can keep the other scenes of a file in another folder
        elif match is None and (pickle := pickles.get(f"{image.stem}{PICKLE_ENDING}")) is not None:
            problems.append(_pickled(image, pickle))
        elif match is None:
            problems.append(_unannotated(image, annotations, longer_names.get(key), hint))
            hint = None if problems[-1].hint == hint else hint  # at the first of them only
        else:
            name = image.relative.name if image.scene else ""
            pairs[key] = Pair(image.path, match, image.others, image.scene, name)
    used = {pair.label for pair in pairs.values()}
    surplus = [label for label in by_key.values() if label not in used]
    problems += [InputError(f"{label} has no image") for label in surplus if not is_body_mask(label)]
    if images and surplus and not pairs and all(problem.hint in (None, _UNANNOTATED_HINT) for problem in problems):
        cause = f"{folder}: no annotation is called like an image, such as {_shown(images[0], name=True)}"
        problems.append(InputError(cause, hint="rename them, or name both in a CSV with the columns image and label"))
    rest = [file for file in (*skipped, *_skipped_partners(images, surplus)) if file.path not in used]
    return list(pairs.values()), Unpaired(tuple(problems), (*rest, *_skipped_scenes(images, pairs)))


def _not_files(files: Iterable[ScannedFile]) -> Iterator[SkippedFile]:
    """Yield links to nowhere, pipes and the like that have the name of an annotation."""
    for file in files:
        if file.may_be_annotation and not is_whole(file.path):
            yield SkippedFile(file.path, "not a file")


def _skipped_partners(images: Iterable[FoundImage], surplus: Iterable[Path]) -> Iterator[SkippedFile]:
    """Yield the files that have no partner where that is no problem."""
    yield from (SkippedFile(label, "a mask of no image") for label in surplus if is_body_mask(label))
    for image in images:
        yield from (SkippedFile(file, "neither a channel nor the annotation") for file in image.companions)
        yield from (SkippedFile(file, "no channel of the recipe") for file in image.unused)


def _shown(image: FoundImage, *, name: bool = False) -> str:
    """Return the path or the name of an image for messages, of a scene with what its annotation is called like."""
    if not image.scene:
        return image.path.name if name else str(image.path)
    return image.relative.name if name else f"{image.path}, scene {shorten_scene(image.scene)} ({image.relative.name})"


def _skipped_scenes(images: Iterable[FoundImage], pairs: Collection[str]) -> Iterator[SkippedFile]:
    """Yield the files of which some scenes are annotated, with the names of the others."""
    left: dict[Path, list[FoundImage]] = {}
    for image in images:
        left.setdefault(image.path, []).extend([image] if image.scene else [])
    for path, scenes in left.items():
        others = [scene.relative.name for scene in scenes if scene.key not in pairs]
        if others and len(others) < len(scenes):
            yield SkippedFile(path, f"scenes without an annotation: {list_some(others, _MAX_NAMES)}", expected=True)


def _longer_names(labels: Iterable[Path], folder: Path) -> dict[str, tuple[Path, str]]:
    """Return annotations without image by the keys that their names begin with, and how the names go on."""
    longer: dict[str, tuple[Path, str]] = {}
    for label in labels:
        stem, parent = stem_of(label), label.relative_to(folder).parent
        for separator in SEPARATOR.finditer(stem):
            before, after = stem[: separator.start()], stem[separator.end() :]
            if before and after:
                longer.setdefault(image_key(parent, before), (label, after))
    return longer


def _unannotated(
    image: FoundImage, annotations: Sequence[Path], longer: tuple[Path, str] | None, hint: str | None
) -> InputError:
    """Return the error of an image or case that has no annotation, or several; `hint` if none can be suggested."""
    setting = "say which in the recipe, such as data.annotation = "
    if annotations:
        best = min(annotations, key=lambda file: is_body_mask(file) and stem_of(file).lower() != "mask")
        names = ", ".join(file.name for file in annotations)
        cause = f"{_shown(image)} could have more than one annotation: {names}"
        return InputError(cause, hint=f"{setting}'{stem_of(best)}'")
    cause = f"{_shown(image)} has no annotation"
    if not image.companions:
        if longer is None:
            return InputError(cause, hint=hint)
        return InputError(cause, hint=f"if {longer[0].name} is it, {setting}'{longer[1]}'")
    likely = [file for file in image.companions if not is_body_mask(file)]
    if not likely:
        return InputError(f"{cause}, and a mask is none unless the recipe says so with data.annotation")
    names = ", ".join(file.name for file in likely[:_MAX_NAMES])
    name = stem_of(likely[0]).removeprefix(f"{image.stem}_")
    return InputError(cause, hint=f"if one of {names} is it, {setting}'{name}'")


def _several(one: Path, other: Path) -> InputError:
    hint = "keep one of them there, or say which with data.annotation"
    return InputError(f"{one} and {other} are both annotations of one image", hint=hint)


def _pickled(image: FoundImage, pickle: Path) -> InputError:
    """Return the error of an image that has only the file that Cellpose saves for itself."""
    cause = f"{image.path} has no annotation but {pickle.name}, a pickle, which may run any code and is not opened"
    return InputError(cause, hint=f"save the masks in Cellpose as PNG or TIFF, {image.stem}_cp_masks.png for example")


def _alias_keys(images: Sequence[FoundImage]) -> dict[Path, str]:
    """Return a second key by which an annotation may name an image, by its path below the folder.

    That of their folder if they are alone in it, as for ``seg.nii.gz``; else that of ``x`` for ``x_img.tif``; that of a
    scene without its name, ``x_s0`` for ``x_s0_A1``.
    """
    image_keys = {image.key for image in images}
    single = [image for image in images if not image.is_case]
    alone = unique_values((image.relative.parent, image.relative) for image in single)
    aliases = {relative: image_key(folder, "") for folder, relative in alone.items()}
    for image in filter(lambda image: image.scene, images):
        key = image_key(image.relative.parent, scene_stem(image))
        aliases |= {image.relative: key} if key not in image_keys else {}
    for image, end in product(single, IMAGE_ENDINGS):
        if image.stem.lower().endswith(end):
            key = image_key(image.relative.parent, image.stem[: -len(end)])
            aliases |= {image.relative: key} if key not in image_keys else {}
    return aliases


def _labels_by_key(
    labels: Iterable[Path],
    folder: Path,
    patterns: Sequence[str],
    image_keys: Collection[str],
    by_series: Mapping[str, str],
) -> tuple[dict[str, Path], list[InputError]]:
    """Return annotations by the keys of their images, and an error for each duplicate.

    `by_series` are keys of images by the UIDs of their series, which a DICOM SEG names.
    """
    by_key: dict[str, Path] = {}
    errors: list[InputError] = []
    for label in labels:
        try:
            own = by_series.get(referenced_series(label), "") if by_series else ""
            relative = label.relative_to(folder) if label.is_relative_to(folder) else Path(label.name)
            keys = [own] if own else annotated_keys(label, relative, patterns, image_keys)
        except InputError as error:
            errors.append(error)
            continue
        for key in keys:
            if key in by_key:
                errors.append(_several(label, by_key[key]))
            by_key.setdefault(key, label)
    return by_key, errors
