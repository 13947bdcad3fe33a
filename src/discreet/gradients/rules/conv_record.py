"""Norms now, and the weighted sum later by one ordinary weight gradient (book-keeping).

Held gradients are the fastest, and take B × P numbers. Input and output gradient of a layer on a
small map take far fewer, and give the weighted sum again at the cost of one ordinary weight
gradient (Bu et al. 2023, book-keeping).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from discreet.gradients.records import Held, Units, scaled
from discreet.gradients.rules.conv_methods import grouped, has_columns, summed_columns
from discreet.gradients.rules.geometry import Geometry


@dataclass(frozen=True, kw_only=True)
class ConvPass:
    """One backward pass through a convolution, of which a weighted sum can be made again.

    Attributes:
        x: Input, (B, C, *spatial).
        grad: Gradient of the output, (B, O, *spatial).
        weight: For its shape.
        geometry: The convolution.
        units: As in `Tape`.
        scale: As in `Held`.
    """

    x: Tensor
    grad: Tensor
    weight: Tensor
    geometry: Geometry
    units: Units | None = None
    scale: Tensor | None = None

    @property
    def positions(self) -> int:
        """See `Reproducible`."""
        return self.grad[0, 0].numel()

    def record(self, squared: Tensor) -> Recomputed:
        """See `Reproducible`."""
        return Recomputed(self, squared)


class Recomputed:
    """A weighted sum that is computed again.

    Args:
        source: The pass through the convolution.
        squared: Squared norm of each example's gradient, scale included, (U,).
    """

    def __init__(self, source: ConvPass, squared: Tensor) -> None:
        self._source, self._squared = source, squared

    def squared_norms(self) -> Tensor:
        """See `Record`."""
        return self._squared

    def weighted_sum(self, weights: Tensor, kept: Tensor | None = None) -> Tensor:
        """See `Record`."""
        source = self._source
        if source.units is not None:
            weights = weights[source.units.index]
            kept = None if kept is None else kept[source.units.index]
        x, grad = source.x, source.grad
        if kept is not None:
            x, grad, weights = x[kept], grad[kept], weights[kept]
        if not len(x):
            return torch.zeros_like(source.weight, dtype=torch.float32)
        weighted = grad * weights.to(grad.dtype).view(-1, *[1] * (grad.dim() - 1))
        if has_columns(source.geometry):
            total = summed_columns(x, weighted, source.weight, source.geometry)
        else:
            mask, groups = [False, True, False], source.geometry.groups
            total = source.geometry.backward(weighted, x, source.weight, groups=groups, mask=mask)[
                1
            ]
        return (total if source.scale is None else scaled(total, source.scale)).float()

    def per_example(self) -> Tensor:
        """See `Record`."""
        s = self._source
        into = s.x.new_empty(len(s.x), s.weight.numel())
        by_weight = grouped(s.x, s.grad, s.weight, s.geometry, into)
        by_image = Held(by_weight, s.scale).per_example()
        return by_image if s.units is None else s.units.sum(by_image)
