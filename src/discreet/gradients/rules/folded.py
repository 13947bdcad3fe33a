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

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from discreet.gradients.folding import Deferred, deferred, foldable
from discreet.gradients.records import Held, row_products
from discreet.gradients.rules.conv_methods import bias_gradient, ghost_fits, held_methods
from discreet.gradients.rules.conv_record import ConvPass
from discreet.gradients.rules.geometry import Convolution, Geometry, layout_of
from discreet.gradients.selection import alike
from discreet.gradients.tape import LayerCall, Tape, run


def folding_pays(positions: int, weight: Tensor, geometry: Geometry) -> bool:
    """Whether to fold: it saves passes over T outputs a channel, for one over K weights.

    Nor does it where the ghost norm may be faster, which gives no G for γ's gradient.
    """
    return 4 * positions >= weight[0].numel() and not ghost_fits(positions, weight, geometry)


def folded_later(
    tape: Tape, layer: str, conv: Convolution, norm: _BatchNorm, geometry: Geometry, x: Tensor
) -> Deferred:
    """Output of a convolution, which only its BatchNorm may have, normalised.

    Args:
        tape: Where gradients go.
        layer: Dotted name of the convolution.
        conv: The convolution.
        norm: The BatchNorm that is expected next.
        geometry: How the convolution runs.
        x: Its input.
    """

    def versions(x: Tensor) -> list[int]:
        return [t._version for t in (x, conv.weight, conv.bias) if t is not None]

    held, before = [x], versions(x)  # given away once

    def resolve(by: nn.Module | None) -> Tensor:
        if (
            by is not norm
            or not held
            # Both layers would have run as they would now.
            or versions(held[0]) != before
            or not torch.is_grad_enabled()
            or not foldable(held[0], conv.weight, norm.weight, norm.running_mean)
        ):
            raise tape.folding.part(layer, conv)
        call = FoldedCall(tape, layer, conv, norm, geometry)
        return run(call, held.pop(), conv.weight, conv.bias, norm.weight, norm.bias)

    shape = (len(x), len(conv.weight), *geometry.maps(x, conv.weight))
    return deferred(shape, x, resolve, folded=True)


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
        self.layout = layout_of(output)
        return output, (x, folded, weight, scale, centre, rsigma)

    def backward(self, grad: Tensor, saved: tuple[Tensor, ...], need_input: bool) -> Tensor | None:
        """See `LayerCall`."""
        x, folded, weight, scale, centre, rsigma = saved
        x, grad = (t.contiguous(memory_format=self.layout) for t in (x, grad))
        grad_input = self.geometry.input_gradient(grad, x, folded) if need_input else None
        if not self.tape.recording:
            return grad_input
        into = self.tape.place(self.conv.weight, x.dtype)

        def methods(
            x: Tensor, grad: Tensor, into: Tensor | None
        ) -> dict[str, Callable[[], Tensor]]:
            return held_methods(x, grad, weight, self.geometry, into=into)

        key = ("folded", self.geometry, alike(x), weight.shape, x.dtype, self.layout)
        by_weight = self.tape.selection.run(key, methods, x, grad, into, _follow)
        by_bias = bias_gradient(grad)
        again = ConvPass(
            x=x,
            grad=grad,
            weight=weight,
            geometry=self.geometry,
            units=self.tape.units,
            scale=scale.float(),
        )
        self.tape.add(self.conv.weight, Held(by_weight, again.scale), again)
        if self.tape.collects(self.norm.weight):
            product = row_products(by_weight, weight)  # ⟨W, G⟩, (B, O)
            self.tape.add(self.norm.weight, Held((product + centre * by_bias) * rsigma))
        if self.tape.collects(self.norm.bias):
            self.tape.add(self.norm.bias, Held(by_bias))
        if self.conv.bias is not None and self.tape.collects(self.conv.bias):
            self.tape.add(self.conv.bias, Held(by_bias * scale))
        return grad_input


def _follow(by_weight: Tensor) -> None:
    """What follows on a layer's gradients."""
    Held(by_weight).squared_norms()
