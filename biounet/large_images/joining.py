"""What is done to all super-blocks together, by one process whose memory is what lies between done and coming ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from threading import Event
from typing import TypeVar

from biounet.core import raise_if_stopped
from biounet.files import write_text
from biounet.labelling import (
    JoinedGaps,
    JoinedParts,
    NumberedObjects,
    join_fronts,
    join_gaps,
    load_gaps,
    load_parts,
    number_objects,
)
from biounet.large_images.array_files import load_arrays
from biounet.large_images.work import FIND, GAPS, Work

Found = TypeVar("Found")


def join_parts(work: Work, stop: Event) -> JoinedParts:
    """Join the parts of all super-blocks into objects, unless that is done."""
    folder = work.folder.joined("parts")
    try:
        return JoinedParts.open(folder)
    except FileNotFoundError:
        load = _loader(lambda index: load_parts(work.folder.file(FIND, index)), stop)
        return join_fronts(work.lattice, load, folder, work.settings, work.smallest)


def join_holes(work: Work, stop: Event) -> JoinedGaps | None:
    """Join the gaps of all super-blocks, unless that is done; None if holes are not filled."""
    if not work.settings.fill_holes:
        return None
    folder = work.folder.joined("gaps")
    try:
        return JoinedGaps.open(folder)
    except FileNotFoundError:
        load = _loader(lambda index: load_gaps(work.folder.file(GAPS, index)), stop)
        return join_gaps(work.lattice, load, folder)


def number_found(work: Work, joined: JoinedParts, gaps: JoinedGaps | None, stop: Event) -> NumberedObjects:
    """Give the objects of the image their numbers, unless that is done."""
    folder = work.folder.joined("objects")
    try:
        return NumberedObjects.open(folder)
    except FileNotFoundError:
        load = _loader(lambda index: load_parts(work.folder.file(FIND, index)), stop)
        return number_objects(work.lattice, load, joined, gaps, folder, work.keep)


def finish_channel_pass(work: Work, stage: str, stop: Event) -> None:
    """Join what was counted of the channels to measure in a pass over all super-blocks."""
    search = work.channel_search()
    for index in range(len(work.lattice)):
        raise_if_stopped(stop)
        search.merge(load_arrays(work.folder.file(stage, index)))
    search.finish_pass()
    write_text(work.folder.channels, json.dumps(search.as_dict()) + "\n")


def _loader(load: Callable[[int], Found], stop: Event) -> Callable[[int], Found]:
    """Return a function that loads what a super-block left, unless the work is to stop."""

    def load_unless_stopped(index: int) -> Found:
        raise_if_stopped(stop)
        return load(index)

    return load_unless_stopped
