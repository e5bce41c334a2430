"""What a batch will have to do, before it begins: the images that an earlier run has done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from biounet.batch.manifest import MANIFEST_NAME, Manifest, outputs_exist
from biounet.batch.names import image_name, is_in_shard, mark_collisions
from biounet.batch.records import BatchOptions, Record, hash_settings, output_settings
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

    That function compares their contents as well, and does again what somebody has changed without a trace in these.
    """
    chosen = [image for image in mark_collisions(images) if is_in_shard(image_name(image), options.shard)]
    if not (out / MANIFEST_NAME).is_file():
        return Plan(len(chosen), frozenset())
    manifest, settings = Manifest(out), hash_settings(output_settings(model, options))

    def is_done(image: FoundImage, record: Record) -> bool:
        if record.row.status == "failed":
            return False
        if (record.model, record.settings) != (model.sha256, settings):
            return False
        return outputs_exist(record, out) and [file.size for file in record.inputs] == [_size(*p) for p in image.parts]

    names = {image_name(image): image for image in chosen}
    records = manifest.records(names)
    done = frozenset(record.row.image for record in records if is_done(names[record.row.image], record))
    return Plan(len(chosen), done)


def _size(path: Path, scene: str) -> int:
    try:
        return image_state(path, scene)[0]
    except (OSError, ValueError, InputError):
        return -1
