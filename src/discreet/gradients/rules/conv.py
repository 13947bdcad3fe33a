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
    bias_gradient,
    ghost_fits,
    ghost_squared_norms,
    held_methods,
)
from discreet.gradients.rules.conv_record import ConvPass, Recomputed
from discreet.gradients.rules.folded import folded_later, folding_pays
from discreet.gradients.rules.geometry import (
    Convolution,
    Geometry,
    Transposed,
    explicit_padding,
    layout_of,
)
from discreet.gradients.selection import alike
from discreet.gradients.tape import LayerCall, Tape, as_float, run

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
        self.layout = layout_of(output)
        # Under autocast the kernel saw x rounded to the output's type.
        return output, (x.to(output.dtype), self.weight)

    def backward(self, grad: Tensor, saved: tuple[Tensor, ...], need_input: bool) -> Tensor | None:
        """See `LayerCall`."""
        x, weight = saved
        # Once, instead of in every kernel below.
        x, grad = (t.contiguous(memory_format=self.layout) for t in (x, grad))
        grad_input = None
        if need_input:
            grad_input = self.geometry.input_gradient(grad, x, weight.to(grad.dtype))
        x, grad = as_float(x), as_float(grad)
        if self.tape.collects(self.weight):
            self._add_weight(x, grad, weight)
        if self.bias is not None and self.tape.collects(self.bias):
            self.tape.add(self.bias, Held(bias_gradient(grad)))
        return grad_input

    def _add_weight(self, x: Tensor, grad: Tensor, weight: Tensor) -> None:
        geometry, units, positions = self.geometry, self.tape.units, grad[0, 0].numel()
        weight = weight.to(grad.dtype)
        # A layer used twice, or a unit of several images, adds gradients, which must be there.
        alone = self.tape.used_once(self.weight) and units is None
        has_ghost = alone and ghost_fits(positions, weight, geometry)

        def candidates(
            x: Tensor, grad: Tensor, into: Tensor | None
        ) -> dict[str, Callable[[], Record]]:
            methods = held_methods(x, grad, weight, geometry, into=into)
            held = {name: partial(_hold, method) for name, method in methods.items()}
            if not has_ghost:
                return held
            ghost = partial(_ghost, x, grad, weight, geometry)
            # The first is taken until something is measured.
            return {"ghost": ghost} | held if positions <= SMALL_MAP else held | {"ghost": ghost}

        key = ("conv", geometry, alike(x), weight.shape, x.dtype, self.layout, has_ghost)
        selection = self.tape.selection
        record = selection.run(
            key, candidates, x, grad, self.tape.place(self.weight, x.dtype), _sum_all
        )
        is_ghost = isinstance(record, Recomputed)
        again = ConvPass(x=x, grad=grad, weight=weight, geometry=geometry, units=units)
        self.tape.add(self.weight, record, None if is_ghost else again)


def _hold(method: Callable[[], Tensor]) -> Record:
    return Held(method())


def _ghost(x: Tensor, grad: Tensor, weight: Tensor, geometry: Geometry) -> Record:
    squared = ghost_squared_norms(x, grad, weight, geometry)
    return ConvPass(x=x, grad=grad, weight=weight, geometry=geometry).record(squared)


def _sum_all(record: Record) -> None:
    """What follows on a layer's gradients: norms, and a weighted sum."""
    record.weighted_sum(torch.ones_like(record.squared_norms()))


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

    def forward(input: Tensor) -> Tensor:
        batched(layer, input, module.weight.dim())
        x, geometry = explicit_padding(module, input)
        norm = tape.folding.norm_of(module)
        if (
            norm is not None
            and tape.wants(module.weight)
            and folding_pays(geometry.positions(x, module.weight), module.weight, geometry)
            and foldable(x, module.weight, norm.weight, norm.running_mean)
            and not x.is_inference()  # nobody could tell whether it changed
        ):
            return folded_later(tape, layer, module, norm, geometry, x)
        output = run(ConvCall(tape, layer, module, geometry), x, module.weight, module.bias)
        return tape.folding.show(module, output) if tape.folding.watching else output

    return forward


def transposed(tape: Tape, layer: str, module: Transposed) -> Callable[..., Tensor]:
    """Replacement of the forward pass of the transposed convolutions."""

    def forward(input: Tensor, output_size: list[int] | None = None) -> Tensor:
        batched(layer, input, module.weight.dim())
        padding = module._output_padding(  # pyright: ignore[reportPrivateUsage]
            input,
            output_size,
            list(module.stride),
            list(module.padding),  # pyright: ignore[reportArgumentType]
            list(module.kernel_size),
            input.dim() - 2,
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
        return run(ConvCall(tape, layer, module, geometry), input, module.weight, module.bias)

    return forward
