"""The whole guarantee in one number or one curve: μ of Gaussian DP, and the trade-off curve.

Both follow from δ(ε) of the privacy loss distributions, taken for both directions of the
neighbouring relation, and are never more optimistic than it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from discreet import _validate
from discreet.accounting import _gaussian, _pld
from discreet.accounting._common import terms_of
from discreet.accounting.events import Event
from discreet.errors import AccountingError, ConfigurationError
from discreet.privacy import NeighboringRelation

_POINTS = 4000
_HALVINGS = 60
# Rounding of the normal distribution function, and of the bisection.
_UPWARDS = 1 + 1e-9
_ROUNDING = 1e-15  # of a logarithm
# Below this δ a trade-off curve has nothing left to show.
_SMALLEST_DELTA = 1e-10

_Floats = NDArray[np.float64]
_ADD_OR_REMOVE = NeighboringRelation.ADD_OR_REMOVE_ONE


@dataclass(frozen=True, kw_only=True)
class GaussianDp:
    """The guarantee as μ-Gaussian DP (Dong, Roth and Su 2022).

    Attributes:
        mu: Smallest μ, rounded up, whose δ(ε) is at or above that of the events wherever the
            latter is at least `delta_floor`.
        delta_floor: Below this δ nothing is claimed of μ.
        regret: How much μ exaggerates: the least κ such that the trade-off curve of the events,
            moved by κ towards the origin along both axes, lies below that of μ (Kaissis et al.
            2024, "Beyond the Calibration Point", Definition 2; recommended in Gomez et al. 2025,
            "Gaussian DP for Reporting Differential Privacy Guarantees in Machine Learning").
            Under 0.01, μ stands for the whole curve.
    """

    mu: float
    delta_floor: float
    regret: float


def gaussian_dp(
    events: Sequence[Event],
    *,
    delta_floor: float,
    relation: NeighboringRelation = _ADD_OR_REMOVE,
) -> GaussianDp:
    """The smallest μ of Gaussian DP that is never below what the events imply.

    Args:
        events: What ran.
        delta_floor: Smallest δ that μ has to answer for; the smaller, the larger μ.
        relation: The neighbouring relation.

    Returns:
        μ = 0 if nothing ran, ∞ if a step had no noise.

    Raises:
        ConfigurationError: If the floor is not strictly between 0 and 1.
        AccountingError: If an event has no accounting, or the floor is below rounding errors.
    """
    _validate.open_unit_interval(delta_floor=delta_floor)
    terms = terms_of(events)
    unamplified = _gaussian.unamplified_mu(terms, relation)
    if not math.isfinite(unamplified * unamplified) or all(term.closed for term in terms):
        return GaussianDp(mu=unamplified, delta_floor=delta_floor, regret=0.0)
    profile, smallest = _profile(terms, relation)
    if smallest > delta_floor / 10:
        raise AccountingError(
            f"rounding errors of {smallest:.1g} are too close to delta_floor={delta_floor:g}",
            where="delta_floor",
            do="use a larger floor, such as 1e-9",
        )
    epsilons = np.linspace(0, _end(profile, delta_floor, unamplified), _POINTS)
    deltas = profile(epsilons)
    # Both curves fall: the δ at the start of an interval, kept up to its end, covers all of it.
    needed = deltas[:-1] >= delta_floor
    mu = 0.0
    if needed.any():
        mus = _mu_for(epsilons[1:][needed], deltas[:-1][needed], unamplified)
        mu = min(float(mus.max()) * _UPWARDS, unamplified)
    excess = (_gaussian_deltas(mu, epsilons) - deltas) / (1 + np.exp(np.minimum(epsilons, 700)))
    return GaussianDp(mu=mu, delta_floor=delta_floor, regret=max(0.0, float(excess.max())))


def trade_off_curve(
    events: Sequence[Event],
    *,
    alphas: Sequence[float],
    relation: NeighboringRelation = _ADD_OR_REMOVE,
) -> tuple[float, ...]:
    """Least false negative rate β that any attack has, for each false positive rate α.

    The largest of the lines 1 − δ(ε) − e^ε α and e^−ε (1 − δ(ε) − α) (Dong, Roth and Su 2022,
    Proposition 2.5), over many ε: convex, the same for both directions of the neighbouring
    relation, and never above the true curve.

    Args:
        events: What ran.
        alphas: False positive rates, each in [0, 1].
        relation: The neighbouring relation.

    Returns:
        One β per α.

    Raises:
        ConfigurationError: If an α is not between 0 and 1.
        AccountingError: If an event has no accounting.
    """
    if any(not 0 <= alpha <= 1 for alpha in alphas):
        raise ConfigurationError("expected alphas between 0 and 1", where="alphas")
    terms = terms_of(events)
    mu = _gaussian.unamplified_mu(terms, relation)
    if not math.isfinite(mu * mu):
        return tuple(0.0 for _ in alphas)
    profile, smallest = _profile(terms, relation)
    epsilons = np.linspace(0, _end(profile, max(_SMALLEST_DELTA, 2 * smallest), mu), _POINTS)
    left = 1 - profile(epsilons)
    steep = np.exp(np.minimum(epsilons, 700))
    return tuple(
        max(
            0.0,
            float(np.max(left - steep * alpha)),
            float(np.max((left - alpha) / steep)),
        )
        for alpha in alphas
    )


def _profile(
    terms: Sequence[_gaussian.GaussianTerm], relation: NeighboringRelation
) -> tuple[Callable[[_Floats], _Floats], float]:
    """δ at each of several ε, an upper bound, and the smallest δ that it can tell."""
    mu = _gaussian.unamplified_mu(terms, relation)
    composed = (
        None
        if all(term.closed for term in terms)
        else _pld.compose(terms, relation=relation, coarse=False)
    )

    def profile(epsilons: _Floats) -> _Floats:
        bound = _gaussian_deltas(mu, epsilons, rounding=_ROUNDING)
        return bound if composed is None else np.minimum(bound, composed.deltas(epsilons))

    return profile, 0.0 if composed is None else composed.slack


def _end(profile: Callable[[_Floats], _Floats], delta: float, mu: float) -> float:
    """An ε, not much too large, from which on δ(ε) is below `delta`."""
    high = _gaussian.gaussian_epsilon(mu, delta=delta)
    for _ in range(4):  # narrows by up to 200 each time
        points = np.linspace(0, high, 200)
        enough = np.flatnonzero(profile(points) < delta)
        if len(enough) == 0 or enough[0] > 100:
            break
        high = float(points[max(1, int(enough[0]))])
    return max(high, 1e-6)


def _mu_for(epsilons: _Floats, deltas: _Floats, largest: float) -> _Floats:
    """The μ whose δ(ε) is the given one at each ε; at most `largest`. Rounded up."""
    low, high = np.zeros_like(epsilons), np.full_like(epsilons, largest)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        enough = _gaussian_deltas(middle, epsilons) >= deltas
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return high


def _gaussian_deltas(mu: float | _Floats, epsilons: _Floats, *, rounding: float = 0.0) -> _Floats:
    """δ(ε) of μ-Gaussian DP for arrays (Balle and Wang 2018, Theorem 8); see `_gaussian`."""
    divisor = np.maximum(mu, 1e-300)
    with np.errstate(all="ignore"):
        upper = special.log_ndtr(divisor / 2 - epsilons / divisor)
        lower = epsilons + special.log_ndtr(-divisor / 2 - epsilons / divisor)
        difference = -np.expm1(np.minimum(0.0, lower - upper))
        difference += rounding * (1 + np.abs(upper) + epsilons)
        deltas = np.exp(upper) * difference
    return np.minimum(1.0, np.nan_to_num(deltas, nan=0.0))
