"""Checks that the voxels of an annotation are plausible for its kind.

Labels that were resized with interpolation, stored as JPEG or exported as classes are valid integers, but wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from biounet.core.annotation import UNLABELLED, Annotation, near_unlabelled
from biounet.core.volume import slices_with_any

# benchmarks/RESULTS.md has these figures for real and for spoilt label images.
_MAX_RAMPS = 0.1  # fraction of edges over an intermediate value: at most .012 in real label images of nuclei
_MIN_RAMP_VOXELS = 20  # below which that fraction means nothing
_LARGE_PIECE = 0.2  # size relative to the largest piece of an object: smaller ones are strays
_POINT = 4  # voxels: objects of at most this size are points or strays
_MARK = 29  # voxels of the largest mark for a point, a disc of diameter 7; a ball of diameter 5 has 33
_MIN_MARKS = 5  # objects of identical shape
_HOLLOW = 1.0  # size of the hole inside an outline relative to the outline
_MIN_COUNT = 3  # objects or pieces, below which a fraction means nothing
_USUAL_UNLABELLED = (255, 65535)  # in 8 and in 16 bits
_OVERSIZE = 10.0  # size relative to the median object: no object is that large among others
_UNLABELLED_FRACTION = 0.2  # of the labelled voxels, the least that such a value covers among other objects
_BACKGROUND_FRACTION = 0.25  # of the labelled voxels, the least that a background with an id covers
_HALF = 0.5
_MOST = 0.8


class Finding(NamedTuple):
    """Something implausible: a problem cannot be trained on, a remark should be looked at."""

    severity: Literal["problem", "remark"]
    cause: str
    hint: str = ""


def inspect_annotation(annotation: Annotation) -> list[Finding]:
    """Return what is implausible about an annotation.

    Scribbles may have any shape; classes are checked for smoothing only. Problems come before remarks; the first one
    explains the others.
    """
    labels = annotation.labels
    if annotation.kind == "scribbles" or not (labels > 0).any():
        return []
    findings = [*_check_smoothing(annotation)]
    if annotation.kind == "instances":
        pieces = _find_pieces(labels)
        largest = _find_largest(labels, pieces)
        findings += [*_check_points(pieces, labels), *_check_unlabelled_value(largest, pieces), *_check_planes(labels)]
        findings += [*_check_classes(pieces), *_check_outlines(labels, pieces), *_check_background_id(largest)]
        findings += _check_strays(pieces)
        if not (labels <= 0).any():
            findings.append(Finding("remark", "no voxel is background (0): everything belongs to an object"))
    return sorted(findings, key=lambda found: found.severity != "problem")


class _Pieces(NamedTuple):
    """Connected components of objects; where single planes are labelled, an object is an id in one plane."""

    ids: NDArray[np.int64]  # (n,) id of each object
    sizes: NDArray[np.int64]  # (n,) voxels of each object
    counts: NDArray[np.int64]  # (n,) pieces of each object
    large_counts: NDArray[np.int64]  # (n,) pieces of each object that are not much smaller than its largest


def _find_pieces(labels: NDArray[np.int32]) -> _Pieces:
    tables = [np.insert(_piece_table(part), 0, number, axis=1) for number, part in enumerate(_labelled_planes(labels))]
    pieces = np.concatenate(tables)  # columns: number of the plane, id, voxels
    keys, objects = np.unique(pieces[:, :2], axis=0, return_inverse=True)
    objects, sizes = objects.reshape(-1), pieces[:, 2]
    largest = np.zeros(len(keys), np.int64)
    np.maximum.at(largest, objects, sizes)
    large = objects[sizes >= _LARGE_PIECE * largest[objects]]
    total = np.bincount(objects, sizes).astype(np.int64)
    return _Pieces(keys[:, 1], total, np.bincount(objects), np.bincount(large, minlength=len(keys)))


def _labelled_planes(labels: NDArray[np.int32]) -> list[NDArray[np.int32]]:
    """Return the labelled planes of a volume that is labelled in single planes, else the whole of it."""
    labelled = labels != UNLABELLED
    if labels.ndim == 3 and not labelled.all():
        for axis in range(3):
            planes = slices_with_any(labelled, axis)
            if not planes.all() and np.array_equal(planes, ~slices_with_any(~labelled, axis)):
                return list(np.moveaxis(labels, axis, 0)[planes])
    return [labels]


def _piece_table(labels: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return id and size of each piece, (m, 2); those of an object that touch unlabelled voxels count as one."""
    from skimage.measure import label  # slow to import

    pieces = label(np.maximum(labels, 0), background=0, connectivity=labels.ndim)
    ids = np.zeros(int(pieces.max()) + 1, np.int64)
    ids[pieces.ravel()] = labels.ravel()
    sizes, group = np.bincount(pieces.ravel(), minlength=len(ids)), np.arange(len(ids))
    group[np.unique(pieces[near_unlabelled(labels)])] = -1
    keys, index = np.unique(np.stack([ids, group], axis=1)[1:], axis=0, return_inverse=True)
    return np.stack([keys[:, 0], np.bincount(index.reshape(-1), sizes[1:]).astype(np.int64)], axis=1)


