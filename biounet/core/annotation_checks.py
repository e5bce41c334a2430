"""Whether an annotation can hold what it is declared to hold, told from its voxels alone.

A label image of objects that was enlarged with interpolation, stored as JPEG or exported as classes, or that has an
undeclared value where nobody looked, is a valid file of integers, and everything learned from it is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from biounet.core.annotation import UNLABELLED, Annotation

Severity = Literal["problem", "remark"]

# What each figure is in real and in spoilt label images stands in benchmarks/RESULTS.md.
_RAMPS = 0.1  # of the edges that go over a value in between: at most .012 in real label images of nuclei
_FEWEST_RAMPS = 20  # such voxels, below which no share is told
_LARGE_PIECE = 0.2  # of the largest piece of an object: smaller ones are strays
_POINT = 4  # voxels: objects that are this small or smaller are points or strays
_DOT = 29  # voxels of the largest mark that a point is drawn with, a disc 7 across; a ball of 5 has 33
_DOTS = 5  # objects of one form from which on it is a mark
_HOLLOW = 1.0  # times its own size that the hole inside of a line has
_FEW = 3  # objects or pieces from which on a share says something
_BY_HABIT = (255, 65535)  # what is written where nobody looked, in 8 and in 16 bits
_OUTSIZE = 10.0  # times the median object: so large is no object beside the others
_SHARE = 0.2  # of the labelled voxels, which one object among others covers with such a value
_BACKGROUND = 0.25  # of the labelled voxels, which a background that has an id covers at least
_HALF = 0.5
_NEARLY_ALL = 0.8


@dataclass(frozen=True)
class Finding:
    """What is odd about an annotation.

    Attributes
    ----------
    severity
        ``"problem"``: it cannot be what it is declared to be, and nothing should be learned from it; ``"remark"``: have
        a look.
    cause
        What was found, with the figures.
    hint
        What to do.
    figures
        The figures by name.
    """

    severity: Severity
    cause: str
    hint: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)


def inspect_annotation(annotation: Annotation) -> list[Finding]:
    """Say what is odd about an annotation.

    Parameters
    ----------
    annotation
        Of any kind. Of strokes nothing is odd, classes may have been smoothed, everything else is asked of objects.

    Returns
    -------
    Problems first, and of these the one first that explains the others.
    """
    labels = annotation.labels
    if annotation.kind == "scribbles" or not (labels > 0).any():
        return []
    found = [_smoothed(annotation)]
    if annotation.kind == "instances":
        pieces = _pieces_of(labels)
        large = _largest_of(labels, pieces)
        found += [_points(pieces, labels), _undeclared(large, pieces), _planes_apart(labels), _classes(pieces)]
        found += [_outlines(labels, pieces)]
        found += [_background(large), _in_pieces(pieces), _strays(pieces), _no_background(labels)]
    return sorted((one for one in found if one is not None), key=lambda one: one.severity != "problem")


class _Pieces(NamedTuple):
    """Connected voxels of one id; in single labelled planes, of one id in one plane."""

    ids: NDArray[np.int64]  # (n,) id of each object
    sizes: NDArray[np.int64]  # (n,) voxels of each object
    owner: NDArray[np.int64]  # (m,) of each piece, the index of its object
    size: NDArray[np.int64]  # (m,) voxels of each piece

    def large(self) -> NDArray[np.int64]:
        """Return (n,) how many pieces each object has that are not much smaller than its largest."""
        largest = np.zeros(len(self.ids), np.int64)
        np.maximum.at(largest, self.owner, self.size)
        return np.bincount(self.owner[self.size >= _LARGE_PIECE * largest[self.owner]], minlength=len(self.ids))

    def all(self) -> NDArray[np.int64]:
        """Return (n,) how many pieces each object has."""
        return np.bincount(self.owner, minlength=len(self.ids))


def _pieces_of(labels: NDArray[np.int32]) -> _Pieces:
    tables = [np.insert(_table(part), 0, number, axis=1) for number, part in enumerate(_parts(labels))]
    pieces = np.concatenate(tables)  # columns: number of the part, id, voxels
    objects, owner = np.unique(pieces[:, :2], axis=0, return_inverse=True)
    owner, size = owner.reshape(-1), pieces[:, 2]
    return _Pieces(objects[:, 1], np.bincount(owner, size).astype(np.int64), owner, size)


def _parts(labels: NDArray[np.int32]) -> list[NDArray[np.int32]]:
    """Return the labelled planes of a volume that is labelled in single planes, else all of it."""
    labelled = labels != UNLABELLED
    if labels.ndim == 3 and not labelled.all():
        for axis in range(3):
            others = tuple(other for other in range(3) if other != axis)
            known = labelled.any(axis=others)
            if not known.all() and np.array_equal(known, labelled.all(axis=others)):
                return list(np.moveaxis(labels, axis, 0)[known])
    return [labels]


def _table(labels: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return id and voxels of each piece, (m, 2).

    Pieces of an object that meet unlabelled voxels may be one behind them, and count as one.
    """
    from scipy.ndimage import binary_dilation  # slow to import
    from skimage.measure import label

    parts = label(np.maximum(labels, 0), background=0, connectivity=labels.ndim)
    ids = np.zeros(int(parts.max()) + 1, np.int64)
    ids[parts.ravel()] = labels.ravel()
    size, group = np.bincount(parts.ravel(), minlength=len(ids)), np.arange(len(ids))
    unlabelled = labels == UNLABELLED
    if unlabelled.any():
        group[np.unique(parts[binary_dilation(unlabelled, np.ones((3,) * labels.ndim))])] = -1
    keys, owner = np.unique(np.stack([ids, group], axis=1)[1:], axis=0, return_inverse=True)
    return np.stack([keys[:, 0], np.bincount(owner.reshape(-1), size[1:]).astype(np.int64)], axis=1)


