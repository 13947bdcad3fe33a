"""Per-image weight gradients of a convolution, in several ways with one result.

B images, C input and O output channels, K = entries of one filter, T output positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from discreet.gradients.rules.geometry import Geometry

COLUMN_ENTRIES = 2_000_000  # patches of so many numbers are made at once
_PARALLEL = 2  # at least so many images at once, since products of images run in parallel
GHOST_POSITIONS = 144


def bias_gradient(grad: Tensor) -> Tensor:
    """Per-image gradient of a bias: sum over positions, (B, O)."""
    return grad.flatten(2).sum(2)


def grouped(x: Tensor, grad: Tensor, weight: Tensor, geometry: Geometry, into: Tensor) -> Tensor:
    """Images become channel groups of one image, so that the kernel does not sum over them.

    Args:
        x: Input, (B, C, *spatial), of grad's dtype.
        grad: Gradient of the output, (B, O, *spatial).
        weight: For its shape.
        geometry: The convolution.
        into: Memory for the result, (B, P).

    Returns:
        Gradients of the weight, (B, *weight.shape), in `into`.
    """
    images = len(x)
    _, by_weight, _ = geometry.backward(
        grad.reshape(1, -1, *grad.shape[2:]),
        x.reshape(1, -1, *x.shape[2:]),
        # Only the shape is read.
        weight.new_empty(1).expand(images * weight.shape[0], *weight.shape[1:]),
        groups=images * geometry.groups,
        mask=[False, True, False],
    )
    return into.view(images, *weight.shape).copy_(by_weight.view(images, *weight.shape))


def loop(x: Tensor, grad: Tensor, weight: Tensor, geometry: Geometry, into: Tensor) -> Tensor:
    """The ordinary kernel, image by image.

    Args:
        x: Input, (B, C, *spatial), of grad's dtype.
        grad: Gradient of the output, (B, O, *spatial).
        weight: For its shape.
        geometry: The convolution.
        into: Memory for the result, (B, P).

    Returns:
        Gradients of the weight, (B, *weight.shape), in `into`.
    """
    by_weight = into.view(len(x), *weight.shape)
    for image in range(len(x)):
        one = slice(image, image + 1)
        by_weight[image] = geometry.backward(
            grad[one], x[one], weight, groups=geometry.groups, mask=[False, True, False]
        )[1]
    return by_weight


def product(x: Tensor, grad: Tensor, weight: Tensor, into: Tensor) -> Tensor:
    """A 1×1 convolution is a matrix product at every position.

    Args:
        x: Input, (B, C, *spatial), of grad's dtype.
        grad: Gradient of the output, (B, O, *spatial).
        weight: For its shape.
        into: Memory for the result, (B, P).

    Returns:
        Gradients of the weight, (B, *weight.shape), in `into`.
    """
    by_weight = into.view(len(x), *weight.shape[:2])  # (B, O, C)
    torch.bmm(grad.flatten(2), x.flatten(2).transpose(1, 2), out=by_weight)
    return by_weight.view(-1, *weight.shape)


def columns(x: Tensor, grad: Tensor, weight: Tensor, geometry: Geometry, into: Tensor) -> Tensor:
    """Patches side by side, then a matrix product per image."""
    outputs, channels, *kernel = weight.shape
    by_output = grad.flatten(2)  # (B, O, T)
    by_weight = into.view(len(x), outputs, -1)
    for some, patches in patches_of(x, grad, weight, geometry):
        torch.bmm(by_output[some], patches, out=by_weight[some])
    return by_weight.view(-1, outputs, *kernel, channels).permute(0, 1, 4, 2, 3)


def summed_columns(x: Tensor, grad: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """Sum of the images' weight gradients by one matrix product; fastest on small maps."""
    outputs, channels, *kernel = weight.shape
    by_position = grad.permute(0, 2, 3, 1).flatten(1, 2)  # (B, T, O)
    total = x.new_zeros(outputs, weight[0].numel())
    for some, patches in patches_of(x, grad, weight, geometry):
        total.addmm_(by_position[some].flatten(0, 1).t(), patches.flatten(0, 1))
    return total.view(outputs, *kernel, channels).permute(0, 3, 1, 2)


def has_columns(geometry: Geometry) -> bool:
    """Whether patches can be put side by side: two dimensions, one group of channels."""
    return geometry.dims == 2 and not geometry.transposed and geometry.groups == 1


def patches_of(
    x: Tensor, grad: Tensor, weight: Tensor, geometry: Geometry
) -> Iterator[tuple[slice, Tensor]]:
    """Input patches (some, T, kernel · C), channels last, of a few images at a time.

    With channels last a row of a patch is one run of memory, and patches are copied at its
    speed; a few images at a time so that their patches stay in cache.
    """
    (images, channels), kernel, maps = x.shape[:2], weight.shape[2:], grad.shape[2:]
    rows, positions = geometry.padding
    padded = F.pad(x, (positions, positions, rows, rows)).permute(0, 2, 3, 1).contiguous()
    image, down, right, _ = padded.stride()
    step, dilation = geometry.stride, geometry.dilation
    windows = padded.as_strided(
        (images, *maps, *kernel, channels),
        (
            image,
            *(down * step[0], right * step[1]),
            *(down * dilation[0], right * dilation[1]),
            1,
        ),
    )
    size = (grad[0, 0].numel(), weight[0].numel())
    together = max(_PARALLEL, COLUMN_ENTRIES // (size[0] * size[1]))
    for start in range(0, images, together):
        some = slice(start, min(start + together, images))
        yield some, windows[some].reshape(-1, *size)


def held_methods(
    x: Tensor, grad: Tensor, weight: Tensor, geometry: Geometry, *, into: Tensor | None = None
) -> dict[str, Callable[[], Tensor]]:
    """Methods that fit this layer, the usually fastest first; each gives (B, *shape).

    Args:
        x: Input, (B, C, *spatial), of grad's dtype.
        grad: Gradient of the output, (B, O, *spatial).
        weight: For its shape.
        geometry: The convolution.
        into: Memory for the result, (B, P).
    """

    def place() -> Tensor:
        return x.new_empty(len(x), weight.numel()) if into is None else into

    methods: dict[str, Callable[[], Tensor]] = {}
    if geometry.pointwise and not geometry.transposed and weight[0, 0].numel() == 1:
        methods["product"] = lambda: product(x, grad, weight, place())
    elif has_columns(geometry):
        methods["columns"] = lambda: columns(x, grad, weight, geometry, place())
    # Its kernel takes channels first: it would copy both tensors.
    if not methods or grad.is_contiguous():
        methods["grouped"] = lambda: grouped(x, grad, weight, geometry, place())
    methods["loop"] = lambda: loop(x, grad, weight, geometry, place())
    return methods


def ghost_fits(positions: int, weight: Tensor, geometry: Geometry) -> bool:
    """Whether the ghost norm can pay: 2T² below the number of weights (Li et al. 2022).

    Args:
        positions: T.
        weight: For its shape.
        geometry: The convolution.
    """
    return (
        has_columns(geometry) and positions <= GHOST_POSITIONS and 2 * positions**2 < weight.numel()
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
