"""What a batch will have to do, before it begins: the images that an earlier run has done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biounet.batch.manifest import MANIFEST_NAME, Manifest
from biounet.batch.names import image_name, is_in_shard, mark_collisions
from biounet.batch.recorded_files import is_there
from biounet.batch.records import BatchOptions, hash_settings, output_settings
from biounet.core import InputError
from biounet.files import FoundImage, image_state
from biounet.network import Model


@dataclass(frozen=True)
class Plan:
    """How many images a batch is for, and which of them are done already."""

    total: int
    done: frozenset[str]

    def describe(self) -> str:
        """Return how many images are done and how many are left, in words."""
        return f"{len(self.done)} already done, {self.total - len(self.done)} to do"


def plan_batch(images: Sequence[FoundImage], model: Model, out: Path, options: BatchOptions) -> Plan:
    """Return what `segment_batch` will have to do, by the manifest and the sizes and times of files, which is quick.

    That function compares their contents as well, and does again what somebody has changed without a trace in these; it
    is also the one that checks the form of records, which here takes most of the time of a million images.
    """
    chosen = [image for image in mark_collisions(images) if is_in_shard(image_name(image), options.shard)]
    if not (out / MANIFEST_NAME).is_file():
        return Plan(len(chosen), frozenset())
    identity = model.sha256, hash_settings(output_settings(model, options))
    named = {image_name(image): image for image in chosen}
    records = Manifest(out).unchecked(named)
    done = (name for name, record in records if _is_likely_done(named[name], record, identity, out))
    return Plan(len(chosen), frozenset(done))


def _is_likely_done(image: FoundImage, record: Any, identity: tuple[str, str], out: Path) -> bool:  # noqa: ANN401 - JSON
    try:
        if record["status"] == "failed" or (record["model"], record["settings"]) != identity:
            return False
        if not record["outputs"] or not all(is_there(f"{out}/{path}") for path in record["outputs"]):
            return False
        return [file["size"] for file in record["inputs"]] == [_size(*part) for part in image.parts]
    except (TypeError, KeyError):  # no record of biounet
        return False


def _size(path: Path, scene: str) -> int:
    try:
        return image_state(path, scene)[0]
    except (OSError, ValueError, InputError):
        return -1
