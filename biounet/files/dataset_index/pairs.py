"""Which annotation belongs to which image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from biounet.core import InputError, as_path
from biounet.files.dataset_index.cases import FoundImage, group_cases
from biounet.files.dataset_index.csv_table import read_table
from biounet.files.dataset_index.find import Names, exists, sift, walk
from biounet.files.dataset_index.names import (
    ANNOTATION_FOLDERS,
    ANNOTATIONS,
    IMAGES,
    MASKS,
    OUTPUTS,
    SEPARATORS,
    before_annotation,
    ending,
    is_annotation,
    is_body_mask,
    is_image,
    mask_ending,
    natural_key,
    spelt,
    stem_of,
)
from biounet.files.dataset_index.skipped import SkippedFile, reason_against
from biounet.files.formats.foreign import refuse_foreign

_BARE = " has no annotation"
_WAYS = (
    "keep images that nobody annotated in another folder, or name the pairs in a CSV with the columns image and label"
)
_SHOWN = 5  # names that a message lists
_IMAGE_FOLDERS = {"images", "image", "img", "imgs", "imagestr"}


@dataclass(frozen=True)
class Pair:
    """An image and its annotation.

    Attributes
    ----------
    image
        The file, of several the one of the first channel.
    label
        The file of the annotation.
    others
        The files of the further channels, in their order.
    """

    image: Path
    label: Path
    others: tuple[Path, ...] = ()

    def files(self) -> tuple[Path, ...]:
        """Return one file for each channel, or the one file that holds all."""
        return (self.image, *self.others)


@dataclass(frozen=True)
class Unpaired:
    """What `pair_files` did not pair.

    Attributes
    ----------
    problems
        What has no partner: one sentence each, naming the file.
    left_out
        Files that could be images and are neither an image nor an annotation here.
    """

    problems: tuple[str, ...]
    left_out: tuple[SkippedFile, ...] = ()

    def errors(self) -> list[InputError]:
        """Return an error for each problem; the first image without annotation says what to do with such."""
        first = next((problem for problem in self.problems if problem.endswith(_BARE)), None)
        return [InputError(problem, hint=_WAYS if problem == first else None) for problem in self.problems]


def find_pairs(
    images: str | Path, labels: str | Path | None = None, channels: Sequence[str] = (), annotation: Sequence[str] = ()
) -> list[Pair]:
    """Pair images with annotations.

    Parameters
    ----------
    images
        A folder; or, without `labels`, a folder in which ``x.tif`` has a sibling such as ``x_masks.tif`` or
        ``images/x.tif`` a partner such as ``masks/x.png``, or a case one file that is called like an annotation; or
        a folder with nnU-Net's ``dataset.json``; or a table with the columns ``image``, or one for each channel, and
        ``label``, as `read_table` takes it.
    labels
        A folder whose files have the names of the images or cases, with any suffix, and ``_masks`` or the like if they
        want; or one file, when `images` is one.
    channels
        Names of the channels that the model sees: files that are one channel each are joined, as `group_cases` says.
    annotation
        Names or patterns of the annotation, such as ``lesions`` for ``p1/lesions.nii.gz`` and ``p1_lesions.nii.gz``;
        none: the usual ones.

    Raises
    ------
    InputError
        Naming every image without annotation and every annotation without image.
    """
    pairs, alone = pair_files(images, labels, channels, annotation)
    if alone.problems:
        shown = "; ".join(alone.problems[:5])
        more = f"; and {len(alone.problems) - 5} more" if len(alone.problems) > 5 else ""
        hint = "'biounet check' lists all"
        if any(problem.endswith(_BARE) for problem in alone.problems):
            hint += f"; {_WAYS}"
        raise InputError(f"{shown}{more}", path=images, hint=hint)
    if not pairs:
        refuse_foreign(Path(images))
        raise InputError("no image with an annotation found", path=images)
    return pairs


def pair_files(
    images: str | Path, labels: str | Path | None = None, channels: Sequence[str] = (), annotation: Sequence[str] = ()
) -> tuple[list[Pair], Unpaired]:
    """Pair as `find_pairs` does, and return what has no partner instead of raising."""
    images = as_path(images, "the folder of images")
    for folder in (images, as_path(labels, "the folder of annotations") if labels is not None else images):
        if not exists(folder):
            raise InputError("no such folder", path=folder)
    if images.is_file():
        both = labels is not None and Path(labels).is_file()
        return ([Pair(images, Path(str(labels)))], Unpaired(())) if both else _from_table(images, channels)
    names = Names(tuple(channels), tuple(annotation))
    declared = (images / "dataset.json").is_file() or (images / "labelsTr").is_dir()
    if labels is None and declared and (images / "imagesTr").is_dir():
        images, labels = images / "imagesTr", images / "labelsTr"
        return pair_files(images, labels, channels, annotation)
    if labels is None or images.samefile(labels):
        return _match_inside(images, names)
    labels = Path(labels)
    annotated = _annotations(labels)
    inside = labels.resolve().is_relative_to(images.resolve())  # such as img/ and img/masks/
    apart = {file.resolve() for file in annotated.files} if inside else set()
    found = sift(sorted(walk(images), key=natural_key), images, names)
    plain = [image for image in found.images if image.path.is_file()]
    found.left_out += [SkippedFile(image.path, "not a file") for image in found.images if not image.path.is_file()]
    plain = [image for image in plain if not inside or image.path.resolve() not in apart]
    chosen = annotated.named(names.annotation)
    if not inside:
        plain += _called_like_annotations(found.left_out, plain, images, chosen, labels)
        taken = {image.path for image in plain}
        found.left_out = [file for file in found.left_out if file.path not in taken]
    if not plain:
        refuse_foreign(images)
    cases = group_cases(sorted(plain, key=lambda image: natural_key(image.path)), channels)
    return _match(cases, chosen, labels, names, [*found.left_out, *annotated.left_out])


def _called_like_annotations(
    left_out: Iterable[SkippedFile], images: Iterable[FoundImage], root: Path, labels: Iterable[Path], label_root: Path
) -> list[FoundImage]:
    """Return files that are called like annotations and are images: an annotation has their name, and no other image.

    Parameters
    ----------
    left_out
        Files below `root`, the folder of the images.
    images
        Those that are found already.
    labels
        Annotations below `label_root`.
    """
    known = {_key(image.relative.parent, image.stem) for image in images}
    wanted: set[str] = set()
    for label in labels:
        place = label.relative_to(label_root).parent
        keys = {_key(place, stem_of(label)), _key(place, _before_mask(label))}
        wanted |= keys if not keys & known else set()
    files = [file.path for file in left_out if is_image(file.path) and not file.path.name.startswith(".")]
    named = [FoundImage(file, file.relative_to(root)) for file in files if not ending(file, OUTPUTS)]
    return [image for image in named if _key(image.relative.parent, image.stem) in wanted]


def _from_table(path: Path, channels: Sequence[str]) -> tuple[list[Pair], Unpaired]:
    rows, absent = read_table(path, channels)
    return [Pair(row[0], row[-1], row[1:-1]) for row in rows], Unpaired(tuple(absent))


@dataclass
class _Labels:
    """Files of a folder that can be annotations.

    Label images that biounet wrote can: people correct them and train again.
    """

    files: list[Path]
    left_out: list[SkippedFile]

    def named(self, names: Sequence[str]) -> list[Path]:
        """Return the files with one of the names; all of them where none has one: they are called as their images."""
        chosen = [file for file in self.files if before_annotation(stem_of(file), names) is not None]
        return chosen or self.files


def _annotations(folder: Path) -> _Labels:
    found = _Labels([], [])
    for file in sorted(walk(folder), key=natural_key):
        if is_image(file) and not file.name.startswith(".") and not ending(file, OUTPUTS) and file.is_file():
            found.files.append(file)
        elif reason := reason_against(file):
            found.left_out.append(SkippedFile(file, reason))
    return found


def _match_inside(folder: Path, names: Names) -> tuple[list[Pair], Unpaired]:
    """Pair images with annotations in the same folder or in one of its folders."""
    every = _annotations(folder)
    found = group_cases([FoundImage(file, file.relative_to(folder)) for file in every.files], names.channels)
    masks = [image.path for image in found if not image.is_case and _is_mask(image.path, folder, names.annotation)]
    stems = {(image.path.parent, image.stem) for image in found}
    own = {mask for mask in _annotated_masks(masks) if (mask.parent, _before_mask(mask)) not in stems}
    masks = [mask for mask in masks if mask not in own]
    apart = set(masks)
    images = [image for image in found if image.is_case or image.path not in apart]
    chosen = _Labels(masks, []).named(names.annotation)
    other = [SkippedFile(mask, "annotation of another name") for mask in apart - set(chosen)]
    return _match(images, chosen, folder, names, [*every.left_out, *other])


def _before_mask(path: Path) -> str:
    """Return a name without the ending that annotations have."""
    return stem_of(path).removesuffix(mask_ending(path))


def _annotated_masks(masks: Iterable[Path]) -> set[Path]:
    """Return those that are images: ``x_label.tif``, where there is ``x_label_masks.tif``."""
    begins = {(mask.parent, _before_mask(mask)) for mask in masks if mask_ending(mask)}
    return {mask for mask in masks if (mask.parent, stem_of(mask)) in begins}


def _match(
    images: Sequence[FoundImage], labels: Iterable[Path], root: Path, names: Names, left_out: Iterable[SkippedFile]
) -> tuple[list[Pair], Unpaired]:
    others = _other_keys(images)
    known = {_key(image.relative.parent, image.stem) for image in images} | {*others.values()}
    by_key, problems = _labels_by_key(labels, root, names.annotation, known)
    strange = {key: label for key, label in by_key.items() if key not in known}
    folded, longer = _folded(strange, known), _longer_names(strange.values(), root)
    pairs: dict[str, Pair] = {}
    used: set[Path] = set()
    for image in images:
        key = _key(image.relative.parent, image.stem)
        own = image.annotations(names.annotation)
        label = by_key.get(key) or by_key.get(others.get(image.path, key)) or folded.get(key.casefold())
        label = label or (own[0] if len(own) == 1 else None)
        if image.problem:
            problems.append(f"{image.path}: {image.problem}")
        elif key in pairs:
            problems.append(f"{image.path} and {pairs[key].image} have one name")
        elif label is None:
            problems.append(_without_annotation(image, own, longer.get(key)))
        else:
            pairs[key] = Pair(image.path, label, image.others)
            used.add(label)
    surplus = [label for label in by_key.values() if label not in used]
    problems += [f"{label} has no image" for label in surplus if not is_body_mask(label)]
    if images and surplus and not pairs and not any("(hint: " in problem for problem in problems):
        cause = f"{root}: no annotation is called like an image, such as {images[0].path.name}"
        problems.append(f"{cause} (hint: rename them, or name both in a CSV with the columns image and label)")
    other = [*left_out, *_no_partners(images, surplus)]
    return list(pairs.values()), Unpaired(tuple(problems), tuple(file for file in other if file.path not in used))


def _no_partners(images: Iterable[FoundImage], surplus: Iterable[Path]) -> Iterator[SkippedFile]:
    """Give the files that are no partner of another, and that is no problem."""
    yield from (SkippedFile(label, "a mask of no image") for label in surplus if is_body_mask(label))
    for image in images:
        yield from (SkippedFile(file, "neither a channel nor the annotation") for file in image.beside)
        yield from (SkippedFile(file, "no channel of the recipe") for file in image.unused)


def _labels_by_key(
    labels: Iterable[Path], root: Path, names: Sequence[str], known: Collection[str]
) -> tuple[dict[str, Path], list[str]]:
    """Return annotations by the key of the image that they can be of, and a sentence for each that is one too many."""
    by_key: dict[str, Path] = {}
    problems: list[str] = []
    for label in labels:
        key = _key_of_label(label, root, names, known)
        if key in by_key:
            problems.append(f"{label} and {by_key[key]} are both annotations of one image")
        by_key.setdefault(key, label)
    return by_key, problems


def _longer_names(labels: Iterable[Path], root: Path) -> dict[str, tuple[Path, str]]:
    """Return annotations of no image by the keys of images that they could be of, and how their names go on."""
    longer: dict[str, tuple[Path, str]] = {}
    for label in labels:
        stem, place = stem_of(label), label.relative_to(root).parent
        for at, letter in enumerate(stem):
            if at and letter in SEPARATORS and stem[at + 1 :]:
                longer.setdefault(_key(place, stem[:at]), (label, stem[at + 1 :]))
    return longer


def _without_annotation(image: FoundImage, own: Sequence[Path], likely: tuple[Path, str] | None) -> str:
    """Say that an image or case has no annotation, or too many, and how to name the right one."""
    hint = "say which in the recipe, such as data.annotation = "
    if own:
        shown = ", ".join(file.name for file in own)
        chosen = min(own, key=lambda file: is_body_mask(file) and stem_of(file).lower() != "mask")
        return f"{image.path} could have more than one annotation: {shown} (hint: {hint}'{stem_of(chosen)}')"
    if not image.beside and likely is not None:
        return f"{image.path} has no annotation (hint: if {likely[0].name} is it, {hint}'{likely[1]}')"
    if not image.beside:
        return f"{image.path}{_BARE}"
    beside = [file for file in image.beside if not is_body_mask(file)]
    if not beside:
        return f"{image.path} has no annotation, and a mask is none unless the recipe says so with data.annotation"
    shown = ", ".join(file.name for file in beside[:_SHOWN])
    name = stem_of(beside[0]).removeprefix(f"{image.stem}_")
    return f"{image.path} has no annotation (hint: if one of {shown} is it, {hint}'{name}')"


def _other_keys(images: Sequence[FoundImage]) -> dict[Path, str]:
    """Return other keys of images, for which an annotation can be.

    That of their folder where they are alone in it, as of ``seg.nii.gz``, or else, of ``x_img.tif``, that of ``x``.
    """
    folders: dict[Path, list[Path]] = {}
    keys: dict[Path, str] = {}
    for image in images:
        if image.is_case:
            continue
        folders.setdefault(image.relative.parent, []).append(image.path)
        if end := ending(image.path, IMAGES):
            keys[image.path] = _key(image.relative.parent, image.stem[: -len(end)])
    taken = {_key(image.relative.parent, image.stem) for image in images}
    keys = {path: key for path, key in keys.items() if key not in taken}
    return {files[0]: _key(folder, "") for folder, files in folders.items() if len(files) == 1} | keys


def _folded(labels: Mapping[str, Path], known: Collection[str]) -> dict[str, Path]:
    """Return annotations by keys without capitals, where one annotation and one image fit."""
    found: dict[str, list[Path]] = {}
    for key, label in labels.items():
        found.setdefault(key.casefold(), []).append(label)
    images = Counter(key.casefold() for key in known)
    return {key: own[0] for key, own in found.items() if len(own) == images[key] == 1}


def _key_of_label(label: Path, root: Path, names: Sequence[str], known: Collection[str]) -> str:
    """Return the key of the image that a label image can be of: one that there is, if any of its names fits."""
    stem = stem_of(label)
    before = before_annotation(stem, names)
    begins = [*([] if before is None else [before]), _before_mask(label), stem]
    if f"_{stem.lower()}" in MASKS or stem.lower() in ANNOTATIONS:
        begins.append("")  # called like an annotation and nothing else: that of its folder
    keys = [_key(label.relative_to(root).parent, begin) for begin in begins]
    return next((key for key in keys if key in known), keys[0])


def _key(folder: Path, stem: str) -> str:
    parts = [part for part in folder.parts if part.lower() not in _IMAGE_FOLDERS | ANNOTATION_FOLDERS]
    return spelt("/".join([*parts, stem] if stem else parts))


def _is_mask(path: Path, root: Path, names: Sequence[str]) -> bool:
    folders = {part.lower() for part in path.relative_to(root).parent.parts}
    return is_annotation(path, names) or bool(folders & ANNOTATION_FOLDERS)
