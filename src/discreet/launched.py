"""Where this process stands among those that a launcher of torch.distributed started.

Light: what prints help or an error needs to know it too.
"""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Place:
    """One process among all.

    Attributes:
        rank: Its number, from 0.
        size: How many there are.
        local_rank: Its number on its host, from 0.
        local_size: How many there are on its host.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    def __str__(self) -> str:
        return f"process {self.rank + 1} of {self.size}"


def place_of_process() -> Place:
    """The place of this process, by the variables that torchrun and its like set."""

    def number(name: str, default: int) -> int:
        text = os.environ.get(name, "")
        return int(text) if text.isdigit() else default

    size = number("WORLD_SIZE", 1)
    if size < 2 or "RANK" not in os.environ:
        return Place()
    rank = number("RANK", 0)
    # A launcher that starts one process a host need not say so.
    local_size = number("LOCAL_WORLD_SIZE", 1)
    return Place(rank=rank, size=size, local_rank=number("LOCAL_RANK", 0), local_size=local_size)
