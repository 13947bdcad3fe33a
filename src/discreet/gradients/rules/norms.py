"""Normalisations: frozen BatchNorm, GroupNorm, LayerNorm.

PyTorch's fused kernels sum γ's and β's gradients over images. For GroupNorm, images seen as
channels of one single image, with γ and the statistics repeated, make the same kernel leave them
apart; frozen BatchNorm is a factor and a shift per channel, whose gradients are plain sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from discreet.errors import UnsupportedLayerError
from discreet.gradients.folding import Deferred
from discreet.gradients.isolation import refuse_mixing_layer, sound_norm
from discreet.gradients.records import Held
from discreet.gradients.tape import LayerCall, Tape, as_float, run

aten = torch.ops.aten


class _AffineCall(LayerCall):
    """A normalisation with γ (weight) and β (bias)."""

    def __init__(self, tape: Tape, layer: str, weight: Tensor | None, bias: Tensor | None) -> None:
        super().__init__(tape, layer)
        self.weight, self.bias = weight, bias

    def _add(self, by_weight: Tensor | None, by_bias: Tensor | None) -> None:
        if self.weight is not None and by_weight is not None and self.tape.collects(self.weight):
            self.tape.add(self.weight, Held(by_weight))
        if self.bias is not None and by_bias is not None and self.tape.collects(self.bias):
            self.tape.add(self.bias, Held(by_bias))


def _mixed(x: Tensor, weight: Tensor) -> bool:
    """Whether the output's type is for the ordinary operation to say."""
    return (
        torch.is_autocast_enabled(x.device.type) or not x.dtype == weight.dtype == as_float(x).dtype
    )


