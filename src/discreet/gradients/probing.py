"""Find out whether the loss of one image reaches the rows of another.

A probe is a backward pass from some of the losses only; in no layer may a gradient reach the row
of an image whose loss was left out. It sees every path of gradients from one image to another.
It does not see a statistic of the batch that is detached, nor a path whose factor happens to be
zero: the privacy check compares neighbouring batches for that.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterator, Sequence

import torch
from torch import Tensor


def groups(images: int, device: torch.device) -> Iterator[Tensor]:
    """Groups of images such that for each pair (i, j) one group has i and not j.

    Each image is in its own half of the n groups; no two equally large sets contain each other,
    so that n groups are enough for n over n/2 images, and fewer never are (Sperner 1928).

    Args:
        images: B.
        device: Where the masks are to be.

    Yields:
        Whether each image is in the group, bool (B,).
    """
    if images < 2:
        return
    count = next(n for n in itertools.count(2) if math.comb(n, n // 2) >= images)
    member = torch.zeros(count, images, dtype=torch.bool)
    halves = itertools.combinations(range(count), count // 2)
    for image, half in zip(range(images), halves, strict=False):
        member[list(half), image] = True
    yield from member.to(device)


class Probes:
    """Remembers what was probed; one per engine."""

    def __init__(self) -> None:
        self._seen: dict[Hashable, set[Hashable]] = {}

    def due(self, calls: Sequence[str], values: Tensor) -> bool:
        """Whether layers are called, or computed with, in a way that was not probed yet.

        Args:
            calls: Layers in the order of their calls.
            values: The losses, (B,), with their graph.
        """
        seen = self._seen.get((len(values), *calls))
        return seen is None or not _patterns(values) <= seen

    def done(self, calls: Sequence[str], values: Tensor) -> None:
        """This way was probed, and nothing was found."""
        self._seen.setdefault((len(values), *calls), set()).update(_patterns(values))


def _patterns(values: Tensor) -> set[Hashable]:
    """Kinds of operations in the graph, each with those that it takes its inputs from.

    A set, so that loops over as many objects as an image happens to have change nothing.
    """
    seen: set[object] = set()
    found: set[Hashable] = set()
    todo = [values.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        before = [other for other, _ in node.next_functions if other is not None]
        found.add((node.name(), *(other.name() for other in before)))
        todo += before
    return found
