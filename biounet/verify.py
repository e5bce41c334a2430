"""Is a folder of results what its inputs give? Every image is segmented again and compared bit for bit."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import Any, Literal

from biounet.errors import InputError, MachineError, ModelError
from biounet.files import FoundImage, Readers, ReadOptions, find_images, hash_file
from biounet.job import BatchOptions, Record, code_of, hash_settings, is_same, name_of, settings_of
from biounet.manifest import Manifest
from biounet.model import Model
from biounet.one_file import Run, segment_file
from biounet.outputs import OVERLAY
from biounet.predict import predictor_of
from biounet.recipe import LabelSettings
from biounet.resources import builtin_models
from biounet.segment import SegmentOptions
from biounet.summary import software

_MOST_THREADS = 1024


@dataclass(frozen=True)
class Checked:
    """What came of an image when it was segmented again.

    Attributes
    ----------
    image
        Its name.
    status
        ``same``, to the last bit; ``differs``; or ``missing``, when an input or an output is not there.
    message
        What differs or is missing.
    """

    image: str
    status: Literal["same", "differs", "missing"]
    message: str = ""


@dataclass(frozen=True)
class RunFile:
    """What ``run.json`` says about a run.

    Attributes
    ----------
    model
        SHA-256 of the model.
    options
        How images were segmented.
    software
        Versions and the kind of machine.
    """

    model: str
    options: BatchOptions
    software: dict[str, str]

    def differences(self) -> list[str]:
        """Return what is different here and now, and can be why bits differ."""
        here = software()
        return [
            f"{name} {self.software[name]}, here {here[name]}" for name in here if self.software[name] != here[name]
        ]


def read_run(out: Path) -> RunFile:
    """Read ``run.json`` of a folder of results.

    Raises
    ------
    MachineError
        If there is none.
    InputError
        If it is not what biounet writes.
    """
    path = out / "run.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        said = {name: str(raw[name]) for name in software()}
        return RunFile(str(raw["model"]["sha256"]), _options(raw["settings"]), said)
    except OSError as error:
        cause = f"cannot be read: {error.strerror}"
        raise MachineError(cause, path=path, hint="it is written when a batch has come to its end") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"not the record of a run: {type(error).__name__}", path=path) from error


def _options(raw: dict[str, Any]) -> BatchOptions:
    read = dict(raw["read"])
    read["spacing"] = None if read["spacing"] is None else tuple(map(float, read["spacing"]))
    part = raw["segment"]
    chain = SegmentOptions(part["block"], None, part["diameter"], LabelSettings.model_validate(part["label"]))
    return BatchOptions(ReadOptions(**read), chain, str(raw["device"]), overlay=raw["overlay"], excel=raw["excel"])


def find_model(run: RunFile) -> Path:
    """Return the built-in model that a run was made with.

    Raises
    ------
    ModelError
        If it was another one.
    """
    for path in builtin_models().values():
        if hash_file(path) == run.model:
            return path
    raise ModelError(f"the model of this run ({run.model[:12]}) is not built in", hint="name its file with --model")


def verify(
    out: Path,
    model: Model,
    images: str | Path | None = None,
    report: Callable[[Checked], None] = lambda checked: None,
    device: str | None = None,
) -> list[Checked]:
    """Segment every image of a folder of results again, and compare label images and tables bit for bit.

    Parameters
    ----------
    out
        The results.
    model
        The model that they were made with.
    images
        Where the images are now; None: where the manifest says that they were.
    report
        Called with each image as it is done.
    device
        Where to; None: where it was.

    Returns
    -------
    One for each image that the manifest names, in its order.

    Raises
    ------
    ModelError
        If it is another model.
    """
    run = read_run(out)
    if model.sha256 != run.model:
        raise ModelError(f"the model is {model.sha256[:12]}, that of this run {run.model[:12]}")
    options = replace(run.options, device=device or run.options.device, overlay=False)
    predictor = predictor_of(model, options.device)
    settings = hash_settings(settings_of(model, run.options))
    data = model.card.recipe.data
    found = find_images([images], data.channels, data.annotation) if images is not None else []
    there = {name_of(image): image for image in found} if images is not None else None
    results = []
    with Readers() as readers:
        for record in Manifest(out).records.values():
            with tempfile.TemporaryDirectory() as room:
                again = Run(model, predictor, Path(room), options, _threads_of(record), Event(), readers)
                known = (record.model, record.settings) == (run.model, settings)
                checked = _check(record, out, again, there) if known else _differs(record, "other settings")
            results.append(checked)
            report(checked)
    return results


def _threads_of(record: Record) -> int:
    threads = record.row.details.get("threads")
    return threads if isinstance(threads, int) and 1 <= threads <= _MOST_THREADS else 1


def _check(record: Record, out: Path, again: Run, there: dict[str, FoundImage] | None) -> Checked:
    name = record.row.image
    image = _where_it_was(record, out) if there is None else there.get(name)
    if image is None or not image.path.exists():
        return Checked(name, "missing", "its input")
    files = (image.path, *image.others)
    if record.inputs and not (len(files) == len(record.inputs) and all(map(is_same, files, record.inputs))):
        return _differs(record, "its input")
    made = segment_file(image, again)
    if "failed" in (made.row.status, record.row.status):
        same = (made.row.status, made.row.message) == (record.row.status, record.row.message)
        return Checked(name, "same") if same else _differs(record, f"now {made.row.status} {made.row.message}".strip())
    absent = [path for path in record.outputs if not (out / path).is_file()]
    if absent:
        return Checked(name, "missing", ", ".join(absent))
    other = list(_others(record, made, out))
    return _differs(record, ", ".join(other)) if other else Checked(name, "same")


def _where_it_was(record: Record, out: Path) -> FoundImage | None:
    if not record.inputs:
        return None
    first, *others = (out / Path(file.path).expanduser() for file in record.inputs)
    return FoundImage(first, Path(record.row.image), tuple(others))


def _others(record: Record, made: Record, out: Path) -> Iterator[str]:
    """Give the outputs that are not those on record, or not those of now."""
    for path, digest in record.outputs.items():
        if hash_file(out / path) != digest:
            yield f"{path} was changed"
        elif not path.endswith(OVERLAY) and made.outputs.get(path) != digest:
            yield path
    if (made.row.status, made.row.count) != (record.row.status, record.row.count):
        yield f"status and count: {made.row.status}, {made.row.count}"


def _differs(record: Record, what: str) -> Checked:
    return Checked(record.row.image, "differs", what)


def exit_code(results: list[Checked]) -> int:
    """Return 0 when all images are the same, 3 when some are not, 4 when none is."""
    return code_of(sum(checked.status != "same" for checked in results), len(results))