def _check_smoothing(annotation: Annotation) -> Iterator[Finding]:
    """Find edges over a third object one voxel wide, along the two axes with the smallest spacing.

    After interpolation or JPEG nearly all edges have one.
    """
    labels = annotation.labels
    finest = sorted(range(labels.ndim), key=lambda axis: (float(f"{annotation.grid.steps[axis]:.4g}"), -axis))[:2]
    ramps = edges = 0
    for axis in finest:
        lines = np.moveaxis(labels, axis, 0)
        step = (lines[1:] > lines[:-1]).astype(np.int8) - (lines[1:] < lines[:-1])
        step[(lines[1:] == UNLABELLED) | (lines[:-1] == UNLABELLED)] = 0
        edges += int(np.count_nonzero(step))
        ramps += int(np.count_nonzero(step[1:] * step[:-1] > 0))
    fraction = ramps / max(edges, 1)
    if ramps < _MIN_RAMP_VOXELS or fraction < _MAX_RAMPS:
        return
    values = int(np.count_nonzero(np.unique(labels) > 0))
    cause = f"{fraction:.0%} of the edges go over values in between, as rings around the objects ({values} values)"
    hint = "it was smoothed, stored as JPEG or resized with interpolation: resize labels by the nearest neighbour"
    hint += "; if it is an image, exchange the folders"
    yield Finding("problem" if annotation.kind == "instances" else "remark", cause, hint)


def _check_points(pieces: _Pieces, labels: NDArray[np.int32]) -> Iterator[Finding]:
    """Find points, and marks of identical shape."""
    number, size, hint = len(pieces.ids), int(pieces.sizes.max()), "outline the objects, or paint scribbles"
    same = int(np.count_nonzero(pieces.sizes == size))  # smaller ones may be cut by the border
    if number >= _MIN_COUNT and size <= _POINT:
        yield Finding("problem", f"{number} objects of at most {_POINT} pixels: points are not outlines", hint)
    elif number >= _MIN_MARKS and size <= _MARK and same >= _MOST * number:
        masks = [mask for mask, _ in _crop_objects(labels, pieces) if np.count_nonzero(mask) == size]
        equal = sum(np.array_equal(mask, masks[0]) for mask in masks)
        if equal >= max(_MIN_MARKS, _MOST * len(masks)) and len(set(masks[0].shape)) == 1:
            cause = f"{equal} of {number} objects are marks of one form and {size} pixels: points are not outlines"
            yield Finding("problem", cause, hint)


