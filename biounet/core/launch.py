"""The processes that a launcher such as ``torchrun`` has started together."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Launch:
    """The place of this process among those that were started together, on this machine and on all."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1


def read_launch() -> Launch | None:
    """Return what the launcher says in the environment of this process; None if there was no launcher."""
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():  # PyTorch's protocol, "env://"
        return None
    try:
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        local_rank = int(os.environ.get("LOCAL_RANK", rank))
        return Launch(rank, size, local_rank, int(os.environ.get("LOCAL_WORLD_SIZE", size)))
    except ValueError:
        return None


def is_follower() -> bool:
    """Whether another process of the same launch is the first, and shows what there is to show."""
    launch = read_launch()
    return launch is not None and launch.rank > 0
