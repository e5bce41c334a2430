import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from biounet.core import PROBABILITY_MAX, InputError, LabelSettings
from biounet.labelling import (
    Gaps,
    JoinedGaps,
    JoinedParts,
    NumberedObjects,
    ObjectFilter,
    Parts,
    SuperBlockLattice,
    find_gaps,
    find_parts,
    join_fronts,
    join_gaps,
    load_gaps,
    load_parts,
    number_objects,
    paint,
    select_objects,
    smallest_object,
    stitch,
)
from biounet.labelling.label import label_surface
from biounet.tiling import Block, block_lattice

KEEP_ALL = ObjectFilter()
RULE = LabelSettings(min_size=0)


@dataclass(frozen=True)
class Layout:
    """How an image is cut, and in what order its blocks come."""

    super_block: tuple[int, ...]
    block: tuple[int, ...]
    seed: int = 0
    slack: int = 0


def blocks_of(foreground, surface, threshold, super_block, layout):
    """The basins of the blocks that tile a super-block, in a random order."""
    cut = block_lattice(tuple(part.stop - part.start for part in super_block.core), layout.block)
    for i in np.random.default_rng(layout.seed).permutation(len(cut)):
        pairs = zip(cut[i].core, super_block.core, strict=True)
        core = tuple(slice(part.start + outer.start, part.stop + outer.start) for part, outer in pairs)
        block = Block(core, core, surface.shape)
        ring = block.grown(1)
        yield label_surface(foreground[ring], surface[ring], threshold, block=block)


@dataclass(frozen=True)
class Result:
    labels: np.ndarray
    count: np.ndarray
    confidence: np.ndarray
    boxes: np.ndarray
    numbered: NumberedObjects
    parts: list[Parts]
    joined: JoinedParts
    gaps: JoinedGaps | None


def by_super_blocks(foreground, surface, rule, layout, keep=KEEP_ALL, threshold=1, folder=None):
    """Label an image super-block by super-block; through files if there is a folder for them."""
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            return _by_super_blocks(foreground, surface, rule, layout, keep, threshold, Path(temporary), None)
    return _by_super_blocks(foreground, surface, rule, layout, keep, threshold, folder, folder)


def _by_super_blocks(foreground, surface, rule, layout, keep, threshold, folder, files):
    lattice = SuperBlockLattice(surface.shape, layout.super_block)
    smallest = smallest_object(rule, None)
    super_blocks = [lattice.block(i) for i in range(len(lattice))]
    found = [find_parts(blocks_of(foreground, surface, threshold, s, layout), s, rule, smallest) for s in super_blocks]
    labels, parts = zip(*found, strict=True)
    get_parts, get_gaps = parts.__getitem__, None
    if files:
        for i, part in enumerate(parts):
            part.save(files / f"parts-{i}.npz")
        get_parts = lambda i: load_parts(files / f"parts-{i}.npz")  # noqa: E731
    joined = join_fronts(lattice, get_parts, folder / "joined", rule, smallest, slack=layout.slack)
    joined_gaps = None
    if rule.fill_holes:
        gaps: list[Gaps] = [
            find_gaps(labels[i], joined.objects_of_parts.load(i), s) for i, s in enumerate(super_blocks)
        ]
        get_gaps = gaps.__getitem__
        if files:
            for i, gap in enumerate(gaps):
                gap.save(files / f"gaps-{i}.npz")
            get_gaps = lambda i: load_gaps(files / f"gaps-{i}.npz")  # noqa: E731
        joined_gaps = join_gaps(lattice, get_gaps, folder / "gaps", slack=layout.slack)
    if files:
        joined = JoinedParts.open(folder / "joined")
        joined_gaps = joined_gaps and JoinedGaps.open(folder / "gaps")
    numbered = number_objects(lattice, get_parts, joined, joined_gaps, folder / "numbered", keep)
    if files:
        numbered = NumberedObjects.open(folder / "numbered")
    image = np.full(surface.shape, -1, np.int32)
    rows = []
    for i, super_block in enumerate(super_blocks):
        core = image[super_block.core]
        filled = () if joined_gaps is None else (get_gaps(i), numbered.labels_of_gaps.load(i))
        core[...] = paint(labels[i], core.shape, numbered.labels_of_parts.load(i), *filled)
        begins = numbered.objects(i)
        assert (lattice.blocks_of(begins.first) == i).all()
        rows.append((begins.label, begins.count, begins.confidence, np.hstack([begins.low, begins.high])))
    label, count, confidence, boxes = (np.concatenate(column) for column in zip(*rows, strict=True))
    order = np.argsort(label)
    assert label[order].tolist() == list(range(1, numbered.count + 1))
    return Result(image, count[order], confidence[order], boxes[order], numbered, list(parts), joined, joined_gaps)


