"""Shards of the label store that were written and are not there any more: removed by hand, or lost by a disk.

A shard that is not there is background, so that nobody who reads the store can tell. The file that says that a shard is
done tells: it is empty only where there was no label to write.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from biounet.core import InputError, Region, stored_region
from biounet.files import LabelStore, translate_write_errors
from biounet.large_images.stages import CHANNELS, level_stage
from biounet.large_images.work import MEASURE, PAINT, Work
from biounet.large_images.work_folder import WorkFolder, is_empty

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LostShards:
    """Shards of one level that are gone.

    Attributes
    ----------
    level
        0: the labels themselves.
    indices
        Of the super-blocks, or of the shards of a level of lower resolution.
    key
        Path of the first one in the store.
    """

    store: LabelStore
    level: int
    indices: tuple[int, ...]
    key: str

    @property
    def error(self) -> InputError:
        """What to raise where it happens again and again."""
        cause = f"shard {self.key} is not there any more, though it was written"
        hint = "see whether a program or the disk removes files; the same command makes it again"
        return InputError(cause, path=self.store.path, hint=hint)

    def forget(self, work: Work) -> None:
        """Let them be made again, and all that was made after them, which may have been read without them.

        Wherever this is cut short, the next run finds that they are lost.
        """
        others = f" (and {len(self.indices) - 1} more)" if len(self.indices) > 1 else ""
        text = "%s: shard %s%s is gone; it is made again, with what was read of it"
        _log.warning(text, self.store.path, self.key, others)
        folder = work.folder
        with translate_write_errors(folder.path):
            folder.complete.unlink(missing_ok=True)
            for stage in self._later_stages(folder):
                shutil.rmtree(stage)
            if self.level == 0:
                folder.channels.unlink(missing_ok=True)
            for index in self.indices:
                folder.file(_stage(self.level), index).unlink(missing_ok=True)

    def _later_stages(self, folder: WorkFolder) -> list[Path]:
        """Return the folders that there are of what was made after these shards."""
        names = [level_stage(level) for level in range(self.level + 1, len(self.store.levels))]
        found = [] if self.level else [*folder.path.glob(f"{CHANNELS}*"), folder.path / MEASURE]
        return [path for path in (*found, *(folder.path / name for name in names)) if path.is_dir()]


def find_lost(work: Work, store: LabelStore) -> LostShards | None:
    """Return what is gone of the level of highest resolution of which anything is; None if all is there.

    This looks up two files for each shard that was written with labels, one for each of the others, and reads none.
    """
    for level in range(len(store.levels)):
        lost = tuple(index for index in range(store.levels[level].shards) if _is_lost(work, store, level, index))
        if lost:
            return LostShards(store, level, lost, store.levels[level].key(_region(work, store, level, lost[0])))
    return None


def _is_lost(work: Work, store: LabelStore, level: int, index: int) -> bool:
    try:
        if is_empty(work.folder.file(_stage(level), index)):
            return False
    except FileNotFoundError:  # not yet done
        return False
    return not store.shard_path(level, _region(work, store, level, index)).exists()


def _region(work: Work, store: LabelStore, level: int, index: int) -> Region:
    if level:
        return store.levels[level].region(index)
    return stored_region(work.lattice.block(index).core, work.stored.grid)


def _stage(level: int) -> str:
    return level_stage(level) if level else PAINT
