"""Write a model in the format of another program, and check the file before it gets its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from biounet.core import InputError, ModelError, require_extra
from biounet.files import atomic_path
from biounet.model_export.formats import EXTRA, MODEL_FORMATS, split_model_formats
from biounet.model_export.onnx_file import write_onnx, write_onnx_int8
from biounet.model_export.package import compare_package, write_package
from biounet.model_export.parity import Parity, compare
from biounet.network import Model

_MAX_DIFFERENCE = 1e-3  # of a probability from the network; sums in another order make 1e-6
_MAX_MEAN_INT8 = 0.01  # of the differences in 8-bit integers; 0.001 of the built-in models


@dataclass(frozen=True)
class ExportedModel:
    """A file that was written, and how far it is from the network."""

    path: Path
    format: str
    parity: Parity


@dataclass(frozen=True)
class _Writer:
    """Writes a model to a temporary path, which does not exist before, and compares what is there with the network."""

    write: Callable[[Model, Path], None]
    check: Callable[[Model, Path], Parity]


def check_float(model: Model, path: Path) -> Parity:
    """Compare a file in float32 with the network; `ModelError` if a probability differs noticeably."""
    return _check_exact(compare(path, model))


def check_package(model: Model, path: Path) -> Parity:
    """Compare a package with the network; `ModelError` as of a file in float32."""
    return _check_exact(compare_package(path, model))


def _check_exact(parity: Parity) -> Parity:
    if not parity.largest <= _MAX_DIFFERENCE:  # NaN is too far as well
        raise _too_far(parity, "try another version of onnxruntime, and report it")
    return parity


def check_int8(model: Model, path: Path) -> Parity:
    """Compare a file in 8-bit integers with the network in float32; `ModelError` if they differ more than rounding."""
    parity = compare(path, model)
    if not parity.mean <= _MAX_MEAN_INT8:
        raise _too_far(parity, "sums of 8-bit integers may saturate on this CPU: export on another one, or as onnx")
    return parity


def _too_far(parity: Parity, hint: str) -> ModelError:
    return ModelError(f"the exported model does not compute what the model does: {parity}", hint=hint)


# A new format is a line here, and one in `MODEL_FORMATS`.
_WRITERS: Mapping[str, _Writer] = {
    "onnx": _Writer(write_onnx, check_float),
    "onnx-int8": _Writer(write_onnx_int8, check_int8),
    "bioimageio": _Writer(write_package, check_package),
}


def export_model(model: Model, format: str, path: Path | None = None, *, overwrite: bool = False) -> ExportedModel:
    """Write a model for other programs, and compare the file with the network on synthetic images.

    Parameters
    ----------
    format
        A name in `MODEL_FORMATS`.
    path
        Of the file; None: the name of the model in the working folder.
    overwrite
        Whether a file that is there is replaced.

    Raises
    ------
    SettingsError
        If there is no such format, or its packages are not installed.
    InputError
        If the file is there.
    ModelError
        If the file does not compute what the network does; it is not kept.
    MachineError
        If the file cannot be written.
    """
    (name,) = split_model_formats(format)
    for package in ("onnx", "onnxruntime"):
        require_extra(EXTRA, package, name)
    path = path or Path(f"{model.card.recipe.name}{MODEL_FORMATS[name]}")
    if path.exists() and not overwrite:
        raise InputError("is there already", path=path, hint="--overwrite replaces it, and --out names another file")
    writer = _WRITERS[name]
    with atomic_path(path) as temporary:
        writer.write(model, temporary)
        parity = writer.check(model, temporary)
    return ExportedModel(path, name, parity)