def whole(foreground, surface, rule, keep=KEEP_ALL, threshold=1):
    block = block_lattice(surface.shape, max(surface.shape))[0]
    objects = stitch([label_surface(foreground, surface, threshold, block=block)], surface.shape, rule)
    kept, dropped = select_objects(objects, keep)
    return kept, dropped


def assert_same(found, expected, dropped):
    assert np.array_equal(found.labels, expected.labels)
    assert np.array_equal(found.count, expected.count)
    assert np.array_equal(found.confidence, expected.confidence)
    assert (found.numbered.too_small, found.numbered.dropped) == (expected.too_small, dropped)
    assert list(found.numbered.dropped) == list(dropped)
    boxes = [[*(s.start for s in box), *(s.stop for s in box)] for box in ndimage.find_objects(expected.labels)]
    assert found.boxes.tolist() == boxes


@st.composite
def images(draw):
    """Foreground and surface of few or many heights, of noise, of smooth hills, and of cells that fill the image."""
    axes = draw(st.sampled_from([2, 2, 3]))
    shape = tuple(draw(st.lists(st.integers(1, 30 if axes == 2 else 11), min_size=axes, max_size=axes)))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = draw(st.sampled_from([2, 4, 40, PROBABILITY_MAX]))
    smooth = [ndimage.gaussian_filter(random.random(shape), draw(st.sampled_from([0.0, 0.6, 1.5]))) for _ in range(2)]
    scaled = [(a - a.min()) / max(float(np.ptp(a)), 1e-9) for a in smooth]
    maps = [(np.rint(a * levels) * (PROBABILITY_MAX // levels)).astype(np.uint16) for a in scaled]
    # Where most is foreground there are holes; where all is, cells touch everywhere.
    quantile = draw(st.sampled_from([0.0, 0.15, 0.5, 0.8]))
    threshold = max(int(np.quantile(maps[0], quantile)), 1)
    return *maps, threshold


RULES = st.builds(
    LabelSettings,
    min_size=st.sampled_from([0, 2, 6]),
    join=st.sampled_from([0.0, 0.4, 0.7, 0.9, 0.97, 1.0]),
    min_peak=st.sampled_from([0.0, 0.3, 0.6]),
    fill_holes=st.booleans(),
)
KEEPS = st.builds(
    ObjectFilter,
    max_voxels=st.sampled_from([None, None, 12]),
    min_confidence=st.sampled_from([None, None, 0.3]),
    exclude_border=st.booleans(),
)
EDGES = st.lists(st.integers(1, 12), min_size=3, max_size=3)


@settings(deadline=None, max_examples=120)
@given(images(), RULES, KEEPS, EDGES, EDGES, st.integers(0, 99), st.sampled_from([0, 5, 100]))
def test_super_blocks_are_invisible(maps, rule, keep, size, block, seed, slack):
    foreground, surface, threshold = maps
    axes = surface.ndim
    layout = Layout(tuple(size[:axes]), tuple(block[:axes]), seed, slack)
    found = by_super_blocks(foreground, surface, rule, layout, keep, threshold)
    assert_same(found, *whole(foreground, surface, rule, keep, threshold))


@pytest.mark.parametrize("shape", [(23, 31), (9, 11, 12)])
@pytest.mark.parametrize("fill", [True, False])
def test_what_passes_leave_in_files_is_enough_for_the_next(shape, fill, tmp_path):
    random = np.random.default_rng(5)
    surface = random.integers(1, PROBABILITY_MAX, shape).astype(np.uint16)
    foreground = np.where(random.random(shape) < 0.8, np.uint16(PROBABILITY_MAX), np.uint16(1))
    rule = LabelSettings(min_size=2, fill_holes=fill)
    layout = Layout((5, 6, 7)[: len(shape)], (4, 3, 5)[: len(shape)], slack=10)
    found = by_super_blocks(foreground, surface, rule, layout, threshold=2, folder=tmp_path)
    assert_same(found, *whole(foreground, surface, rule, threshold=2))


RING = """
. . . . . . . . .
. 9 9 9 9 9 9 9 .
. 9 . . . . . 9 .
. 9 . . 5 . . 9 .
. 9 . . . . . 9 .
. 9 9 9 9 9 9 9 .
. . . . . . . . .
. 9 9 9 9 . 7 7 7
. 9 . . 9 . 7 . 7
. 9 9 9 9 . 7 . 7
"""


def picture(text):
    rows = text.replace(".", "0").strip().splitlines()
    return np.array([row.split() for row in rows], np.uint16)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (3, 2), (4, 4), (20, 20)])
@pytest.mark.parametrize(("smallest", "filled"), [(2, 1), (0, 0)])
def test_a_hole_over_many_seams_is_filled_and_an_open_one_is_not(size, smallest, filled):
    """The object in the hole, of one voxel, is background where objects have two or more."""
    surface = picture(RING) * np.uint16(5000)
    rule = LabelSettings(min_size=smallest, min_peak=0)
    found = by_super_blocks(surface, surface, rule, Layout(size, (2, 2)))
    expected = np.array(picture(RING) // 9, np.int32)
    expected[2:5, 2:7] = filled
    expected[3, 4] = 1 if filled else 2
    second = 2 if filled else 3
    expected[7:10, 1:5] = np.where(expected[7:10, 1:5], second, 0)
    expected[8, 2:4] = second
    expected[7:, 6:] = np.where(picture(RING)[7:, 6:], second + 1, 0)
    assert found.labels.tolist() == expected.tolist()
    assert found.count.tolist() == ([35, 12, 7] if filled else [20, 1, 12, 7])


def test_an_empty_super_block_stores_no_array():
    empty = np.zeros((12, 12), np.uint16)
    super_block = SuperBlockLattice(empty.shape, (4, 4)).block(4)
    labels, parts = find_parts(blocks_of(empty, empty, 1, super_block, Layout((4, 4), (2, 2))), super_block, RULE, 0)
    assert labels is None
    assert (len(parts.settled), len(parts.front.root), len(parts.seams)) == (0, 0, 0)
    gaps = find_gaps(None, np.zeros(0, np.int64), super_block)
    assert (gaps.voxels.tolist(), {face.size for face in gaps.faces.values()}) == ([16], {1})
    assert not paint(None, (4, 4), np.zeros(0)).any()


@pytest.mark.parametrize("mean", [0.0, 0.5])
def test_the_front_of_a_field_that_cells_fill_does_not_grow_with_it(tmp_path, mean):
    """With many cells, and with one object that spans the field: within 10 % from as many rows as columns on.

    The largest front is the largest of as many as there are rows, and so grows a little more in a narrow field: with 6
    columns by up to 17 % from 24 rows to 288, with 24 columns by up to 11 % from 24 to 144.
    """
    columns, largest = 12, []
    for rows in (12, 36):
        random = np.random.default_rng(rows)
        smooth = ndimage.gaussian_filter(random.standard_normal((16 * rows, 16 * columns)), 1.5)
        surface = (np.clip(mean + 0.3 * smooth / smooth.std(), 0, 1) * PROBABILITY_MAX).astype(np.uint16)
        full = np.full(surface.shape, PROBABILITY_MAX, np.uint16)
        lattice = SuperBlockLattice(surface.shape, (16, 16))
        blocks = (lattice.block(i) for i in range(len(lattice)))
        parts = [find_parts(blocks_of(full, surface, 1, s, Layout((16, 16), (16, 16))), s, RULE, 0)[1] for s in blocks]
        largest.append(join_fronts(lattice, parts.__getitem__, tmp_path / f"{rows}", RULE, 0, slack=0).largest_front)
    assert largest[1] < 1.1 * largest[0]


def test_maps_that_differ_between_super_blocks_are_an_error(tmp_path):
    left, right = (SuperBlockLattice((1, 4), (1, 2)).block(i) for i in range(2))
    full, rising = np.full((1, 3), PROBABILITY_MAX, np.uint16), np.array([[1, 2, 3]], np.uint16)
    lacking = np.array([[PROBABILITY_MAX, 0, 0]], np.uint16)
    for foreground, message in ((full, "closed"), (lacking, "lacks a foreground voxel")):
        parts = [
            find_parts([label_surface(full, rising, PROBABILITY_MAX, block=left)], left, RULE, 0)[1],
            find_parts([label_surface(foreground, rising[:, ::-1], PROBABILITY_MAX, block=right)], right, RULE, 0)[1],
        ]
        with pytest.raises(ValueError, match=message):
            join_fronts(SuperBlockLattice((1, 4), (1, 2)), parts.__getitem__, tmp_path, RULE, 0)


def test_a_join_that_was_cut_short_is_not_taken_for_whole(tmp_path):
    lattice = SuperBlockLattice((4, 4), (2, 2))

    def get_parts(index):
        if index == 3:
            raise KeyboardInterrupt
        return find_parts([], lattice.block(index), RULE, 0)[1]

    with pytest.raises(KeyboardInterrupt):
        join_fronts(lattice, get_parts, tmp_path / "joined", RULE, 0)
    with pytest.raises(FileNotFoundError):
        JoinedParts.open(tmp_path / "joined")


def test_more_objects_than_labels_are_an_error(monkeypatch):
    surface = picture("9 0 9 0 9") * np.uint16(5000)
    layout = Layout((1, 2), (1, 2))
    assert by_super_blocks(surface, surface, RULE, layout).numbered.count == 3
    monkeypatch.setattr("biounet.labelling.super_blocks.numbering._MOST_OBJECTS", 2)
    with pytest.raises(InputError, match="more than 2 objects"):
        by_super_blocks(surface, surface, RULE, layout)
