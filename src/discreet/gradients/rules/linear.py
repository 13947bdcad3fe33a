"""Linear layers, with any dimensions between images and features."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from discreet.gradients.records import Held
from discreet.gradients.tape import LayerCall, Tape, as_float, run


class LinearFactors:
    """Gradients as products of B × T output gradients and inputs, for small T.

    The norm is the ghost norm of `rules.conv_methods.ConvFactors`; T = 1 is Goodfellow's case.

    Args:
        x: (B, T, in_features).
        grad: (B, T, out_features).
    """

    def __init__(self, x: Tensor, grad: Tensor) -> None:
        self._x, self._grad = x, grad
        self._squared: Tensor | None = None

    def squared_norms(self) -> Tensor:
        """See `Record`."""
        if self._squared is None:
            x, grad = self._x.double(), self._grad.double()
            products = torch.bmm(x, x.transpose(1, 2)) * torch.bmm(grad, grad.transpose(1, 2))
            self._squared = products.sum((1, 2)).clamp_min(0).float()
        return self._squared

    def weighted_sum(self, weights: Tensor, kept: Tensor | None = None) -> Tensor:
        """See `Record`."""
        x, grad = self._x, self._grad
        if kept is not None:
            x, grad, weights = x[kept], grad[kept], weights[kept]
        scaled = grad * weights.to(grad.dtype).view(-1, 1, 1)
        return (scaled.flatten(0, 1).t() @ x.flatten(0, 1)).float()

    def per_example(self) -> Tensor:
        """See `Record`."""
        return torch.bmm(self._grad.transpose(1, 2), self._x).float()


class LinearCall(LayerCall):
    """One linear layer."""

    def __init__(self, tape: Tape, layer: str, module: nn.Linear) -> None:
        super().__init__(tape, layer)
        self.weight, self.bias = module.weight, module.bias

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See `LayerCall`."""
        output = F.linear(x, self.weight, self.bias)
        return output, (x.to(output.dtype), self.weight)

    def backward(self, grad: Tensor, saved: tuple[Tensor, ...], need_input: bool) -> Tensor | None:
        """See `LayerCall`."""
        x, weight = saved
        grad_input = grad @ weight.to(grad.dtype) if need_input else None
        rows = as_float(grad).reshape(len(grad), -1, grad.shape[-1])  # (B, T, out)
        if self.tape.collects(self.weight):
            inputs = as_float(x).reshape(len(x), -1, x.shape[-1])  # (B, T, in)
            factors = LinearFactors(inputs, rows)
            small = 2 * rows.shape[1] ** 2 < weight.numel()
            keep = small and self.tape.used_once(self.weight) and self.tape.units is None
            self.tape.add(self.weight, factors if keep else Held(factors.per_example()))
        if self.tape.collects(self.bias):
            self.tape.add(self.bias, Held(rows.sum(1)))
        return grad_input


def linear(tape: Tape, layer: str, module: nn.Linear) -> Callable[[Tensor], Tensor]:
    """Replacement of the forward pass of `nn.Linear`."""

    def forward(input: Tensor) -> Tensor:
        return run(LinearCall(tape, layer, module), input, module.weight, module.bias)

    return forward