def _floats(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    return as_float(weight), None if bias is None else as_float(bias)


class BatchNormCall(_AffineCall):
    """Batch normalisation by fixed statistics: y = γ · (x - μ) / √(v + eps) + β."""

    def __init__(self, tape: Tape, layer: str, module: _BatchNorm) -> None:
        super().__init__(tape, layer, module.weight, module.bias)
        self.module = module

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See `LayerCall`."""
        m = self.module
        output = nn.functional.batch_norm(
            x, m.running_mean, m.running_var, m.weight, m.bias, training=False, eps=m.eps
        )
        assert m.running_mean is not None and m.running_var is not None
        return output, (x, m.weight, m.running_mean, m.running_var)

    def backward(self, grad: Tensor, saved: tuple[Tensor, ...], need_input: bool) -> Tensor | None:
        """See `LayerCall`."""
        x, weight, mean, variance = saved
        x, grad = as_float(x), as_float(grad)
        channels = (1, -1, *[1] * (x.dim() - 2))
        inner = tuple(range(2, x.dim()))
        rsigma = torch.rsqrt(as_float(variance) + self.module.eps)
        if self.tape.collects(self.bias):
            self._add(None, grad.sum(inner) if inner else grad)
        if self.tape.collects(self.weight):
            products = (x - as_float(mean).view(channels)).mul_(grad)
            self._add((products.sum(inner) if inner else products) * rsigma, None)
        return grad * (as_float(weight) * rsigma).view(channels) if need_input else None


class GroupNormCall(_AffineCall):
    """Normalisation of each image's channel groups."""

    def __init__(self, tape: Tape, layer: str, module: nn.GroupNorm) -> None:
        super().__init__(tape, layer, module.weight, module.bias)
        self.groups, self.eps = module.num_groups, module.eps

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See `LayerCall`."""
        assert self.weight is not None
        images, channels = x.shape[:2]
        wide = as_float(x).contiguous()
        weight, bias = _floats(self.weight, self.bias)
        output, mean, rstd = aten.native_group_norm(
            wide, weight, bias, images, channels, math.prod(wide.shape[2:]), self.groups, self.eps
        )
        if _mixed(x, self.weight):
            output = nn.functional.group_norm(x, self.groups, self.weight, self.bias, self.eps)
        return output, (wide, weight, mean, rstd)

    def backward(self, grad: Tensor, saved: tuple[Tensor, ...], need_input: bool) -> Tensor | None:
        """See `LayerCall`."""
        x, weight, mean, rstd = saved
        images, channels = x.shape[:2]
        wide = x.reshape(1, images * channels, -1)
        grad_input, by_weight, by_bias = aten.native_group_norm_backward(
            # One image with channels last is reshaped without a copy, and the kernel reads its
            # numbers as if channels came first.
            as_float(grad).reshape(wide.shape).contiguous(),
            wide,
            mean.view(1, -1),
            rstd.view(1, -1),
            weight.repeat(images),
            1,
            images * channels,
            wide.shape[2],
            images * self.groups,
            [need_input, self.tape.recording, self.tape.recording],
        )
        if self.tape.recording:
            self._add(by_weight.view(images, -1), by_bias.view(images, -1))
        return grad_input.view(x.shape) if need_input else None


class LayerNormCall(_AffineCall):
    """Normalisation over the last dimensions."""

    def __init__(self, tape: Tape, layer: str, module: nn.LayerNorm) -> None:
        super().__init__(tape, layer, module.weight, module.bias)
        self.shape, self.eps = list(module.normalized_shape), module.eps

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See `LayerCall`."""
        assert self.weight is not None
        wide = as_float(x).contiguous()
        weight, bias = _floats(self.weight, self.bias)
        output, mean, rstd = torch.native_layer_norm(wide, self.shape, weight, bias, self.eps)
        if _mixed(x, self.weight):
            output = nn.functional.layer_norm(x, self.shape, self.weight, self.bias, self.eps)
        return output, (wide, weight, mean, rstd)

    def backward(self, grad: Tensor, saved: tuple[Tensor, ...], need_input: bool) -> Tensor | None:
        """See `LayerCall`."""
        x, weight, mean, rstd = saved
        grad = as_float(grad).contiguous()
        grad_input = None
        if need_input:
            grad_input = aten.native_layer_norm_backward(
                grad, x, self.shape, mean, rstd, weight, self.bias, [True, False, False]
            )[0]
        rows = (len(x), -1, *self.shape)
        if self.tape.collects(self.weight):
            self._add((grad * ((x - mean) * rstd)).reshape(rows).sum(1), None)
        if self.tape.collects(self.bias):
            self._add(None, grad.reshape(rows).sum(1))
        return grad_input


def batch_norm(tape: Tape, layer: str, module: _BatchNorm) -> Callable[[Tensor], Tensor]:
    """Replacement of the forward pass of batch normalisation in eval mode, trained or not."""
    plain = sound_norm(module)
    wanted = tape.wants(module.weight) or tape.wants(module.bias)

    def forward(input: Tensor) -> Tensor:
        refuse_mixing_layer(layer, module)  # it may have been put in training mode by now
        tape.folding.ran(module)
        if isinstance(input, Deferred):
            folded, input = input.folded, input.resolve(module)
            if folded:
                return input
        if wanted:
            return run(BatchNormCall(tape, layer, module), input, module.weight, module.bias)
        return plain(input)

    return forward


def group_norm(tape: Tape, layer: str, module: nn.GroupNorm) -> Callable[[Tensor], Tensor]:
    """Replacement of the forward pass of `nn.GroupNorm`."""

    def forward(input: Tensor) -> Tensor:
        return run(GroupNormCall(tape, layer, module), input, module.weight, module.bias)

    return forward


def layer_norm(tape: Tape, layer: str, module: nn.LayerNorm) -> Callable[[Tensor], Tensor]:
    """Replacement of the forward pass of `nn.LayerNorm`."""

    def forward(input: Tensor) -> Tensor:
        if input.dim() <= len(module.normalized_shape):
            raise UnsupportedLayerError(
                f"input of shape {tuple(input.shape)} has no image dimension apart from the "
                "normalised ones",
                where=layer,
                do="give it images in dimension 0",
            )
        return run(LayerNormCall(tape, layer, module), input, module.weight, module.bias)

    return forward
