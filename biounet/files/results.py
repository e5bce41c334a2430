"""Which label image of biounet is to be compared with which annotation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from biounet.errors import InputError
from biounet.files.cases import FoundImage, group_cases
from biounet.files.foreign import refuse_foreign
from biounet.files.names import MASKS, ending, is_image, natural, stem_of

_RESULT = "_labels"
_SHOWN = 10  # names that a message lists


def pair_results(predicted: Path, truth: Path, channels: Sequence[str] = ()) -> list[tuple[Path, Path]]:
    """Pair annotations with results.

    Parameters
    ----------
    predicted
        Folder of results, ``<name>_labels.tif`` or ``.nii.gz``, in folders below as well.
    truth
        Folder of annotations: the same names, with any suffix, and ``_masks`` or the like if they want, in the same
        folders or, where a name occurs once, in any. Or folders of cases with one annotation each, whatever its name,
        and perhaps the images: the result is ``<case>_labels``, or below ``<case>/`` called as the case or a channel.
    channels
        Names of the channels that the images of cases are files of.

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
            raise InputError("no such folder", path=folder)
    results = _results(predicted)
    annotations = _annotations(truth, predicted, channels)
    if not annotations:
        refuse_foreign(truth)
        raise InputError("no annotation found", path=truth)
    found = {key: _result_of(key, annotations, results, channels) for key in annotations}
    missing = [key for key, result in found.items() if result is None]
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        cause = f"no result for {len(missing)} of {len(annotations)} annotations: {', '.join(missing[:_SHOWN])}{more}"
        raise InputError(cause, path=predicted, hint=f"a result is called <image>{_RESULT}.tif or .nii.gz")
    return [(annotations[key], result) for key, result in found.items() if result is not None]


def _results(folder: Path) -> dict[str, Path]:
    files = (path for path in _files(folder) if stem_of(path).endswith(_RESULT))
    return _only("result", ((_key(path, folder), path) for path in files))


def _annotations(truth: Path, predicted: Path, channels: Sequence[str]) -> dict[str, Path]:
    """Return the annotations of a folder and below by name, of cases by the name of the case."""
    inside = predicted != truth and predicted.resolve().is_relative_to(truth.resolve())
    files = [path for path in _files(truth) if not (inside and path.is_relative_to(predicted))]
    groups: dict[str, list[Path]] = defaultdict(list)
    cases: list[tuple[str, Path]] = []
    for image in group_cases([FoundImage(path, path.relative_to(truth)) for path in files], channels):
        if image.is_case and not image.problem:
            named = [path for path in image.beside if not stem_of(path).lower().endswith("mask")]  # such as brainmask
            cases += [(image.relative.as_posix(), path) for path in named or image.beside]
            continue
        for path in (image.path, *image.others, *image.beside):
            groups[_key(path, truth)].append(path)
    if any(len(group) > 1 for group in groups.values()):  # a_masks.tif beside its image a.tif
        groups = {key: [path for path in group if ending(path, MASKS)] for key, group in groups.items()}
    return _only("annotation", [*cases, *((key, path) for key, group in groups.items() for path in group)])


def _files(folder: Path) -> list[Path]:
    """Return the visible files with the suffix of an image in a folder and below, in natural order."""
    files = (path for path in folder.rglob("*") if is_image(path) and path.is_file())
    visible = (path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts))
    return sorted(visible, key=natural)


def _only(what: str, paths: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    by_key: dict[str, Path] = {}
    for key, path in paths:
        if key in by_key:
            article = "an" if what[0] in "aeiou" else "a"
            raise InputError(f"{path} is {article} {what} of the same image", path=by_key[key])
        by_key[key] = path
    return by_key


def _key(path: Path, root: Path) -> str:
    stem = stem_of(path)
    name = stem[: len(stem) - len(ending(path, MASKS))]
    return (path.relative_to(root).parent / name).as_posix()


def _result_of(
    key: str, annotations: dict[str, Path], results: dict[str, Path], channels: Sequence[str]
) -> Path | None:
    """Return the result with the name of an annotation, or else that of its case."""
    by_name = _unique_names(results) if len(_unique_names(annotations)) == len(annotations) else {}
    own = PurePosixPath(key)
    if found := results.get(key) or by_name.get(own.name):
        return found
    neighbours = [other for other in annotations if PurePosixPath(other).parent == own.parent]
    case = own.parent if own.parent.name and len(neighbours) == 1 else own
    names = [case, *(case / name for name in (case.name, *channels))]
    fitting = [results[name.as_posix()] for name in names if name.as_posix() in results]
    return fitting[0] if len(fitting) == 1 else _unique_names(results).get(case.name)


def _unique_names(paths: dict[str, Path]) -> dict[str, Path]:
    names: dict[str, list[Path]] = defaultdict(list)
    for key, path in paths.items():
        names[PurePosixPath(key).name].append(path)
    return {name: found[0] for name, found in names.items() if len(found) == 1}
