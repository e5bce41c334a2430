"""The reference of the Python API: every public name, with what its docstring says."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import biounet

_OTHERS = {
    "Images and models": (
        "biounet.core.Volume",
        "biounet.core.Grid",
        "biounet.core.Recipe",
        "biounet.network.Card",
        "biounet.segmentation.Segmentation",
        "biounet.segmentation.SegmentOptions",
        "biounet.training.TrainOptions",
        "biounet.training.TrainCallbacks",
        "biounet.batch.BatchOptions",
        "biounet.batch.segment_batch",
    ),
    "Synthetic images": (
        "biounet.synthetic.make_field",
        "biounet.synthetic.make_stack",
        "biounet.synthetic.make_head",
    ),
    "Errors": (
        "biounet.core.SettingsError",
        "biounet.core.InputError",
        "biounet.core.ModelError",
        "biounet.core.MachineError",
        "biounet.core.TrainingError",
    ),
}


def page() -> str:
    """Return what autodoc reads for the names of `biounet`, and for what they take and give."""
    public = [f"biounet.{name}" for name in biounet.__all__ if not name.startswith("__")]
    known = {id(_find(name)) for name in public}
    parts = [_section("Public names", public)]
    for title, names in _OTHERS.items():
        parts.append(_section(title, [name for name in names if id(_find(name)) not in known]))
    return "\n".join(parts)


def _section(title: str, names: Sequence[str]) -> str:
    lines = ["", "```{eval-rst}", *(f".. {_directive(name)}:: {name}" for name in names), "```", ""]
    return "\n".join([f"## {title}", *lines])


def _directive(name: str) -> str:
    found = _find(name)
    if not inspect.isclass(found):
        return "autofunction"
    return "autoexception" if issubclass(found, Exception) else "autoclass"


def _find(name: str) -> object:
    module, _, last = name.rpartition(".")
    return getattr(__import__(module, fromlist=[last]), last)
