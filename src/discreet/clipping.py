"""Clip each unit's gradient, then sum: the only way a unit reaches the model.

The bound travels with the value: a `ClippedSum` carries the sensitivity of its own sum, and
noise is scaled by that number, never by one computed elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from discreet import _validate
from discreet.randomness import RandomSource, hardened_normal

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

    def end_step(
        self, clipped: ClippedSum, *, expected_batch_size: float, source: RandomSource
    ) -> None:
        """Learn for the next step from a whole step's sum; only what is accounted for.

        Called once a step, after it was charged.

        Args:
            clipped: The sum of the whole step.
            expected_batch_size: Public divisor.
            source: Random streams for noise.
        """
        ...

    def follow(self, sensitivity: float) -> None:
        """Go on as the leader of a team does, who has learnt from the step."""
        ...


class Unchanging:
    """For rules that are the same in every step."""

    def end_step(
        self, clipped: ClippedSum, *, expected_batch_size: float, source: RandomSource
    ) -> None:
        """Nothing is learnt."""
        del clipped, expected_batch_size, source

    def follow(self, sensitivity: float) -> None:
        """There is nothing to follow."""
        del sensitivity


@dataclass(frozen=True, kw_only=True)
class FlatClipping(Unchanging):
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
        norms, finite = norms_of(squared)
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
class AutomaticClipping(Unchanging):
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
        norms, finite = norms_of(squared)
        factors = self.max_grad_norm * (1 - ROUNDING_MARGIN) / (norms + STABILITY)
        factors = torch.where(finite, factors, torch.zeros_like(factors))
        return ClippedSum(
            sums=gradients.weighted_sum(dict.fromkeys(squared, factors)),
            sensitivity=self.sensitivity,
            units=len(norms),
            clipped=int((factors < 1).sum()) - int((~finite).sum()),
            non_finite=int((~finite).sum()),
        )


@dataclass(frozen=True, kw_only=True)
class GroupClipping(Unchanging):
    """A bound for each group of parameters: a layer, or a block of the model.

    With G groups, a unit's gradient g_k of group k becomes g_k · min(1, C_k / ‖g_k‖₂) with
    C_k = C / √G, so that its whole contribution is at most √(Σ C_k²) = C, the max grad norm:
    adding or removing one unit moves the sum by at most C (McMahan et al. 2018, section 3.2).

    Attributes:
        max_grad_norm: C.
        group_of: Parameter name to its group; None takes each layer, the name without its last
            part. Must not depend on data.
    """

    only_shrinks: ClassVar[bool] = True

    max_grad_norm: float
    group_of: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        _validate.positive(max_grad_norm=self.max_grad_norm)

    @property
    def sensitivity(self) -> float:
        """L2 bound on one unit's contribution: the max grad norm."""
        return self.max_grad_norm

    def clip_and_sum(self, gradients: PerExampleGradients) -> ClippedSum:
        """Clip each unit's gradient group by group and sum over units."""
        squared = gradients.squared_norms
        groups: dict[str, dict[str, Tensor]] = {}
        for name, norms in squared.items():
            group = name.rpartition(".")[0] if self.group_of is None else self.group_of[name]
            groups.setdefault(group, {})[name] = norms
        _, finite = norms_of(squared)
        bound = self.max_grad_norm / math.sqrt(len(groups)) * (1 - ROUNDING_MARGIN)
        weights: dict[str, Tensor] = {}
        clipped = torch.zeros_like(finite)
        for members in groups.values():
            norms, _ = norms_of(members)
            over = norms > bound
            factors = torch.where(over, bound / norms.clamp_min(1e-30), torch.ones_like(norms))
            factors = torch.where(finite, factors, torch.zeros_like(factors))
            weights |= dict.fromkeys(members, factors)
            clipped |= over & finite
        return ClippedSum(
            sums=gradients.weighted_sum(weights),
            sensitivity=self.sensitivity,
            units=len(finite),
            clipped=int(clipped.sum()),
            non_finite=int((~finite).sum()),
        )


class AdaptiveClipping:
    """Flat clipping whose bound follows a quantile of the norms (Andrew et al. 2021).

    After each step the share b of units within the bound is published with noise, and the bound
    becomes C · exp(-η (b - γ)): it settles where the share γ of units is within it. A unit adds
    ±1/2 to the count; noise of σ_b on it is what the event `AdaptivelyClippedGaussian` accounts.

    Args:
        max_grad_norm: The bound C of the first step.
        count_noise_multiplier: σ_b, in units.

    Attributes:
        max_grad_norm: The present bound: an output of the mechanism, kept with the weights.
    """

    only_shrinks: ClassVar[bool] = True
    quantile: ClassVar[float] = 0.5
    learning_rate: ClassVar[float] = 0.2

    def __init__(self, *, max_grad_norm: float, count_noise_multiplier: float) -> None:
        _validate.positive(max_grad_norm=max_grad_norm)
        _validate.non_negative(count_noise_multiplier=count_noise_multiplier)
        self.max_grad_norm = max_grad_norm
        self.count_noise_multiplier = count_noise_multiplier

    @property
    def sensitivity(self) -> float:
        """L2 bound on one unit's contribution to the sum in this step."""
        return self.max_grad_norm

    def clip_and_sum(self, gradients: PerExampleGradients) -> ClippedSum:
        """Clip to the present bound and sum over units."""
        return FlatClipping(max_grad_norm=self.max_grad_norm).clip_and_sum(gradients)

    def end_step(
        self, clipped: ClippedSum, *, expected_batch_size: float, source: RandomSource
    ) -> None:
        """Move the bound by the noised count of the step's units within it."""
        over = clipped.clipped + clipped.non_finite
        count = (clipped.units - over) / 2 - over / 2  # +1/2 for each unit within, -1/2 beyond
        count += self.count_noise_multiplier * float(hardened_normal(1, source.stream())[0])
        within = count / expected_batch_size + 0.5
        self.max_grad_norm *= math.exp(-self.learning_rate * (within - self.quantile))

    def follow(self, sensitivity: float) -> None:
        """Take the bound that the leader has moved."""
        self.max_grad_norm = sensitivity


def norms_of(squared: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Norm of each unit's gradient over these parameters, and whether it is finite: (B,), (B,)."""
    total = torch.stack([norms.float() for norms in squared.values()]).sum(0)
    finite = torch.isfinite(total)
    return torch.where(finite, total, torch.zeros_like(total)).sqrt(), finite