def _crop_objects(labels: NDArray[np.int32], pieces: _Pieces) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.int32]]]:
    """Yield the mask and the labels in the bounding box of each id."""
    from scipy.ndimage import find_objects  # slow to import

    ids = np.unique(pieces.ids)
    numbered = np.where(labels > 0, 1 + np.searchsorted(ids, np.maximum(labels, ids[0])), 0)
    for value, box in zip(ids, find_objects(numbered), strict=True):
        yield labels[box] == value, labels[box]


def _check_outlines(labels: NDArray[np.int32], pieces: _Pieces) -> Iterator[Finding]:
    """Find outlines that are not filled, in the planes of volumes."""
    from scipy.ndimage import binary_fill_holes, generate_binary_structure

    neighbours = generate_binary_structure(labels.ndim, 1)
    if labels.ndim == 3:
        neighbours[[0, 2]] = False
    number = hollow = 0
    for mask, crop in _crop_objects(labels, pieces):
        number, size = number + 1, int(np.count_nonzero(mask))
        if size * (1 + _HOLLOW) < mask.size:  # saves filling the holes of most objects, which is slow
            hole = binary_fill_holes(mask, neighbours) & (crop == 0)
            hollow += int(np.count_nonzero(hole)) > _HOLLOW * size
    if hollow >= max(_MIN_COUNT, _HALF * number):
        cause = f"{hollow} of {number} objects are lines around an empty inside: outlines that are not filled"
        yield Finding("problem", cause, "fill them, so that each object has all of its pixels")


class _Largest(NamedTuple):
    """The largest object and its surroundings, which are measured only where it is suspiciously large."""

    value: int
    voxels: int
    fraction: float  # of the labelled voxels
    others: int  # number of other objects
    median: float  # size of the other objects; NaN without any
    id_gap: bool  # whether its id is the largest, and some ids are unused
    touched: int = 0  # number of other objects that it touches
    border: float = 0.0  # fraction of the border of the labelled region that it covers
    full_cover: bool = False  # whether every voxel belongs to an object
    holes: int = 0  # number of pieces of background, without other objects


def _find_largest(labels: NDArray[np.int32], pieces: _Pieces) -> _Largest:
    from scipy.ndimage import binary_dilation, label  # slow to import

    ids, index = np.unique(pieces.ids, return_inverse=True)  # over all labelled planes
    sizes = np.bincount(index.reshape(-1), pieces.sizes).astype(np.int64)
    at, unlabelled = int(sizes.argmax()), labels == UNLABELLED
    value, fraction, rest = int(ids[at]), float(sizes[at] / np.count_nonzero(~unlabelled)), np.delete(sizes, at)
    median = float(np.median(rest)) if rest.size else np.nan
    largest = _Largest(value, int(sizes[at]), fraction, rest.size, median, at == len(rest) and value > len(ids))
    if fraction < _UNLABELLED_FRACTION:
        return largest  # as in nearly all label images
    mask, border = labels == value, near_unlabelled(labels)
    around = labels[binary_dilation(mask, np.ones((3,) * labels.ndim), iterations=2)]  # across a gap of one voxel
    for axis in range(labels.ndim):
        np.moveaxis(border, axis, 0)[[0, -1]] = True
    border &= ~unlabelled
    return largest._replace(
        touched=np.setdiff1d(around[around > 0], ids[at]).size,
        border=float(mask[border].mean()) if border.any() else 0.0,
        full_cover=not (labels <= 0).any(),
        holes=0 if rest.size else int(label(labels == 0)[1]),
    )


