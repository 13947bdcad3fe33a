"""A convolution and the frozen BatchNorm behind it, as one convolution.

With s = γ / σ, σ = √(v + eps), and z = W ∗ x + c the convolution's own output,

    y = γ · (z - μ) / σ + β = (s · W) ∗ x + β + s · (c - μ).

Let g be the gradient of y, G = ∂/∂(s · W) the weight gradient of that one convolution and
h = Σ g over positions. Then, per image and output channel,

    ∂W = s · G,    ∂c = s · h,    ∂β = h,
    ∂γ = Σ g · (z - μ) / σ = (⟨W, G⟩ + (c - μ) · h) / σ,

because Σ g · (W ∗ x) = ⟨W, G⟩. So z is never stored, and no pass over it is made.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from discreet.gradients.records import Held
from discreet.gradients.rules.conv_methods import bias_gradient, held_methods
from discreet.gradients.rules.conv_record import hold_or_recompute
from discreet.gradients.rules.geometry import Convolution, Geometry
from discreet.gradients.selection import bucket
from discreet.gradients.tape import LayerCall, Tape


class FoldedCall(LayerCall):
    """One pair; the convolution's weight is wanted."""

    def __init__(
        self, tape: Tape, layer: str, conv: Convolution, norm: _BatchNorm, geometry: Geometry
    ) -> None:
        super().__init__(tape, layer)
        self.conv, self.norm, self.geometry = conv, norm, geometry

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See `LayerCall`."""
        weight, mean, variance = self.conv.weight, self.norm.running_mean, self.norm.running_var
        assert mean is not None and variance is not None
        gamma = cast(Tensor | None, self.norm.weight)  # None without affine
        beta = cast(Tensor | None, self.norm.bias)
        rsigma = torch.rsqrt(variance + self.norm.eps)
        scale = rsigma if gamma is None else gamma * rsigma
        centre = -mean if self.conv.bias is None else self.conv.bias - mean  # c - μ
        folded = weight * scale.view(-1, *[1] * (weight.dim() - 1))
        shift = scale * centre
        if beta is not None:
            shift = shift + beta
        output = self.geometry.apply(x, folded, shift)
        return output, (x, folded, weight, scale, centre, rsigma)

    def backward(self, grad: Tensor, saved: tuple[Tensor, ...], need_input: bool) -> Tensor | None:
        """See `LayerCall`."""
        x, folded, weight, scale, centre, rsigma = saved
        x, grad = x.contiguous(), grad.contiguous()
        grad_input = self.geometry.input_gradient(grad, x, folded) if need_input else None
        methods = held_methods(x, grad, weight, self.geometry, bias=True)
        key = ("folded", self.geometry, bucket(len(x)), x.shape[1:], weight.shape, x.dtype)
        by_weight, by_bias = self.tape.selection.run(key, methods, lambda result: result)
        if by_bias is None:
            by_bias = bias_gradient(grad)
        record = Held(by_weight, scale.float())
        if self.tape.used_once(weight):
            record = hold_or_recompute(
                by_weight, x, grad, weight, self.geometry, scale=scale.float()
            )
        self.tape.add(weight, record)
        if self.tape.wants(self.norm.weight):
            product = (by_weight * weight).flatten(2).sum(2)  # ⟨W, G⟩, (B, O)
            self.tape.add(self.norm.weight, Held((product + centre * by_bias) * rsigma))
        if self.tape.wants(self.norm.bias):
            self.tape.add(self.norm.bias, Held(by_bias))
        if self.conv.bias is not None and self.tape.wants(self.conv.bias):
            self.tape.add(self.conv.bias, Held(by_bias * scale))
        return grad_input
