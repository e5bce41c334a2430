"""What is done to all super-blocks together, by one process whose memory is what lies between done and coming ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from threading import Event
from typing import TypeVar

import numpy as np

from biounet.core import raise_if_stopped
from biounet.files import write_text
from biounet.labelling import (
    Gaps,
    JoinedGaps,
    JoinedParts,
    NumberedObjects,
    Parts,
    find_gaps,
    join_fronts,
    join_gaps,
    load_gaps,
    load_parts,
    no_parts,
    number_objects,
)
from biounet.large_images.array_files import load_arrays
from biounet.large_images.work import FIND, GAPS, Work
from biounet.large_images.work_folder import is_empty

Found = TypeVar("Found")


def join_parts(work: Work, stop: Event) -> JoinedParts:
    """Join the parts of all super-blocks into objects, unless that is done."""
    folder = work.folder.joined("parts")
    try:
        return JoinedParts.open(folder)
    except FileNotFoundError:
        load = _loader(partial(_load_found, work), stop)
        return join_fronts(work.lattice, load, folder, work.settings, work.smallest)


def join_holes(work: Work, stop: Event) -> JoinedGaps | None:
    """Join the gaps of all super-blocks, unless that is done; None if holes are not filled."""
    if not work.settings.fill_holes:
        return None
    folder = work.folder.joined("gaps")
    try:
        return JoinedGaps.open(folder)
    except FileNotFoundError:
        load = _loader(partial(load_found_gaps, work), stop)
        return join_gaps(work.lattice, load, folder)


def number_found(work: Work, joined: JoinedParts, gaps: JoinedGaps | None, stop: Event) -> NumberedObjects:
    """Give the objects of the image their numbers, unless that is done."""
    folder = work.folder.joined("objects")
    try:
        return NumberedObjects.open(folder)
    except FileNotFoundError:
        load = _loader(partial(_load_found, work), stop)
        return number_objects(work.lattice, load, joined, gaps, folder, work.keep)


def finish_channel_pass(work: Work, stage: str, stop: Event) -> None:
    """Join what was counted of the channels to measure in a pass over all super-blocks."""
    search = work.channel_search()
    for index in range(len(work.lattice)):
        raise_if_stopped(stop)
        search.merge(load_arrays(work.folder.file(stage, index)))
    search.finish_pass()
    write_text(work.folder.channels, json.dumps(search.as_dict()) + "\n")


def _load_found(work: Work, index: int) -> Parts:
    path = work.folder.file(FIND, index)
    return no_parts(len(work.lattice.shape)) if is_empty(path) else load_parts(path)


def load_found_gaps(work: Work, index: int) -> Gaps:
    """Return what was found of the gaps of a super-block; one without objects is a gap as a whole."""
    path = work.folder.file(GAPS, index)
    return find_gaps(None, np.zeros(0, np.int64), work.lattice.block(index)) if is_empty(path) else load_gaps(path)


def _loader(load: Callable[[int], Found], stop: Event) -> Callable[[int], Found]:
    """Return a function that loads what a super-block left, unless the work is to stop."""

    def load_unless_stopped(index: int) -> Found:
        raise_if_stopped(stop)
        return load(index)

    return load_unless_stopped
