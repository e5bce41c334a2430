"""Where the state of one large image lies: files that appear whole, one for each super-block and stage.

Whoever comes later, on whatever machine, continues from what is there. A super-block is done in a stage when its file
is there: it is renamed into place after everything else that the stage writes.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from biounet.files import translate_write_errors

_PER_FOLDER = 1000  # files: more in one folder are slow on the file systems of clusters


@dataclass(frozen=True)
class WorkFolder:
    """The files of one large image in a folder beside its results."""

    path: Path

    @property
    def scale(self) -> Path:
        """What `find_scale` found."""
        return self.path / "scale.json"

    @property
    def model(self) -> Path:
        """A copy of the model: every worker sees this folder, and not where the model came from."""
        return self.path / "model.safetensors"

    @property
    def arithmetic(self) -> Path:
        """The numbers in which the image is predicted, in the first line."""
        return self.path / "arithmetic.txt"

    @property
    def shortages(self) -> Path:
        """Folder of what is to be noted when memory ran out."""
        return self.path / "shortages"

    def joined(self, what: str) -> Path:
        """Return the folder of what joining the super-blocks gave."""
        return self.path / "joined" / what

    @property
    def channels(self) -> Path:
        """What `ChannelSearch` found in all super-blocks so far."""
        return self.path / "joined" / "channels.json"

    @property
    def complete(self) -> Path:
        """An empty file that is there when the label store and the parts of the table are complete."""
        return self.path / "complete"

    @property
    def tables(self) -> Path:
        """Parts of the table."""
        return self.path / "tables"

    def file(self, stage: str, index: int, suffix: str = ".npz") -> Path:
        """Return the file of a super-block, or of a shard of a level, in a stage."""
        return self.path / stage / f"{index // _PER_FOLDER:04d}" / f"{index:07d}{suffix}"

    def is_done(self, stage: str, index: int) -> bool:
        """Whether a stage of a super-block is done."""
        return self.file(stage, index).is_file()

    def make(self, stage: str, index: int) -> Path:
        """Return the file of a super-block in a stage, in a folder that is there."""
        path = self.file(stage, index)
        with translate_write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def left(self, stage: str, indices: range) -> Iterator[int]:
        """Yield those of some super-blocks that are not done in a stage."""
        return (index for index in indices if not self.is_done(stage, index))

    def remove(self, *, ignore_errors: bool = False) -> None:
        """Remove everything.

        Under another name, for when it is cut short: results without the plan that they are of would be taken for those
        of the next one.
        """
        removed = self.path.with_name(f".{self.path.name}.removed")
        with translate_write_errors(self.path):
            if removed.is_dir():
                shutil.rmtree(removed, ignore_errors)
            if self.path.is_dir():
                self.path.rename(removed)
                shutil.rmtree(removed, ignore_errors)


def mark_as_empty(path: Path) -> None:
    """Say that a super-block is done and that nothing is in it: its file is there, and empty."""
    with translate_write_errors(path):
        path.touch()


def is_empty(path: Path) -> bool:
    """Whether a super-block has nothing in it, by its file."""
    return path.stat().st_size == 0
