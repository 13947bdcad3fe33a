"""Convolutions of one to three dimensions, ordinary and transposed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from discreet.errors import UnsupportedLayerError
from discreet.gradients.folding import foldable
from discreet.gradients.records import Held, Record
from discreet.gradients.rules.conv_methods import (
    Gradients,
    bias_gradient,
    ghost_fits,
    ghost_squared_norms,
    held_methods,
)
from discreet.gradients.rules.conv_record import Recomputed, hold_or_recompute
from discreet.gradients.rules.folded import FoldedCall
from discreet.gradients.rules.geometry import Convolution, Geometry, Transposed, explicit_padding
from discreet.gradients.selection import bucket
from discreet.gradients.tape import LayerCall, Tape, as_float, run

Outcome = tuple[Record, Tensor | None]  # weight, and bias (B, O) if wanted
SMALL_MAP = 36  # output positions up to which the ghost norm is tried first


class ConvCall(LayerCall):
    """One convolution."""

    def __init__(
        self, tape: Tape, layer: str, module: Convolution | Transposed, geometry: Geometry
    ) -> None:
        super().__init__(tape, layer)
        self.module, self.geometry = module, geometry
        self.weight, self.bias = module.weight, module.bias

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See `LayerCall`."""
        output = self.geometry.apply(x, self.weight, self.bias)
        # Under autocast the kernel saw x rounded to the output's type.
        return output, (x.to(output.dtype), self.weight)

    def backward(self, grad: Tensor, saved: tuple[Tensor, ...], need_input: bool) -> Tensor | None:
        """See `LayerCall`."""
        x, weight = saved
        x, grad = x.contiguous(), grad.contiguous()  # once, instead of in every kernel below
        grad_input = None
        if need_input:
            grad_input = self.geometry.input_gradient(grad, x, weight.to(grad.dtype))
        x, grad = as_float(x), as_float(grad)
        if self.tape.wants(self.weight):
            self._add_weight(x, grad, weight)
        elif self.bias is not None and self.tape.wants(self.bias):
            self.tape.add(self.bias, Held(bias_gradient(grad)))
        return grad_input

    def _add_weight(self, x: Tensor, grad: Tensor, weight: Tensor) -> None:
        geometry, weight = self.geometry, weight.to(grad.dtype)
        bias = self.bias if self.bias is not None and self.tape.wants(self.bias) else None
        # A layer used twice adds its gradients, for which they must be there.
        once = self.tape.used_once(self.weight)
        methods = held_methods(x, grad, weight, geometry, bias=bias is not None)

        def materialised(method: Callable[[], Gradients]) -> Outcome:
            by_weight, by_bias = method()
            if not once:
                return Held(by_weight), by_bias
            return hold_or_recompute(by_weight, x, grad, weight, geometry), by_bias

        def ghost() -> Outcome:
            squared = ghost_squared_norms(x, grad, weight, geometry)
            record = Recomputed(x, grad, weight, geometry, squared=squared)
            return record, None if bias is None else bias_gradient(grad)

        candidates = {name: partial(materialised, method) for name, method in methods.items()}
        has_ghost = once and ghost_fits(grad, weight, geometry)
        if has_ghost:
            first = grad[0, 0].numel() <= SMALL_MAP
            candidates = {"ghost": ghost} | candidates if first else candidates | {"ghost": ghost}
        weights = torch.ones(len(x), device=x.device)
        key = ("conv", geometry, _shape(x), weight.shape, x.dtype, has_ghost, bias is not None)
        record, by_bias = self.tape.selection.run(
            key,
            candidates,
            lambda outcome: (outcome[0].squared_norms(), outcome[0].weighted_sum(weights)),
        )
        # The ghost norm gives no weight gradients, from which folding takes γ's.
        folds = self.tape.selection.chosen[key] != "ghost"
        self.tape.folding.judge(self.module, _shape(x), worthwhile=folds)
        self.tape.add(self.weight, record)
        if bias is not None and by_bias is not None:
            self.tape.add(bias, Held(by_bias))


def _shape(x: Tensor) -> tuple[int, ...]:
    """Inputs that share one decision."""
    return bucket(len(x)), *x.shape[1:]


def batched(layer: str, x: Tensor, dims: int) -> None:
    """Refuse inputs without a batch dimension.

    Args:
        layer: Dotted name.
        x: The input.
        dims: How many dimensions it has with images in dimension 0.

    Raises:
        UnsupportedLayerError: It has fewer.
    """
    if x.dim() != dims:
        raise UnsupportedLayerError(
            f"input of shape {tuple(x.shape)} has no image dimension",
            where=layer,
            do=f"give it {dims} dimensions, images first",
        )


def convolution(tape: Tape, layer: str, module: Convolution) -> Callable[[Tensor], Tensor]:
    """Replacement of the forward pass of `nn.Conv1d`, `nn.Conv2d` and `nn.Conv3d`."""

    def forward(x: Tensor) -> Tensor:
        batched(layer, x, module.weight.dim())
        x, geometry = explicit_padding(module, x)
        norm = tape.folding.norm_of(module, _shape(x))
        if norm is not None and foldable(x, module.weight, norm.weight, norm.running_mean):
            folded = FoldedCall(tape, layer, module, norm, geometry)
            output = run(folded, x, module.weight, module.bias, norm.weight, norm.bias)
            tape.hand_over(output, norm)
            return output
        output = run(ConvCall(tape, layer, module, geometry), x, module.weight, module.bias)
        if tape.folding.trace is not None:
            tape.folding.trace.produced(module, output)
        return output

    return forward


def transposed(tape: Tape, layer: str, module: Transposed) -> Callable[..., Tensor]:
    """Replacement of the forward pass of the transposed convolutions."""

    def forward(x: Tensor, output_size: list[int] | None = None) -> Tensor:
        batched(layer, x, module.weight.dim())
        padding = module._output_padding(  # pyright: ignore[reportPrivateUsage]
            x,
            output_size,
            list(module.stride),
            list(module.padding),  # pyright: ignore[reportArgumentType]
            list(module.kernel_size),
            x.dim() - 2,
            list(module.dilation),
        )
        geometry = Geometry(
            stride=tuple(module.stride),
            padding=tuple(module.padding),  # pyright: ignore[reportArgumentType]
            dilation=tuple(module.dilation),
            groups=module.groups,
            transposed=True,
            output_padding=tuple(padding),
        )
        return run(ConvCall(tape, layer, module, geometry), x, module.weight, module.bias)

    return forward
