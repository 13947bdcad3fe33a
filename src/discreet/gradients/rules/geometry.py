"""What a convolution does to shapes, apart from its weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_FORWARD: dict[tuple[int, bool], Callable[..., Tensor]] = {
    (1, False): F.conv1d,
    (2, False): F.conv2d,
    (3, False): F.conv3d,
    (1, True): F.conv_transpose1d,
    (2, True): F.conv_transpose2d,
    (3, True): F.conv_transpose3d,
}
Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
Transposed = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Hyperparameters of a convolution over D spatial dimensions, zero padding only."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    transposed: bool = False
    output_padding: tuple[int, ...] = ()

    @property
    def dims(self) -> int:
        """D."""
        return len(self.stride)

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The convolution itself, by the functional that autocast knows."""
        function = _FORWARD[self.dims, self.transposed]
        if self.transposed:
            return function(
                x,
                weight,
                bias,
                self.stride,
                self.padding,
                self.output_padding,
                self.groups,
                self.dilation,
            )
        return function(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def backward(
        self, grad: Tensor, x: Tensor, weight: Tensor, *, groups: int, mask: list[bool]
    ) -> tuple[Any, Any, Any]:
        """Gradients of input, weight and bias, those that `mask` asks for."""
        out_channels = grad.shape[1]
        return torch.ops.aten.convolution_backward(
            grad,
            x,
            weight,
            [out_channels],
            self.stride,
            self.padding,
            self.dilation,
            self.transposed,
            self.output_padding or [0] * self.dims,
            groups,
            mask,
        )

    def input_gradient(self, grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """Gradient of the input by the ordinary kernel."""
        return self.backward(grad, x, weight, groups=self.groups, mask=[True, False, False])[0]

    def maps(self, x: Tensor, weight: Tensor) -> tuple[int, ...]:
        """Sides of the output of an ordinary convolution."""
        sizes = zip(
            x.shape[2:], weight.shape[2:], self.stride, self.padding, self.dilation, strict=True
        )
        return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sizes)

    def positions(self, x: Tensor, weight: Tensor) -> int:
        """T, the number of output positions of an ordinary convolution."""
        return math.prod(self.maps(x, weight))

    @property
    def pointwise(self) -> bool:
        """Whether stride and padding leave every position where it is."""
        return set(self.stride) == {1} and set(self.padding) == {0} and self.groups == 1


def layout_of(output: Tensor) -> torch.memory_format:
    """Layout that the convolution's kernel chose; its backward pass is fastest in the same."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(output.dim())
    if output.is_contiguous() or last is None or not output.is_contiguous(memory_format=last):
        return torch.contiguous_format
    return last


def explicit_padding(module: Convolution, x: Tensor) -> tuple[Tensor, Geometry]:
    """Pad by an ordinary operation what zero padding inside the kernel cannot express.

    Args:
        module: A convolution, not transposed.
        x: Its input, (B, C, *spatial).

    Returns:
        The input, padded if need be, and the geometry of the convolution that remains.
    """
    dilation, kernel = tuple(module.dilation), tuple(module.kernel_size)
    # Left and right padding of each dimension.
    if module.padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        pads = [(t // 2, t - t // 2) for t in total]
    elif module.padding == "valid":
        pads = [(0, 0)] * len(kernel)
    else:
        pads = [(p, p) for p in cast(tuple[int, ...], module.padding)]
    zeros = module.padding_mode == "zeros"
    if not zeros or any(left != right for left, right in pads):
        flat = [p for pair in reversed(pads) for p in pair]  # F.pad starts at the last dimension
        x = F.pad(x, flat, mode="constant" if zeros else module.padding_mode)
        pads = [(0, 0)] * len(kernel)
    return x, Geometry(
        stride=tuple(module.stride),
        padding=tuple(left for left, _ in pads),
        dilation=dilation,
        groups=module.groups,
    )
