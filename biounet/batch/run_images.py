"""The images of a folder of results, read again as they were read then, for programs that show them."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biounet.batch.manifest import MANIFEST_NAME, Manifest
from biounet.batch.names import unescape
from biounet.batch.recorded_files import are_unchanged, recorded_image, resolve_recorded_path
from biounet.batch.records import Record
from biounet.core import InputError, MachineError, Volume
from biounet.files import FoundImage, ReadOptions, read_volume, stem_of
from biounet.reporting import LABEL_SUFFIXES


@dataclass(frozen=True)
class RunImage:
    """One image of a folder of results that did not fail."""

    out: Path
    record: Record
    read: ReadOptions | None  # of the run; None before it has come to its end

    @property
    def name(self) -> str:
        """Path of the image below the input folder, without suffix."""
        path = Path(unescape(self.record.row.image))
        return path.with_name(stem_of(path)).as_posix()

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes of labels 1, 2, …; empty for objects, and for results of earlier versions."""
        recorded = self.record.row.details.get("classes")
        return tuple(unescape(str(name)) for name in recorded) if isinstance(recorded, list) else ()

    @property
    def label_path(self) -> Path:
        """The label image."""
        return self.out / next(filter(_is_label_image, self.record.outputs))

    def find_image(self) -> FoundImage:
        """Return where the image is now; raise `InputError` if it is no longer there, or is another one."""
        paths = [resolve_recorded_path(file.path, self.out) for file in self.record.inputs]
        image = recorded_image(self.record.row.image, paths, self.record.row.details)
        missing = [path for path in paths if not os.path.lexists(path)]
        if missing:
            raise InputError("the image is no longer there", path=missing[0])
        if not are_unchanged(image, self.record.inputs):
            raise InputError("the image is no longer the one that was segmented", path=paths[0])
        return image

    def read_image(self) -> Volume:
        """Return the image as it was read for the result.

        Raises
        ------
        InputError
            If it is no longer there or is another one, or the run has not come to its end.
        """
        if self.read is None:
            cause = "has no run.json, which says how images were read"
            raise InputError(cause, path=self.out, hint="the same 'biounet segment' continues")
        image = self.find_image()
        return read_volume(image.files(), image.read_options(self.read))


def run_images(out: Path) -> list[RunImage]:
    """Return the images of a folder of results whose label images are there, in the order of their results."""
    return [image for image in _recorded_images(out) if image.label_path.exists()]


def find_run_image(labels: Path) -> RunImage | None:
    """Return the image of a label image; None where it does not lie in a folder of results."""
    labels = labels.absolute()
    for folder in labels.parents:
        if is_run_folder(folder):
            return next((image for image in _recorded_images(folder) if image.label_path == labels), None)
    return None


def is_run_folder(path: Path) -> bool:
    """Whether a path is a folder of results."""
    return (path / MANIFEST_NAME).is_file()


def _recorded_images(out: Path) -> list[RunImage]:
    read, records = _read_options(out), Manifest(out).records()
    return [RunImage(out, record, read) for record in records if any(map(_is_label_image, record.outputs))]


def _is_label_image(path: str) -> bool:
    return path.endswith(LABEL_SUFFIXES)


def _read_options(out: Path) -> ReadOptions | None:
    """Return how the images of a run were read; None before it has come to its end."""
    path = out / "run.json"
    try:
        return decode_read_options(json.loads(path.read_text(encoding="utf-8"))["settings"]["read"])
    except FileNotFoundError:
        return None
    except OSError as error:
        raise MachineError(f"cannot be read: {error.strerror}", path=path) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"not the record of a run: {type(error).__name__}", path=path) from error


def decode_read_options(raw: dict[str, Any]) -> ReadOptions:
    """Return the options that ``run.json`` holds."""
    spacing = raw["spacing"]
    return ReadOptions(**{**raw, "spacing": None if spacing is None else tuple(map(float, spacing))})
