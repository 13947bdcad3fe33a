"""The Gaussian mechanism in closed form, and what it says about a list of events.

Composing full-batch Gaussian steps with noise multipliers σᵢ is one Gaussian mechanism with
μ² = Σ 1/σᵢ² (Dong, Roth and Su, "Gaussian Differential Privacy", 2022, Corollary 3.3): exact and
instant. For sampled steps the same μ is an upper bound: the two output distributions of a sampled
step are mixtures, with equal weights, of equal parts and of the Gaussian pair, so no hockey-stick
divergence of theirs exceeds the Gaussian one (joint convexity), and composition keeps that order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import dp_accounting
from dp_accounting.dp_event import DpEvent, TruncatedSubsampledGaussianDpEvent
from scipy import special, stats

from discreet.errors import AccountingError
from discreet.privacy import NeighboringRelation

_TOLERANCE = 1e-12  # relative, of ε
_LOGARITHM_ROUNDING = 1e-15
# Beyond this μ rounding takes over, and a simpler bound is 0.01 % above the exact value.
_HARDLY_ANY_NOISE = 1e4
# Beyond these the numerics cannot tell a setting from no loss at all, or from a full batch.
_MOST_NOISE = 1e9
_LEAST_RATE = 1e-12


@dataclass(frozen=True, kw_only=True)
class Truncation:
    """How often a step is cut down to a largest batch, for a unit that is drawn or kept.

    Neighbours of n units have one fewer or one more, and both are covered: the cut is more
    likely among more units, the unit more likely kept among fewer.

    Attributes:
        probability: That as many of n other units are drawn as a batch holds: one more unit.
        probability_of_fewer: The same of n − 1 other units.
        kept: Probability of the unit to be drawn and kept, given that as many of the n − 1
            others are drawn as a batch holds. At most the sample rate.
    """

    probability: float
    probability_of_fewer: float
    kept: float


@dataclass(frozen=True, kw_only=True)
class GaussianTerm:
    """Equal Gaussian steps, sampled or not: what is left of an event for the numerics.

    Attributes:
        noise_multiplier: σ ≥ 0, relative to the add-or-remove sensitivity.
        sample_rate: q in (0, 1].
        steps: T ≥ 1.
        truncation: How often a step is cut; None where it never is.
    """

    noise_multiplier: float
    sample_rate: float
    steps: int
    truncation: Truncation | None = None

    def sensitivity_factor(self, relation: NeighboringRelation) -> float:
        """How far neighbours move a sum of contributions of norm at most 1.

        Where a batch is cut, one unit may take another's place whatever the relation.
        """
        return sensitivity_factor(relation) if self.truncation is None else 2.0

    @property
    def closed(self) -> bool:
        """Whether the closed form is exact for it: the full batch, never cut."""
        return self.sample_rate == 1 and self.truncation is None

    def to_dp_event(self) -> DpEvent:
        """One of the steps, without the truncation."""
        gaussian = dp_accounting.GaussianDpEvent(self.noise_multiplier)
        if self.sample_rate == 1:
            return gaussian
        return dp_accounting.PoissonSampledDpEvent(self.sample_rate, gaussian)


def gaussian_terms(events: Sequence[DpEvent]) -> tuple[GaussianTerm, ...]:
    """Flatten events into Gaussian terms, equal ones added up (composition commutes).

    Settings beyond what the numerics can tell apart from nothing are moved to their limits, on
    the side of a larger ε.

    Raises:
        AccountingError: For an event that is not built from Gaussian steps.
    """
    steps: dict[tuple[float, float, Truncation | None], int] = {}
    for event in events:
        for sigma, q, truncation, count in _leaves(event, 1):
            key = (min(sigma, _MOST_NOISE), _rate_within_limits(q), truncation)
            steps[key] = steps.get(key, 0) + count
    # In the order they ran, so that what a run and its beginning share comes first.
    return tuple(
        GaussianTerm(noise_multiplier=sigma, sample_rate=q, steps=count, truncation=truncation)
        for (sigma, q, truncation), count in steps.items()
        if count > 0
    )


def _rate_within_limits(sample_rate: float) -> float:
    return 1.0 if sample_rate > 1 - _LEAST_RATE else max(sample_rate, _LEAST_RATE)


def _leaves(event: DpEvent, count: int) -> Iterator[tuple[float, float, Truncation | None, int]]:
    match event:
        case dp_accounting.NoOpDpEvent():
            return
        case dp_accounting.ComposedDpEvent():
            for part in event.events:
                yield from _leaves(part, count)
        case dp_accounting.SelfComposedDpEvent():
            yield from _leaves(event.event, count * event.count)
        case dp_accounting.GaussianDpEvent():
            yield event.noise_multiplier, 1.0, None, count
        case dp_accounting.PoissonSampledDpEvent(event=dp_accounting.GaussianDpEvent() as inner):
            yield inner.noise_multiplier, event.sampling_probability, None, count
        case TruncatedSubsampledGaussianDpEvent():
            q = event.sampling_probability
            yield event.noise_multiplier, q, _truncation(event), count
        case _:
            raise AccountingError(
                f"no accounting for the event {event}",
                do="use Gaussian noise on Poisson samples or on the full batch",
            )


def _truncation(event: TruncatedSubsampledGaussianDpEvent) -> Truncation | None:
    n, largest = event.dataset_size, event.truncated_batch_size
    rate = _rate_within_limits(event.sampling_probability)
    probability = float(stats.binom.sf(largest - 1, n, rate))
    if probability == 0:
        return None
    fewer = float(stats.binom.sf(largest - 1, n - 1, rate))
    # By symmetry each of n units is kept by a cut with probability `largest` / n.
    kept = float(stats.binom.sf(largest, n, rate)) * largest / n / fewer if fewer > 0 else 0.0
    return Truncation(
        probability=probability,
        probability_of_fewer=min(fewer, probability),
        kept=min(kept * (1 + _LEAST_RATE), rate),
    )


def sensitivity_factor(relation: NeighboringRelation) -> float:
    """How far neighbours move a sum of contributions of norm at most 1."""
    return 2.0 if relation is NeighboringRelation.REPLACE_ONE else 1.0


def unamplified_mu(terms: Sequence[GaussianTerm], relation: NeighboringRelation) -> float:
    """The μ of Gaussian DP that holds however units were sampled; ∞ without noise."""
    if any(term.noise_multiplier == 0 for term in terms):
        return math.inf
    # hypot neither overflows nor underflows on the way.
    return math.hypot(
        *(
            term.sensitivity_factor(relation) * math.sqrt(term.steps) / term.noise_multiplier
            for term in terms
        )
    )


def gaussian_epsilon(mu: float, *, delta: float) -> float:
    """ε(δ) of μ-Gaussian DP, rounded up; the inverse of `gaussian_delta`."""
    if mu > _HARDLY_ANY_NOISE:
        # P[loss > ε] ≤ δ is enough, and the loss is normal with mean μ²/2 and variance μ².
        return mu * mu / 2 + mu * math.sqrt(-2 * math.log(delta))
    if gaussian_delta(mu, epsilon=0.0) <= delta:
        return 0.0
    low, high = 0.0, 1.0
    while gaussian_delta(mu, epsilon=high) > delta:
        low, high = high, 2 * high
    while high - low > _TOLERANCE * high:
        middle = (low + high) / 2
        if gaussian_delta(mu, epsilon=middle) > delta:
            low = middle
        else:
            high = middle
    return high


def gaussian_delta(mu: float, *, epsilon: float) -> float:
    """δ(ε) = Φ(μ/2 − ε/μ) − e^ε Φ(−μ/2 − ε/μ) (Balle and Wang 2018, Theorem 8)."""
    if mu == 0:
        return 0.0
    if not math.isfinite(mu):
        return 1.0
    upper = float(special.log_ndtr(mu / 2 - epsilon / mu))
    lower = epsilon + float(special.log_ndtr(-mu / 2 - epsilon / mu))
    # The difference of two close numbers, plus what rounding of their logarithms may have taken.
    difference = -math.expm1(min(0.0, lower - upper))
    rounding = _LOGARITHM_ROUNDING * (1 + abs(upper) + epsilon)
    return min(1.0, math.exp(upper) * (difference + rounding))
