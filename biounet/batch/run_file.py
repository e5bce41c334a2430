"""``run.json``: what a run was made with, and what came out, read again without loading torch."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from biounet.batch.manifest import Manifest
from biounet.batch.names import natural_name_key
from biounet.batch.records import BatchOptions, FrameRow, Row
from biounet.batch.run_images import decode_read_options
from biounet.core import InputError, MachineError, __version__
from biounet.measurement import decode_grouping
from biounet.segmentation import SegmentOptions

_SOFTWARE = ("biounet", "torch", "numpy", "python", "machine")


@dataclass(frozen=True)
class ManifestState:
    """The manifest when the tables of a run were written.

    Attributes
    ----------
    size
        Bytes.
    sha256
        Of these.
    not_in_tables
        Images of this model and these settings that the tables are not about, since files of theirs were not there.
    """

    size: int
    sha256: str
    not_in_tables: frozenset[str] = frozenset()


@dataclass(frozen=True)
class RunFile:
    """The content of ``run.json``."""

    model: str  # SHA-256
    options: BatchOptions
    software: dict[str, str]  # versions and the kind of machine
    tables: dict[str, str]  # SHA-256 of the other files of the whole batch, by name
    settings: str = ""  # SHA-256 of the settings that results depend on
    model_name: str = ""
    out: Path = Path()  # the folder that it is of
    manifest: ManifestState | None = None  # None: of earlier versions, which list the images
    listed: tuple[Row, ...] = ()  # by earlier versions; without their seconds
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)  # the same of SHA-256, by the image and the path

    @cached_property
    def rows(self) -> Sequence[Row]:
        """The rows of ``counts.csv``, one for each image; they are read from the manifest when they are asked for."""
        if self.manifest is None:
            return self.listed
        manifest, identity = Manifest(self.out, self.manifest.size), (self.model, self.settings)
        names = [
            record.row.image
            for record in manifest.records()
            if (record.model, record.settings) == identity and record.row.image not in self.manifest.not_in_tables
        ]
        return manifest.rows(sorted(names, key=natural_name_key))

    def differences(self) -> list[str]:
        """Return which versions are different here, which can be why bits differ."""
        here = software()
        return [f"{name} {there}, here {here[name]}" for name, there in self.software.items() if there != here[name]]


def read_run(out: Path) -> RunFile:
    """Read ``run.json`` of a folder; raise `MachineError` if there is none, `InputError` if it is not biounet's."""
    path = out / "run.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        images = raw["images"] if "manifest" not in raw else []
        return RunFile(
            model=str(raw["model"]["sha256"]),
            options=_decode_options(raw["settings"]),
            software={name: str(raw[name]) for name in _SOFTWARE},
            out=out,
            manifest=_decode_state(raw.get("manifest")),
            listed=tuple(map(_decode_row, images)),
            outputs={str(row["image"]): dict(row["outputs"]) for row in images},
            tables=dict(raw.get("tables", {})),
            settings=str(raw.get("settings_sha256", "")),
            model_name=str(raw["model"].get("name", "")),
        )
    except OSError as error:
        if not out.is_dir():
            hint = "name the folder that 'biounet segment' wrote its results to"
            raise MachineError("no such folder", path=out, hint=hint) from error
        cause = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
        hint = "name a folder of results; 'biounet segment' writes this file when it has come to its end"
        raise MachineError(cause, path=path, hint=hint) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"not the record of a run: {type(error).__name__}", path=path) from error


def _decode_state(raw: dict[str, Any] | None) -> ManifestState | None:
    if raw is None:
        return None
    return ManifestState(int(raw["bytes"]), str(raw["sha256"]), frozenset(map(str, raw["not_in_tables"])))


def _decode_row(raw: dict[str, Any]) -> Row:
    figures, frames = dict(raw.get("figures", {})), tuple(FrameRow(**frame) for frame in raw.get("frames", ()))
    texts = str(raw["image"]), str(raw["message"])
    return Row(texts[0], raw["status"], raw["count"], 0.0, texts[1], figures=figures, frames=frames)


def _decode_options(raw: dict[str, Any]) -> BatchOptions:
    segment = SegmentOptions.from_dict(raw["segment"])
    if segment.diameter is None:  # of versions that took all images as they were
        segment = replace(segment, diameter="native")
    switches, group = {name: raw[name] for name in ("overlay", "excel")}, decode_grouping(raw.get("group"))
    return BatchOptions(
        decode_read_options(raw["read"]),
        segment,
        str(raw["device"]),
        **switches,
        group=group,
        single_file=bool(raw.get("single_file")),
        label_format=raw.get("label_format", "auto"),
    )


def software() -> dict[str, str]:
    """Return the versions and the kind of machine, on which the bits of a result can depend."""
    import torch  # slow to import, and reading a folder of results needs none of it

    from biounet.network import has_fast_bfloat16, has_fast_int8

    fast = {"integers": has_fast_int8(), "bfloat16": has_fast_bfloat16(torch.device("cpu"))}
    kind = (platform.system(), platform.machine(), torch.backends.cpu.get_cpu_capability())
    return {
        "biounet": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": " ".join([*kind, *(name for name, there in fast.items() if there)]),
    }
