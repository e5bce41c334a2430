"""A time series: each frame is segmented as an image of its own, and its objects are linked to those of the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import Note, NoteCode, Volume, list_some, note_code
from biounet.files import forget, zeros_beside
from biounet.measurement import Links, are_dense, join_tables, link_objects
from biounet.segmentation.result import Frame, Segmentation

_SHOWN = 3  # frames that a note names


def segment_frames(volume: Volume, segment_one: Callable[[Volume], Segmentation]) -> Segmentation:
    """Segment each frame of a time series as an image of its own, one after the other.

    Parameters
    ----------
    segment_one
        Segments an image.

    Returns
    -------
    Labels ``(t, [z,] y, x)``: objects are 1..N in all frames together, those of a frame after those of the frame
    before. The table has columns ``t`` and, of objects, ``track`` and ``parent_track``; without links over time they
    are empty. The count is that of all frames.
    """
    parts: list[Segmentation] = []
    labels: NDArray[Any] = np.empty(0)
    links: list[Links] = []
    previous, objects = None, 0
    for index in range(len(volume.times)):
        part = segment_one(volume.frame(index))
        if not parts:
            labels = zeros_beside(volume.array, (len(volume.times), *part.labels.shape), part.labels.dtype)
        labels[index] = part.labels
        if part.kind == "objects":
            np.add(labels[index], objects, out=labels[index], where=part.labels > 0)
            objects += part.count or 0
            links += [] if previous is None else [link_objects(previous, part.labels)]
            previous = part.labels
        # Neither its labels, all of which any view would keep in memory, nor its pixels are needed again
        parts.append(replace(part, labels=np.empty(0, part.labels.dtype), volume=volume))
        for array in (labels, volume.array, *volume.measured.values()):
            forget(array)
    table, tracks = join_tables(volume.times, [part.measurements for part in parts], links)
    frames = tuple(
        Frame(t, part.count, part.notes, sum(part.seconds.values()), part.figures)
        for t, part in zip(volume.times, parts, strict=True)
    )
    counts = [part.count for part in parts]
    return replace(
        parts[0],
        labels=labels,
        count=None if None in counts else sum(count or 0 for count in counts),
        measurements=table,
        notes=(*_link_notes(volume.times, links), *join_notes(frames)),
        seconds={name: sum(part.seconds.get(name, 0.0) for part in parts) for name in parts[0].seconds},
        figures={} if tracks is None else {"tracks": tracks},
        frames=frames,
    )


def _link_notes(times: Sequence[int], links: Sequence[Links]) -> list[Note]:
    """Return a note on frames between which objects are not linked."""
    dense = are_dense(links)
    loose = [(t, link) for t, link in zip(times[1:], links, strict=False) if link.is_jump or not dense]
    if not loose:
        return []
    share = sum(link.linked for _, link in loose) / max(1, sum(link.possible for _, link in loose))
    text = f"objects are not linked over time: only {share:.0%} of them overlap from frame to frame"
    if dense:
        where = list_some([str(t) for t, _ in loose], _SHOWN)
        text = f"tracks begin anew at t = {where}: only {share:.0%} of the objects overlap those of the frame before"
    return [Note(text, NoteCode.NOT_LINKED, figure=share)]


def join_notes(frames: Sequence[Frame]) -> list[str]:
    """Return the notes on all frames, each once, with the frames that it is about unless it is about all."""
    about: dict[str, tuple[str, list[int]]] = {}
    for frame in frames:
        for note in frame.notes:
            about.setdefault(note_code(note) or note, (note, []))[1].append(frame.t)
    return [note if len(times) == len(frames) else _name_frames(note, times) for note, times in about.values()]


def _name_frames(note: str, times: Sequence[int]) -> Note:
    coded = note if isinstance(note, Note) else Note(note)
    text = f"t = {list_some(list(map(str, times)), _SHOWN)}: {note}"
    return Note(text, coded.code, coded.severity, coded.figure)
