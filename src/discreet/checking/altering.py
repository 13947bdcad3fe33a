"""Changes one unit of any batch: what a coupling waits for may be in none of the units given.

Only tensors with one row per unit are changed; B is the number of units of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from discreet.checking.attributes import same

_NOISE, _LARGE = "noise for its numbers", "numbers a hundred times as large"
_NEXT = tuple(f"whole numbers {i} further" for i in (1, 2, 3))
ALTERATIONS = (_NOISE, _LARGE, *_NEXT)


class Altering:
    """Finds the tensors with one row per unit, and alters rows of them.

    Args:
        batch_fn: The batch of these units; a tree of tensors and other things.
        units: All that there are.
    """

    def __init__(self, batch_fn: Callable[[list[int]], Any], units: Sequence[int]) -> None:
        self._places: dict[int, Tensor] = {}
        whole = pytree.tree_leaves(batch_fn(list(units)))
        alone = [pytree.tree_leaves(batch_fn([unit])) for unit in units]
        for place, leaf in enumerate(whole):
            # An index into the batch, or a box, is no row of a unit though there be as many.
            if (
                isinstance(leaf, Tensor)
                and leaf.dim()
                and len(leaf) == len(units)
                and all(
                    len(one) == len(whole) and same(one[place], leaf[i : i + 1])
                    for i, one in enumerate(alone)
                )
            ):
                self._places[place] = leaf.detach()

    def __call__(self, batch: Any, position: int, alteration: str) -> Any:
        """The batch with one unit altered; the given one stays as it is.

        Args:
            batch: What `batch_fn` gave.
            position: Which unit of it.
            alteration: One of `ALTERATIONS`.
        """
        leaves, spec = pytree.tree_flatten(batch)
        for place, known in self._places.items():
            rows = leaves[place].detach().clone()
            rows[position] = _altered(rows[position], known, alteration)
            leaves[place] = rows
        return pytree.tree_unflatten(leaves, spec)


def _altered(row: Tensor, known: Tensor, alteration: str) -> Tensor:
    """The row; `known` are those of all units."""
    if row.is_floating_point():
        if alteration == _NOISE:
            drawn = torch.randn(row.shape, generator=torch.Generator().manual_seed(6))
            mean, spread = known.double().mean(), known.double().std()
            return (mean + spread * drawn.to(row.device)).to(row.dtype)
        return row * 100 if alteration == _LARGE else row
    if alteration not in _NEXT or row.dtype == torch.bool or row.is_complex():
        return row
    # Within what is known: whole numbers may be classes, or places in a table.
    least, most = known.min(), known.max()
    return least + (row - least + 1 + _NEXT.index(alteration)) % (most - least + 1)
