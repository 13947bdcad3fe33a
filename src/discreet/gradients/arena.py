"""Memory for the gradients that a pass keeps, reused by the next.

Kept gradients of a detector are the largest blocks of a pass. Asked of the system anew in each
pass they would cost a page fault every 4 KiB, more than it takes to compute them, and lie between
the blocks that the backward pass frees.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

# Held gradients may take so much of what the forward pass keeps: about what folding saves there.
SHARE = 0.5


@dataclass(frozen=True, kw_only=True)
class Wish:
    """Gradients of a parameter that could be held.

    Attributes:
        entries: P, the parameter's size.
        positions: T; to compute a weighted sum again costs T multiply-adds for each entry held.
    """

    entries: int
    positions: int


class Lease:
    """One pass's part of the arena; its memory goes back when nobody knows the lease any more.

    Args:
        buffer: Flat memory for `length` · U numbers.
        offsets: Where each parameter's gradients begin, per example.
        examples: U.
    """

    def __init__(self, buffer: Tensor, offsets: Mapping[str, int], examples: int) -> None:
        self._buffer, self._offsets, self._examples = buffer, offsets, examples

    def place(self, name: str, entries: int) -> Tensor | None:
        """Memory for a parameter's gradients, (U, P), not initialised; None if they do not fit."""
        if name not in self._offsets:
            return None
        start = self._offsets[name] * self._examples
        flat = self._buffer[start : start + entries * self._examples]
        return flat.view(self._examples, entries)


class Arena:
    """Decides, from one pass to the next, which gradients to hold; keeps memory for them.

    Args:
        device: Where the gradients are.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._free: list[Tensor] = []
        self._offsets: dict[str, int] = {}
        self._length = 0

    def lease(self, examples: int) -> Lease:
        """Memory for a pass over so many examples."""
        needed = self._length * examples
        buffer = self._free.pop() if self._free else None
        if buffer is None or len(buffer) < needed:
            buffer = torch.empty(needed, device=self._device)
        lease = Lease(buffer, self._offsets, examples)
        weakref.finalize(lease, _give_back, self._free, buffer)
        return lease

    def plan(self, wishes: Mapping[str, Wish], *, kept: int, examples: int) -> None:
        """Choose what later passes hold: first what would cost most to compute again.

        Args:
            wishes: By parameter name.
            kept: How many numbers the forward pass kept for the backward pass.
            examples: U of the same pass.
        """
        limit = SHARE * kept / max(examples, 1)
        offsets: dict[str, int] = {}
        length = 0
        for name, wish in sorted(wishes.items(), key=lambda item: -item[1].positions):
            if length + wish.entries <= limit:
                offsets[name] = length
                length += wish.entries
        self._offsets, self._length = offsets, length


def _give_back(free: list[Tensor], buffer: Tensor) -> None:
    free[:] = [buffer]  # one is enough: passes follow each other