def _check_unlabelled_value(largest: _Largest, pieces: _Pieces) -> Iterator[Finding]:
    """Find a value that many programs write for unlabelled voxels, far above the other ids."""
    *others, value = np.unique(pieces.ids).tolist()
    voxels = int(pieces.sizes[pieces.ids == value].sum())
    oversize = largest.others >= _MIN_COUNT and largest.voxels >= _OVERSIZE * largest.median
    covers = largest.fraction >= (_UNLABELLED_FRACTION if largest.others else _HALF) and largest.holes < _MIN_COUNT
    suspicious = largest.id_gap and largest.value == value and (covers or oversize)
    after_gap = len(others) >= _MIN_COUNT and others[-1] == len(others) < value - 1  # ids are 1, 2, …, n, value
    if value in _USUAL_UNLABELLED and (suspicious or after_gap):
        fraction = largest.fraction * voxels / largest.voxels
        cause = f"one id, {value}, covers {fraction:.0%} of what is labelled and may mean unlabelled"
        instead = "number it after the others" if others else "give it the number 1"
        hint = f"then say data.unlabelled = {value} in the recipe; if it is an object, {instead}"
        yield Finding("problem", cause, hint)


def _check_background_id(largest: _Largest) -> Iterator[Finding]:
    """Find a background that has an id: along the border, and around the other objects or around holes."""
    around = largest.others >= _MIN_COUNT and largest.touched >= _MOST * largest.others
    around = around and largest.fraction >= _BACKGROUND_FRACTION
    alone = largest.fraction > _HALF and (largest.full_cover or (not largest.others and largest.holes >= _MIN_COUNT))
    if (around or alone) and largest.border >= _HALF:
        where = f" and lies around {largest.touched} of {largest.others} others" if largest.others else ""
        where = where or (f" and lies around {largest.holes} places without any" if largest.holes else "")
        cause = f"one id, {largest.value}, covers {largest.fraction:.0%} of what is labelled{where}"
        hint = "background is 0 where objects have ids; if the values are classes, say kind = 'classes' in the recipe"
        yield Finding("problem", f"{cause}: it looks like background", hint)


def _check_classes(pieces: _Pieces) -> Iterator[Finding]:
    """Find a mask, or classes: few ids with many separate pieces each."""
    count = pieces.large_counts
    objects, total, most = len(count), int(count.sum()), int(count.argmax())
    if count[most] < _MIN_COUNT or total < 2 * objects:
        return
    if objects == 1:
        cause = f"one object of value {pieces.ids[0]} in {total} pieces: this is a mask, its objects have no ids"
        hint = "number the objects, in Fiji with Analyze Particles and Show: Count Masks, "
        yield Finding("problem", cause, f"{hint}or say kind = 'classes' in the recipe")
    else:
        cause = f"{objects} ids in {total} distant pieces, id {pieces.ids[most]} in {count[most]}"
        hint = "say kind = 'classes' in the recipe, or number the objects"
        yield Finding("problem", f"{cause}: these look like classes", hint)


def _check_strays(pieces: _Pieces) -> Iterator[Finding]:
    """Find objects in several pieces, and tiny objects."""
    split, small = int(np.count_nonzero(pieces.counts > 1)), int(np.count_nonzero(pieces.sizes <= _POINT))
    if split >= max(_MIN_COUNT, _HALF * len(pieces.ids)):
        hint = "if the file was JPEG or resized on its way, go back to the original; otherwise number the pieces"
        yield Finding("problem", f"{split} of {len(pieces.ids)} objects are in several pieces", hint)
    parts = [f"{split} of {len(pieces.ids)} objects in several pieces"] if split else []
    parts += [f"{small} of at most {_POINT} pixels"] if small else []
    if parts:
        yield Finding("remark", f"stray pixels? {' and '.join(parts)}")


def _check_planes(labels: NDArray[np.int32]) -> Iterator[Finding]:
    """Find a volume of which single planes were outlined and the others are not unlabelled."""
    if labels.ndim == 2 or (labels == UNLABELLED).any():
        return
    for axis, name in enumerate("zyx"):
        drawn = slices_with_any(labels > 0, axis)
        number = int(drawn.sum())
        if number >= _MIN_COUNT and not (drawn[1:] & drawn[:-1]).any():
            cause = f"objects in {number} of {len(drawn)} planes along {name}, none in the planes between them"
            yield Finding("problem", cause, f"if the others were not looked at, say slices = '{name}' in the recipe")
            return
