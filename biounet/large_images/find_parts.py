"""The parts of a super-block are found: in the same numbers in all of an image, and in blocks that fit into memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from biounet.core import InputError, Note, is_out_of_memory, note_code, note_from_record, note_record
from biounet.files import append_line, write_text
from biounet.labelling import Parts, find_parts
from biounet.large_images.work import Work
from biounet.large_images.work_folder import WorkFolder
from biounet.reporting import make_folder
from biounet.segmentation import block_attempts
from biounet.tiling import Block


def find_within_memory(work: Work, block: Block) -> tuple[NDArray[Any] | None, Parts]:
    """Predict a super-block and find its parts, as `biounet.labelling.find_parts` returns them.

    In smaller blocks if memory runs out, which is noted for the image.

    Raises
    ------
    InputError
        If the image was begun in other numbers.
    MemoryError
        If there is not enough memory for the smallest blocks.
    """
    pin_arithmetic(work.folder, work.predictor.arithmetic)
    for attempt in block_attempts(work.predictor, work.block, len(block.core)):
        pin_arithmetic(work.folder, attempt.predictor.arithmetic)
        predictor = replace(attempt.predictor, crops=attempt.predictor.pipeline is None)
        labeller = replace(work.labeller, predictor=predictor, edge=attempt.edge)
        try:
            basins = () if labeller.is_background(block.core) else labeller.label(block.core)
            found = find_parts(basins, block, work.settings, work.smallest)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            attempt.check(error)
        else:
            _note_shortages(work.folder, attempt.succeed())
            return found
        attempt.release_memory()
    raise MemoryError


def pin_arithmetic(folder: WorkFolder, arithmetic: str) -> None:
    """Raise `InputError` unless an image was begun in these numbers; the first process to predict a part begins.

    Parts in other numbers would differ a little where they meet.
    """
    path = folder.arithmetic
    first = _first_line(path)
    if first is None:
        append_line(path, arithmetic)
        first = _first_line(path)  # another process may have been the first
    if first != arithmetic:
        cause = f"begun in {first}, and this machine computes in {arithmetic}: their labels differ a little"
        hint = "continue with --device as it was begun, or --overwrite begins anew"
        raise InputError(cause, path=folder.path, hint=hint)


def pinned_arithmetic(folder: WorkFolder) -> str | None:
    """Return the numbers in which an image is predicted; None of one that was begun by an earlier version."""
    return _first_line(folder.arithmetic)


def _first_line(path: Path) -> str | None:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        return None
    return lines[0] if len(lines) > 1 else None


def _note_shortages(folder: WorkFolder, notes: tuple[Note, ...]) -> None:
    for note in notes:
        make_folder(folder.shortages)
        name = f"{note_code(note)}-{0 if note.figure is None else note.figure:g}.json"
        write_text(folder.shortages / name, json.dumps(note_record(note)))


def found_shortages(folder: WorkFolder) -> Iterator[Note]:
    """Yield what was noted when memory ran out."""
    for path in sorted(folder.shortages.glob("*.json")) if folder.shortages.is_dir() else ():
        yield note_from_record(json.loads(path.read_text(encoding="utf-8")))
