"""Look-up tables."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from discreet.gradients.records import Held
from discreet.gradients.tape import LayerCall, Tape, as_float, run


class EmbeddingCall(LayerCall):
    """One look-up; indices are (B, …)."""

    def __init__(self, tape: Tape, layer: str, module: nn.Embedding) -> None:
        super().__init__(tape, layer)
        self.weight, self.padding_idx = module.weight, module.padding_idx

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See `LayerCall`."""
        return F.embedding(x, self.weight, self.padding_idx), (x,)

    def backward(self, grad: Tensor, saved: tuple[Tensor, ...], need_input: bool) -> Tensor | None:
        """See `LayerCall`."""
        assert not need_input  # indices have no gradient
        if not self.tape.collects(self.weight):
            return None
        indices = saved[0].flatten(1) if saved[0].dim() > 1 else saved[0][:, None]  # (B, T)
        images, entries, width = len(indices), *self.weight.shape
        rows = as_float(grad).reshape(images * indices.shape[1], width)
        if self.padding_idx is not None:
            padding = (indices.flatten() == self.padding_idx)[:, None]
            rows = rows.masked_fill(padding, 0)
        offsets = torch.arange(images, device=indices.device)[:, None] * entries
        table = rows.new_zeros(images * entries, width)
        table.index_add_(0, (indices + offsets).flatten(), rows)
        self.tape.add(self.weight, Held(table.view(images, entries, width)))
        return None


def embedding(tape: Tape, layer: str, module: nn.Embedding) -> Callable[[Tensor], Tensor]:
    """Replacement of the forward pass of `nn.Embedding`."""

    def forward(input: Tensor) -> Tensor:
        return run(EmbeddingCall(tape, layer, module), input, module.weight)

    return forward