def _smoothed(annotation: Annotation) -> Finding | None:
    """Find edges that go from one value to another over values in between.

    Between two objects, or an object and the background, lies no third one of the width of a voxel; after interpolation
    or JPEG there is one nearly everywhere. Of a volume only the two axes are asked along which voxels are closest.
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
    share = ramps / max(edges, 1)
    if ramps < _FEWEST_RAMPS or share < _RAMPS:
        return None
    values = int(np.count_nonzero(np.unique(labels) > 0))
    cause = f"{share:.0%} of the edges go over values in between, as rings around the objects ({values} values)"
    hint = "it was smoothed, stored as JPEG or resized with interpolation: resize labels by the nearest neighbour"
    hint += "; if it is an image, exchange the folders"
    severity: Severity = "problem" if annotation.kind == "instances" else "remark"
    return Finding(severity, cause, hint, {"ramps": share, "values": values})


def _points(pieces: _Pieces, labels: NDArray[np.int32]) -> Finding | None:
    """Find points, and marks of one form that are drawn for points."""
    number, hint = len(pieces.ids), "outline the objects, or paint scribbles"
    if number >= _FEW and pieces.sizes.max() <= _POINT:
        cause = f"{number} objects of at most {_POINT} pixels: points are not outlines"
        return Finding("problem", cause, hint, {"points": number})
    size = int(pieces.sizes.max())
    same = int(np.count_nonzero(pieces.sizes == size))  # smaller ones may be cut by the border
    if number < _DOTS or size > _DOT or same < _NEARLY_ALL * number:
        return None
    forms = [form for form, _ in _boxes(labels, pieces) if np.count_nonzero(form) == size]
    equal = sum(np.array_equal(form, forms[0]) for form in forms) if forms else 0
    if equal < max(_DOTS, _NEARLY_ALL * len(forms)) or len(set(forms[0].shape)) > 1:
        return None
    cause = f"{equal} of {number} objects are marks of one form and {size} pixels: points are not outlines"
    return Finding("problem", cause, hint, {"points": equal})


def _boxes(labels: NDArray[np.int32], pieces: _Pieces) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.int32]]]:
    """Give for each id its voxels in the box around it, and the labels there."""
    from scipy.ndimage import find_objects  # slow to import

    ids = np.unique(pieces.ids)
    table = np.arange(1, ids.size + 1, dtype=np.int32)
    numbered = np.where(labels > 0, table[np.searchsorted(ids, np.maximum(labels, ids[0]))], 0)
    for value, box in zip(ids, find_objects(numbered), strict=True):
        yield labels[box] == value, labels[box]


def _outlines(labels: NDArray[np.int32], pieces: _Pieces) -> Finding | None:
    """Find lines around objects that nobody filled; of volumes, in their planes."""
    from scipy.ndimage import binary_fill_holes, generate_binary_structure

    beside = generate_binary_structure(labels.ndim, 1)
    if labels.ndim == 3:
        beside[[0, 2]] = False
    number = hollow = 0
    for form, inside in _boxes(labels, pieces):
        number, size = number + 1, int(np.count_nonzero(form))
        if size * (1 + _HOLLOW) < form.size:  # most are not, and to fill holes takes time
            hole = binary_fill_holes(form, beside) & (inside == 0)
            hollow += int(np.count_nonzero(hole)) > _HOLLOW * size
    if hollow < max(_FEW, _HALF * number):
        return None
    cause = f"{hollow} of {number} objects are lines around an empty inside: outlines that are not filled"
    return Finding("problem", cause, "fill them, so that each object has all of its pixels", {"hollow": hollow})


class _Largest(NamedTuple):
    """The object that covers most, and what is around it."""

    value: int
    voxels: int
    share: float  # of the labelled voxels
    others: int
    median: float  # voxels of the other objects; NaN where there is none
    beyond: bool  # whether the others have lower ids, and some are missing between
    touched: int = 0  # of the others
    border: float = 0.0  # of the border of what is labelled
    everywhere: bool = False  # whether nothing is unlabelled or background
    holes: int = 0  # pieces of background, where there is no other object


def _largest_of(labels: NDArray[np.int32], pieces: _Pieces) -> _Largest:
    from scipy.ndimage import binary_dilation, label  # slow to import

    ids, owner = np.unique(pieces.ids, return_inverse=True)  # an object in several labelled planes is one
    sizes = np.bincount(owner.reshape(-1), pieces.sizes).astype(np.int64)
    at, unlabelled = int(sizes.argmax()), labels == UNLABELLED
    value, share, rest = int(ids[at]), sizes[at] / np.count_nonzero(~unlabelled), np.delete(sizes, at)
    median = float(np.median(rest)) if rest.size else np.nan
    found = _Largest(value, int(sizes[at]), float(share), rest.size, median, at == len(rest) and value > len(ids))
    if share < _SHARE:
        return found  # as of nearly all label images
    mask, touching = labels == value, np.ones((3,) * labels.ndim)
    around = labels[binary_dilation(mask, touching, iterations=2)]  # a line of one voxel may lie between objects
    border = binary_dilation(unlabelled, touching)
    for axis in range(labels.ndim):
        np.moveaxis(border, axis, 0)[[0, -1]] = True
    border &= ~unlabelled
    return found._replace(
        touched=np.setdiff1d(around[around > 0], ids[at]).size,
        border=float(mask[border].mean()) if border.any() else 0.0,
        everywhere=not (labels <= 0).any(),
        holes=0 if rest.size else int(label(labels == 0)[1]),
    )


def _undeclared(large: _Largest, pieces: _Pieces) -> Finding | None:
    """Find the value that many programs write where nobody looked, beyond the numbers of the other objects."""
    *others, value = np.unique(pieces.ids).tolist()
    voxels = int(pieces.sizes[pieces.ids == value].sum())
    outsize = large.others >= _FEW and large.voxels >= _OUTSIZE * large.median
    covers = large.share >= (_SHARE if large.others else _HALF) and large.holes < _FEW
    much = large.beyond and large.value == value and (covers or outsize)
    after_gap = len(others) >= _FEW and others[-1] == len(others) < value - 1  # 1, 2, … and then this
    if value not in _BY_HABIT or not (much or after_gap):
        return None
    share = large.share * voxels / large.voxels
    cause = f"one id, {value}, covers {share:.0%} of what is labelled and may mean unlabelled"
    instead = "number it after the others" if others else "give it the number 1"
    hint = f"then say data.unlabelled = {value} in the recipe; if it is an object, {instead}"
    return Finding("problem", cause, hint, {"value": value, "share": share})


def _background(large: _Largest) -> Finding | None:
    """Find a background that has an id: it lies along the border and around the others, or around what has none."""
    around = large.others >= _FEW and large.touched >= _NEARLY_ALL * large.others and large.share >= _BACKGROUND
    alone = large.share > _HALF and (large.everywhere or (not large.others and large.holes >= _FEW))
    if not (around or alone) or large.border < _HALF:
        return None
    where = f" and lies around {large.touched} of {large.others} others" if large.others else ""
    where = where or (f" and lies around {large.holes} places without any" if large.holes else "")
    cause = f"one id, {large.value}, covers {large.share:.0%} of what is labelled{where}: it looks like background"
    hint = "background is 0 where objects have ids; if the values are classes, say kind = 'classes' in the recipe"
    return Finding("problem", cause, hint, {"value": large.value, "share": large.share})


def _classes(pieces: _Pieces) -> Finding | None:
    """Find ids of which each has many distant pieces: a mask, or classes."""
    count = pieces.large()
    objects, total = len(count), int(count.sum())
    if count.max() < _FEW or total < 2 * objects:
        return None
    figures = {"ids": objects, "pieces": total}
    if objects == 1:
        cause = f"one object of value {pieces.ids[0]} in {total} pieces: this is a mask, its objects have no ids"
        hint = "number the objects, in Fiji with Analyze Particles and Show: Count Masks, "
        hint += "or say kind = 'classes' in the recipe"
        return Finding("problem", cause, hint, figures)
    most = int(count.argmax())
    cause = f"{objects} ids in {total} distant pieces, id {pieces.ids[most]} in {count[most]}: these look like classes"
    return Finding("problem", cause, "say kind = 'classes' in the recipe, or number the objects", figures)


def _in_pieces(pieces: _Pieces) -> Finding | None:
    apart = int(np.count_nonzero(pieces.all() > 1))
    if apart < _FEW or apart < _HALF * len(pieces.ids):
        return None
    cause = f"{apart} of {len(pieces.ids)} objects are in several pieces"
    hint = "if the file was JPEG or resized on its way, go back to the original; otherwise number the pieces"
    return Finding("problem", cause, hint, {"ids": len(pieces.ids), "in_pieces": apart})


def _strays(pieces: _Pieces) -> Finding | None:
    apart = int(np.count_nonzero(pieces.all() > 1))
    small = int(np.count_nonzero(pieces.sizes <= _POINT))
    if not apart and not small:
        return None
    parts = [f"{apart} of {len(pieces.ids)} objects in several pieces"] if apart else []
    parts += [f"{small} of at most {_POINT} pixels"] if small else []
    return Finding("remark", f"stray pixels? {' and '.join(parts)}", "", {"in_pieces": apart, "small": small})


def _planes_apart(labels: NDArray[np.int32]) -> Finding | None:
    """Find a volume of which single planes were outlined, and the others are not said to be unlabelled."""
    if labels.ndim == 2 or (labels == UNLABELLED).any():
        return None
    for axis, name in enumerate("zyx"):
        drawn = np.asarray((labels > 0).any(axis=tuple(other for other in range(3) if other != axis)))
        number = int(drawn.sum())
        if number >= _FEW and not (drawn[1:] & drawn[:-1]).any():
            cause = f"objects in {number} of {len(drawn)} planes along {name}, none in the planes between them"
            hint = f"if the others were not looked at, say slices = '{name}' in the recipe"
            return Finding("problem", cause, hint, {"planes": number})
    return None


def _no_background(labels: NDArray[np.int32]) -> Finding | None:
    if (labels <= 0).any():
        return None
    return Finding("remark", "no voxel is background (0): everything belongs to an object")
