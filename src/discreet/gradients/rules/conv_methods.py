"""Per-image weight gradients of a convolution, in several ways with one result.

B images, C input and O output channels, K = entries of one filter, T output positions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from discreet.gradients.rules.geometry import Geometry

Gradients = tuple[Tensor, Tensor | None]  # weight (B, *shape), bias (B, O) if asked for
UNFOLD_POSITIONS = 400  # above, the unfolded input is larger than what it saves
GHOST_POSITIONS = 144


def bias_gradient(grad: Tensor) -> Tensor:
    """Per-image gradient of a bias: sum over positions, (B, O)."""
    return grad.flatten(2).sum(2)


def grouped(x: Tensor, grad: Tensor, weight: Tensor, geometry: Geometry, bias: bool) -> Gradients:
    """Images become channel groups of one image, so that the kernel does not sum over them."""
    images = len(x)
    _, by_weight, by_bias = geometry.backward(
        grad.reshape(1, -1, *grad.shape[2:]),
        x.reshape(1, -1, *x.shape[2:]),
        # Only the shape is read.
        weight.new_empty(1).expand(images * weight.shape[0], *weight.shape[1:]),
        groups=images * geometry.groups,
        mask=[False, True, bias],
    )
    return by_weight.view(images, *weight.shape), by_bias.view(images, -1) if bias else None


def loop(x: Tensor, grad: Tensor, weight: Tensor, geometry: Geometry, bias: bool) -> Gradients:
    """The ordinary kernel, image by image."""
    by_weight = weight.new_empty(len(x), *weight.shape)
    for image in range(len(x)):
        one = slice(image, image + 1)
        by_weight[image] = geometry.backward(
            grad[one], x[one], weight, groups=geometry.groups, mask=[False, True, False]
        )[1]
    return by_weight, bias_gradient(grad) if bias else None


def product(x: Tensor, grad: Tensor, weight: Tensor, bias: bool) -> Gradients:
    """A 1×1 convolution is a matrix product at every position."""
    by_weight = torch.bmm(grad.flatten(2), x.flatten(2).transpose(1, 2))  # (B, O, C)
    return by_weight.view(-1, *weight.shape), bias_gradient(grad) if bias else None


def unfold(x: Tensor, grad: Tensor, weight: Tensor, geometry: Geometry, bias: bool) -> Gradients:
    """Columns of patches, then a matrix product; two spatial dimensions."""
    columns = F.unfold(
        x, tuple(weight.shape[2:]), geometry.dilation, geometry.padding, geometry.stride
    )  # (B, C·kernel, T)
    by_group = columns.unflatten(1, (geometry.groups, -1)).flatten(0, 1)  # (B·groups, K, T)
    outputs = grad.flatten(2).unflatten(1, (geometry.groups, -1)).flatten(0, 1)
    by_weight = torch.bmm(outputs, by_group.transpose(1, 2))
    return by_weight.view(-1, *weight.shape), bias_gradient(grad) if bias else None


def held_methods(
    x: Tensor, grad: Tensor, weight: Tensor, geometry: Geometry, *, bias: bool
) -> dict[str, Callable[[], Gradients]]:
    """Methods that fit this layer, the usually fastest first.

    Args:
        x: Input, (B, C, *spatial), of grad's dtype.
        grad: Gradient of the output, (B, O, *spatial).
        weight: For its shape.
        geometry: The convolution.
        bias: Whether the bias's gradient is wanted too.
    """
    methods: dict[str, Callable[[], Gradients]] = {}
    if geometry.pointwise and not geometry.transposed and weight[0, 0].numel() == 1:
        methods["product"] = lambda: product(x, grad, weight, bias)
    methods["grouped"] = lambda: grouped(x, grad, weight, geometry, bias)
    methods["loop"] = lambda: loop(x, grad, weight, geometry, bias)
    positions = grad[0, 0].numel()
    if geometry.dims == 2 and not geometry.transposed and positions <= UNFOLD_POSITIONS:
        methods["unfold"] = lambda: unfold(x, grad, weight, geometry, bias)
    return methods


def ghost_fits(grad: Tensor, weight: Tensor, geometry: Geometry) -> bool:
    """Whether the ghost norm can pay: 2T² below the number of weights (Li et al. 2022)."""
    positions = grad[0, 0].numel()
    return (
        geometry.dims == 2
        and geometry.groups == 1
        and not geometry.transposed
        and positions <= GHOST_POSITIONS
        and 2 * positions**2 < weight.numel()
    )


def ghost_squared_norms(x: Tensor, grad: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """Squared norms of the weight's per-image gradients, without the gradients; float32 (B,).

    ‖Σ_t g_t a_tᵀ‖² = Σ_tu (g_t·g_u)(a_t·a_u), g_t being the output gradient and a_t the input
    patch at position t (Goodfellow 2015, section 4, for one position; Li et al. 2022, section
    4.1, for T). Products of patches are sums of products of pixels, so that no patch is ever
    written out. In float64, because the sum cancels.
    """
    products = _patch_products(x, grad, weight, geometry) * _gram(grad.flatten(2))
    # Rounding may leave a zero norm slightly negative.
    return products.sum((1, 2)).clamp_min(0).float()


def _patch_products(x: Tensor, grad: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """a_t·a_u for all pairs of positions, float64 (B, T, T)."""
    rows, columns = grad.shape[2:]
    pad_rows, pad_columns = geometry.padding
    padded = F.pad(x, (pad_columns, pad_columns, pad_rows, pad_rows))
    height, width = padded.shape[2:]
    pixels = _gram(padded.flatten(2)).view(-1, height, width, height, width)
    total = pixels.new_zeros(len(x), rows, columns, rows, columns)
    for row in range(weight.shape[2]):
        for column in range(weight.shape[3]):
            a = _window(row, rows, geometry.stride[0], geometry.dilation[0])
            b = _window(column, columns, geometry.stride[1], geometry.dilation[1])
            total += pixels[:, a, b, a, b]
    return total.view(len(x), rows * columns, rows * columns)


def _gram(columns: Tensor) -> Tensor:
    """Products of all pairs of columns: (B, C, T) to float64 (B, T, T)."""
    wide = columns.double()
    return torch.bmm(wide.transpose(1, 2), wide)


def _window(offset: int, length: int, stride: int, dilation: int) -> slice:
    start = offset * dilation
    return slice(start, start + stride * (length - 1) + 1, stride)
