"""What is done to one large image: pinned in its work folder when the work begins, and the same until it ends."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from biounet.core import InputError, __version__
from biounet.files import ReadOptions, path_from_hex, path_to_hex, write_text
from biounet.segmentation import SegmentOptions

PLAN_NAME = "plan.json"
CHANGED = "of the image as it was before it changed"


@dataclass(frozen=True)
class LargePlan:
    """An image, the model and the settings by which it is segmented, and the super-blocks that it is cut into.

    Attributes
    ----------
    files
        Of the image.
    states
        Size in bytes and time of the last change in ns of each, by which a change is told.
    model
        SHA-256 of the model's file.
    segment
        With the diameter that is meant.
    edges
        Of a super-block along the stored axes, in voxels.
    """

    files: tuple[Path, ...]
    states: tuple[tuple[int, int], ...]
    read: ReadOptions
    model: str
    segment: SegmentOptions
    edges: tuple[int, ...]

    def save(self, folder: Path) -> None:
        """Write the plan into a work folder."""
        raw = {
            "biounet": __version__,
            "files": [path_to_hex(path.absolute()) for path in self.files],
            "states": self.states,
            "read": asdict(self.read),
            "model": self.model,
            "segment": replace(self.segment, block=None).as_dict(),
            "edges": self.edges,
        }
        write_text(folder / PLAN_NAME, json.dumps(raw, indent=1) + "\n")

    def difference(self, earlier: LargePlan) -> str:
        """Return in what an earlier plan differs such that its results are of no use, in words; empty if in nothing."""
        words = {
            "model": "with another model",
            "segment": "with other settings",
            "read": "with other settings of how the image is read",
            "files": "of another image",
            "states": CHANGED,
        }
        own, other = self._comparable(), earlier._comparable()
        return next((text for name, text in words.items() if getattr(own, name) != getattr(other, name)), "")

    def _comparable(self) -> LargePlan:
        """Return the plan as `load_plan` gives it."""
        files = tuple(path.absolute() for path in self.files)
        return replace(self, files=files, segment=replace(self.segment, block=None))


def load_plan(folder: Path) -> LargePlan | None:
    """Return the plan in a work folder; None where there is none.

    Raises
    ------
    InputError
        If it was written by another version of biounet, or is damaged.
    """
    path = folder / PLAN_NAME
    hint = "--overwrite begins anew"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        version = raw["biounet"]
        if version != __version__:
            raise InputError(f"begun by biounet {version}, and this is {__version__}", path=folder, hint=hint)
        return LargePlan(
            tuple(map(path_from_hex, raw["files"])),
            tuple((int(size), int(time)) for size, time in raw["states"]),
            _read_options(raw["read"]),
            str(raw["model"]),
            SegmentOptions.from_dict(raw["segment"]),
            tuple(map(int, raw["edges"])),
        )
    except FileNotFoundError:
        return None
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError("damaged, or of another version of biounet", path=path, hint=hint) from error


def _read_options(raw: Mapping[str, Any]) -> ReadOptions:
    names = {field.name for field in fields(ReadOptions)}
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in raw.items() if name in names
    }
    return ReadOptions(**given)
