"""Norms now, and the weighted sum later by one ordinary weight gradient (book-keeping).

Writing and reading B × P gradients costs memory traffic; computing the sum again from inputs and
output gradients costs arithmetic in proportion to T, the number of output positions. For few
positions the second is faster, and needs far less memory (Bu et al. 2023, book-keeping).
"""

from __future__ import annotations

import torch
from torch import Tensor

from discreet.gradients.records import Held, Record, dangerous, scaled
from discreet.gradients.rules.conv_methods import grouped
from discreet.gradients.rules.geometry import Geometry

# Arithmetic of T multiply-adds against moving eight bytes: even at about this T on CPUs.
RECOMPUTE_POSITIONS = 128


class Recomputed:
    """What one convolution needs to compute the weighted sum again.

    Args:
        x: Input, (B, C, *spatial).
        grad: Gradient of the output, (B, O, *spatial).
        weight: For its shape.
        geometry: The convolution.
        squared: Squared norm of each image's gradient, scale included, (B,).
        scale: As in `Held`.
    """

    def __init__(
        self,
        x: Tensor,
        grad: Tensor,
        weight: Tensor,
        geometry: Geometry,
        *,
        squared: Tensor,
        scale: Tensor | None = None,
    ) -> None:
        self._x, self._grad, self._weight, self._geometry = x, grad, weight, geometry
        self._squared, self._scale = squared, scale

    def squared_norms(self) -> Tensor:
        """See `Record`."""
        return self._squared

    def weighted_sum(self, weights: Tensor) -> Tensor:
        """See `Record`."""
        x, grad = self._x, self._grad
        if dangerous(weights, self._squared):
            kept = weights != 0
            x, grad, weights = x[kept], grad[kept], weights[kept]
        if not len(x):
            return torch.zeros_like(self._weight, dtype=torch.float32)
        weighted = grad * weights.to(grad.dtype).view(-1, *[1] * (grad.dim() - 1))
        geometry = self._geometry
        _, total, _ = geometry.backward(
            weighted, x, self._weight, groups=geometry.groups, mask=[False, True, False]
        )
        return (total if self._scale is None else scaled(total, self._scale)).float()

    def per_image(self) -> Tensor:
        """See `Record`."""
        by_weight, _ = grouped(self._x, self._grad, self._weight, self._geometry, False)
        return Held(by_weight, self._scale).per_image()


def hold_or_recompute(
    by_weight: Tensor,
    x: Tensor,
    grad: Tensor,
    weight: Tensor,
    geometry: Geometry,
    *,
    scale: Tensor | None = None,
) -> Record:
    """Keep the gradients, or only their norms, whichever is cheaper in the end."""
    held = Held(by_weight, scale)
    if grad[0, 0].numel() > RECOMPUTE_POSITIONS:
        return held
    squared = held.squared_norms()
    return Recomputed(x, grad, weight, geometry, squared=squared, scale=scale)
