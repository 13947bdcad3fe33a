"""Clip each unit's gradient, then sum: the only way a unit reaches the model.

The bound travels with the value: a `ClippedSum` carries the sensitivity of its own sum, and
noise is scaled by that number, never by one computed elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from discreet import _validate

# Norms and factors are float32: computed norms may fall short of the true ones by a few
# roundings. Clipping slightly below the bound keeps the true norm at or under it.
ROUNDING_MARGIN = 2e-6
# γ of automatic clipping: the paper's value, not tuned.
STABILITY = 0.01


class PerExampleGradients(Protocol):
    """Gradients of B units, as an engine holds them; B is the number of rows, maybe 0.

    Implementations live in `discreet.gradients`; the core knows only this interface.
    """

    @property
    def squared_norms(self) -> Mapping[str, Tensor]:
        """Squared L2 norm of each unit's gradient, per parameter: name to float32 (B,)."""
        ...

    def weighted_sum(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Sum over units of weight × gradient, per parameter, in float32.

        Args:
            weights: Name to float32 (B,). A weight of exactly 0 removes that unit's gradient
                even where it is infinite or not a number.

        Returns:
            Name to tensor of the parameter's shape; zeros for B = 0.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class ClippedSum:
    """Sum of clipped gradients of one draw, or of a part of it.

    Attributes:
        sums: Parameter name to float32 tensor of the parameter's shape.
        sensitivity: L2 bound on the change of the sum when one unit is added or removed.
        units: How many units were summed. Private: for the internal log only.
        clipped: How many of them were scaled down. Private.
        non_finite: How many contributed zero because they were not finite. Private.
    """

    sums: Mapping[str, Tensor]
    sensitivity: float
    units: int = 0
    clipped: int = 0
    non_finite: int = 0


class Clipping(Protocol):
    """A clipping rule with a declared L2 sensitivity."""

    only_shrinks: ClassVar[bool]
    """Whether no unit's contribution is ever longer than its gradient."""

    @property
    def sensitivity(self) -> float:
        """L2 bound on one unit's contribution to the sum."""
        ...

    def clip_and_sum(self, gradients: PerExampleGradients) -> ClippedSum:
        """Clip each unit's gradient and sum over units."""
        ...


@dataclass(frozen=True, kw_only=True)
class FlatClipping:
    """One bound on the whole gradient of a unit (Abadi et al. 2016, Algorithm 1).

    A unit's gradient g becomes g · min(1, C / ‖g‖₂), C being `max_grad_norm`. Adding or
    removing one unit moves the sum by at most C. Edge cases: a zero gradient stays zero; a
    gradient that is not finite contributes zero.
    """

    only_shrinks: ClassVar[bool] = True

    max_grad_norm: float

    def __post_init__(self) -> None:
        _validate.positive(max_grad_norm=self.max_grad_norm)

    @property
    def sensitivity(self) -> float:
        """L2 bound on one unit's contribution: the max grad norm."""
        return self.max_grad_norm

    def clip_and_sum(self, gradients: PerExampleGradients) -> ClippedSum:
        """Clip each unit's whole gradient to `max_grad_norm` and sum over units."""
        squared = gradients.squared_norms
        norms, finite = _norms(squared)
        bound = self.max_grad_norm * (1 - ROUNDING_MARGIN)
        factors = torch.where(norms > bound, bound / norms.clamp_min(1e-30), torch.ones_like(norms))
        factors = torch.where(finite, factors, torch.zeros_like(factors))
        return ClippedSum(
            sums=gradients.weighted_sum(dict.fromkeys(squared, factors)),
            sensitivity=self.sensitivity,
            units=len(norms),
            clipped=int((norms > bound).sum()),
            non_finite=int((~finite).sum()),
        )


@dataclass(frozen=True, kw_only=True)
class AutomaticClipping:
    """Every unit's gradient is normalised: no threshold to guess (Bu et al. 2023, AUTO-S).

    A unit's gradient g becomes C · g / (‖g‖₂ + γ), C being `max_grad_norm` and γ `STABILITY`: of
    norm below C, whatever g is. Adding or removing one unit moves the sum by at most C. γ lets a
    unit that has nearly nothing to say stay quiet. Edge cases as in flat clipping.
    """

    only_shrinks: ClassVar[bool] = False

    max_grad_norm: float

    def __post_init__(self) -> None:
        _validate.positive(max_grad_norm=self.max_grad_norm)

    @property
    def sensitivity(self) -> float:
        """L2 bound on one unit's contribution: the max grad norm."""
        return self.max_grad_norm

    def clip_and_sum(self, gradients: PerExampleGradients) -> ClippedSum:
        """Normalise each unit's whole gradient and sum over units."""
        squared = gradients.squared_norms
        norms, finite = _norms(squared)
        factors = self.max_grad_norm * (1 - ROUNDING_MARGIN) / (norms + STABILITY)
        factors = torch.where(finite, factors, torch.zeros_like(factors))
        return ClippedSum(
            sums=gradients.weighted_sum(dict.fromkeys(squared, factors)),
            sensitivity=self.sensitivity,
            units=len(norms),
            clipped=int((factors < 1).sum()) - int((~finite).sum()),
            non_finite=int((~finite).sum()),
        )


def _norms(squared: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Norm of each unit's gradient over these parameters, and whether it is finite: (B,), (B,)."""
    total = torch.stack([norms.float() for norms in squared.values()]).sum(0)
    finite = torch.isfinite(total)
    return torch.where(finite, total, torch.zeros_like(total)).sqrt(), finite
