"""Segment biomedical images with sparse annotations: cells and tumours, 2D and 3D, counted and measured."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from biounet.core.version import __version__

if TYPE_CHECKING:
    from biounet.api import Result, Segmenter, load, train
    from biounet.core import BiounetError
    from biounet.evaluation import evaluate_folders as evaluate
    from biounet.files import ReadOptions, read_volume
    from biounet.training import VolumeReader

_HOMES = {
    "BiounetError": "biounet.core",
    "ReadOptions": "biounet.files",
    "Result": "biounet.api",
    "Segmenter": "biounet.api",
    "VolumeReader": "biounet.training",
    "evaluate": "biounet.evaluation:evaluate_folders",
    "load": "biounet.api",
    "read_volume": "biounet.files",
    "train": "biounet.api",
}
__all__ = [
    "BiounetError",
    "ReadOptions",
    "Result",
    "Segmenter",
    "VolumeReader",
    "__version__",
    "evaluate",
    "load",
    "read_volume",
    "train",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    # Importing torch takes seconds; a name is loaded when it is first used.
    if name not in _HOMES:
        raise AttributeError(f"module 'biounet' has no attribute '{name}'")
    module, _, renamed = _HOMES[name].partition(":")
    value = getattr(import_module(module), renamed or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
