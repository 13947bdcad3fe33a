"""Which parameters a loss has a gradient for, wherever they are kept."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def parameters_behind(losses: Tensor) -> list[nn.Parameter]:
    """Parameters at the ends of the autograd graph, of any module or of none.

    Args:
        losses: What a loss function gave with gradients enabled.
    """
    todo: list[Any] = [losses.grad_fn]
    seen: set[Any] = {None}
    found: dict[int, nn.Parameter] = {}
    while todo:
        node = todo.pop()
        if node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)  # of an AccumulateGrad node
        if isinstance(leaf, nn.Parameter):
            found[id(leaf)] = leaf
        todo += [before for before, _ in node.next_functions]
    return list(found.values())
