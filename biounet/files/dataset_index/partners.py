"""Label images in a folder, and the files of other folders that belong to the same images."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from biounet.core import InputError
from biounet.files.dataset_index.cases import FoundImage
from biounet.files.dataset_index.dicom_index import dicom_files, find_dicom, folder_keys
from biounet.files.dataset_index.find import exists
from biounet.files.dataset_index.names import (
    IMAGE_ENDINGS,
    image_key,
    is_whole,
    mask_ending,
    match_any_case,
    normalise_unicode,
    stem_of,
    unique_values,
    without_mask_ending,
)
from biounet.files.dataset_index.outline_files import outline_format
from biounet.files.dataset_index.scan import NameRules, ScannedFile, scan
from biounet.files.dataset_index.scenes import list_images, scene_stem
from biounet.files.formats.unsupported import check_supported
from biounet.files.isolation.client import ReaderPool


@dataclass(frozen=True)
class LabelFile:
    """A label image; `relative` is its path below the folder that was named, `name` that without its ending."""

    path: Path
    relative: Path

    @property
    def name(self) -> Path:
        """Path below the folder of what belongs to it: ``deep/x`` for ``deep/x_masks.tif``."""
        return self.relative.with_name(without_mask_ending(self.relative) or stem_of(self.relative))


@dataclass(frozen=True)
class FileMatch:
    """The file in `folder` (or the one file that it is) of each label image by its path, and files of none.

    `scenes` says by the same paths which of several images in their file belong to them, as in `ReadOptions`.
    """

    folder: Path
    found: dict[Path, Path]
    unused: tuple[Path, ...] = ()
    scenes: dict[Path, str] = field(default_factory=dict)


def find_label_images(path: Path) -> list[LabelFile]:
    """Return one file, or the label images in a folder and below, in natural order.

    Those are the files whose names end as those of annotations, such as ``x_labels.tif`` or ``x_cp_masks.png``; or, if
    there is none, all that have the suffix of an image.

    Raises
    ------
    InputError
        If there is none.
    """
    if not exists(path):
        raise InputError("no such file or folder", path=path)
    if is_whole(path) or not path.is_dir():
        return [LabelFile(path, Path(path.name))]
    files = _label_files(path)
    if not files:
        check_supported(path)
        drawn = any(one.is_file() and outline_format(one) for one in path.iterdir())
        hint = "outlines are for 'biounet check', 'train' and 'evaluate'; save a label image" if drawn else None
        raise InputError("no label image found", path=path, hint=hint)
    return [LabelFile(file.path, file.relative) for file in files]


def match_files(labels: Iterable[LabelFile], path: Path, *, are_labels: bool = False) -> FileMatch:
    """Return the file that belongs to each label image; those without one are absent.

    Parameters
    ----------
    path
        A file, if there is one label image; or a folder, in which files belong to a label image if they have its name,
        with or without the endings of images and annotations, in the same folder or, where a name occurs once, in any.
        Of a file that holds several images, each has a name of its own, such as ``plate_s3``; so has each series of
        DICOM files, such as ``p1_3_T1w``, or that of its folder. A single series belongs to a single label image.
    are_labels
        Whether they are label images too, and not images.

    Raises
    ------
    InputError
        If there is no such file or folder, one file for several label images, or no file that belongs to any.
    """
    labels = list(labels)
    if not exists(path):
        raise InputError("no such file or folder", path=path)
    if is_whole(path) or not path.is_dir():
        images = {} if are_labels else _scenes_by_key([FoundImage(path, Path(path.name))])
        scenes = {label.path: images[_key(label)] for label in labels if _key(label) in images}
        if len(labels) > 1 and not scenes:
            raise InputError(f"one file for {len(labels)} label images", path=path, hint="name the folder of them")
        found = dict.fromkeys(scenes or [labels[0].path], path)
        return FileMatch(path, found, scenes={label: image.scene for label, image in scenes.items()})
    own = {label.path.resolve() for label in labels}
    files = _label_files(path) if are_labels else _image_files(path)
    files = [file for file in files if file.path.resolve() not in own]
    series = {} if are_labels else _series_by_key(path, labels)
    if not files and not series:
        raise InputError("holds no files beside the label images", path=path, hint="name another folder")
    by_key = _by_key(files)
    by_name = unique_values((stem, file.path) for file in files for stem in _stems(file.path))
    names_are_unique = len({label.name.name for label in labels}) == len(labels)
    any_case = match_any_case(by_key, {_key(label) for label in labels})
    images = {} if are_labels else _scenes_by_key([file.image for file in files]) | series
    scenes = {label.path: images[_key(label)] for label in labels if _key(label) in images}
    found = {label: image.path for label, image in scenes.items()}
    for label in labels:
        key = _key(label)
        partner = found.get(label.path) or by_key.get(key) or any_case.get(key)
        if partner is None and names_are_unique:
            partner = by_name.get(normalise_unicode(label.name.name))
        if partner is not None:
            found[label.path] = partner
    if not found:
        example = f"{labels[0].name.name}.tif for {labels[0].path.name}"
        raise InputError("no file is called like a label image", path=path, hint=f"such as {example}")
    used = {*found.values()}
    unused = tuple(file.path for file in files if file.path not in used)
    return FileMatch(path, found, unused, {label: image.scene for label, image in scenes.items()})


def _scenes_by_key(images: Sequence[FoundImage]) -> dict[str, FoundImage]:
    """Return the images of files that hold several by the names that their label images may have."""
    with ReaderPool() as readers:
        scenes = [image for image in list_images(images, readers) if image.scene]
    by_number = {image_key(image.relative.parent, scene_stem(image)): image for image in scenes}
    return by_number | {image.key: image for image in scenes}


def _series_by_key(folder: Path, labels: Sequence[LabelFile]) -> dict[str, FoundImage]:
    """Return the series of DICOM files in a folder by the names that their label images may have."""
    found = find_dicom(dicom_files(scan(folder, NameRules())), folder).images
    images = [image for image in found if image.scene and not image.problem]
    if len(images) == len(labels) == 1:
        return {_key(labels[0]): images[0]}
    by_name = {image.relative: image for image in images}
    by_folder = {key: by_name[name] for name, keys in folder_keys(images).items() for key in keys}
    return by_folder | {image.key: image for image in images}


def _label_files(folder: Path) -> list[ScannedFile]:
    files = [file for file in scan(folder, NameRules()) if file.may_be_annotation and is_whole(file.path)]
    return [file for file in files if mask_ending(file.path)] or files


def _image_files(folder: Path) -> list[ScannedFile]:
    return [file for file in scan(folder, NameRules()) if file.may_be_annotation and is_whole(file.path)]


def _key(label: LabelFile) -> str:
    return image_key(label.relative.parent, label.name.name)


def _by_key(files: Collection[ScannedFile]) -> dict[str, Path]:
    """Return files by each name that a label image of theirs may have; the whole name of one precedes all others."""
    by_key: dict[str, Path] = {}
    for place in range(3):
        for file in files:
            stems = _stems(file.path)
            if place < len(stems):
                by_key.setdefault(image_key(file.relative.parent, stems[place]), file.path)
    return by_key


def _stems(path: Path) -> list[str]:
    """Return the stems by which a file can be named: its own, and without the ending of an image or an annotation."""
    stem = normalise_unicode(stem_of(path))
    ends = [end for end in (*IMAGE_ENDINGS, mask_ending(path)) if end and stem.lower().endswith(end.lower())]
    return [stem, *(stem[: -len(end)] for end in ends)]
