"""Names and colours of labels, as ITK-SNAP, 3D Slicer and FSLeyes read them beside a label image.

Classes have all their names, of objects those that there are; the colours are the same in all three.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from biounet.core import InputError
from biounet.files.exports.colours import object_colours
from biounet.files.exports.labelled_image import LabelledImage

_MOST_LABELS = 65_535  # of ITK-SNAP and FSLeyes, whose labels have 16 bits
_LEAST_ROWS = 2  # FSLeyes cannot read a table of one row
_ITK_SNAP_HEADER = """\
################################################
# ITK-SnAP Label Description File
# File format:
# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL
# Fields:
#    IDX:   Zero-based index
#    -R-:   Red color component (0..255)
#    -G-:   Green color component (0..255)
#    -B-:   Blue color component (0..255)
#    -A-:   Label transparency (0.00 .. 1.00)
#    VIS:   Label visibility (0 or 1)
#    MSH:   Label mesh visibility (0 or 1)
#  LABEL:   Label description
################################################
    0     0    0    0        0  0  0    "Clear Label"
"""


class LabelEntry(NamedTuple):
    """A label, what it is called, and its colour: red, green and blue, 0 to 255."""

    label: int
    name: str
    colour: tuple[int, int, int]


def label_entries(image: LabelledImage) -> list[LabelEntry]:
    """Return all classes, or the objects that there are, by their labels."""
    labels = sorted({*image.class_names, *image.values.tolist()} if image.kind == "classes" else image.values.tolist())
    colours = object_colours(np.array(labels)).tolist() if labels else []
    return [LabelEntry(label, image.label_name(label), tuple(rgb)) for label, rgb in zip(labels, colours, strict=True)]


def write_itk_snap(image: LabelledImage, path: Path) -> None:
    """Write label descriptions for ITK-SNAP; raise `InputError` beyond 65 535 labels."""
    _check_count(image, "ITK-SNAP")
    lines = [
        f'{label:5} {r:5} {g:4} {b:4}        1  1  1    "{_one_line(name).replace(chr(34), chr(39))}"\n'
        for label, name, (r, g, b) in label_entries(image)
    ]
    path.write_text(_ITK_SNAP_HEADER + "".join(lines), encoding="utf-8")


def write_slicer(image: LabelledImage, path: Path) -> None:
    """Write a colour table for 3D Slicer, in which names have underscores for spaces."""
    entries = [LabelEntry(0, "Background", (0, 0, 0)), *label_entries(image)]
    lines = [
        f"{label} {'_'.join(name.split())} {r} {g} {b} {255 if label else 0}\n" for label, name, (r, g, b) in entries
    ]
    header = f"# Color table file {image.title}\n# {entries[-1].label + 1} values\n"
    path.write_text(header + "".join(lines), encoding="utf-8")


def write_fsleyes(image: LabelledImage, path: Path) -> None:
    """Write a look-up table for FSLeyes; raise `InputError` beyond 65 535 labels."""
    _check_count(image, "FSLeyes")
    entries = label_entries(image)
    while len(entries) < _LEAST_ROWS:
        entries.append(LabelEntry(entries[-1].label + 1 if entries else 1, "unused", (0, 0, 0)))
    lines = [
        f"{label} {r / 255:.5f} {g / 255:.5f} {b / 255:.5f} {_one_line(name)}\n" for label, name, (r, g, b) in entries
    ]
    path.write_text("".join(lines), encoding="utf-8")


def write_bids_table(image: LabelledImage, path: Path) -> None:
    """Write the look-up table of a segmentation in BIDS: index, name and colour."""
    lines = [f"{label}\t{_one_line(name)}\t#{bytes(rgb).hex().upper()}\n" for label, name, rgb in label_entries(image)]
    path.write_text("index\tname\tcolor\n" + "".join(lines), encoding="utf-8")


def _check_count(image: LabelledImage, program: str) -> None:
    largest = int(image.values.max(initial=0))
    if largest > _MOST_LABELS:
        hint = "3D Slicer reads more: export slicer"
        raise InputError(f"{program} knows labels up to {_MOST_LABELS}, and these go to {largest}", hint=hint)


def _one_line(text: str) -> str:
    return " ".join(text.split())
