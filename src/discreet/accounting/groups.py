"""What a guarantee for one unit says of several at once."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
from dp_accounting.pld import privacy_loss_distribution
from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution
from scipy import stats

from discreet import _validate
from discreet.accounting import _gaussian, _pld
from discreet.accounting._common import checked, terms_of
from discreet.accounting._gaussian import GaussianTerm
from discreet.accounting.events import Event
from discreet.accounting.pld import PldAccountant
from discreet.privacy import NeighboringRelation

_RELATION = NeighboringRelation.ADD_OR_REMOVE_ONE
_TOLERANCE = 1e-3
# The grid follows the width of a group's loss: a table is for reading, not for calibration.
# Rounding adds up over steps, so that many steps need more cells; few steps at a high sample
# rate make the library search for each cell at length, minutes in all with the most of them.
_FEWEST_CELLS, _MOST_CELLS, _CELLS_PER_STEP = 1_000, 30_000, 6
# A probability that is counted as failure; and the most Gaussians that a mixture is made of.
_NEVER = 1e-13
_MOST_PARTS = 100


def group_epsilon(events: Sequence[Event], *, size: int, delta: float) -> float:
    """ε of a whole group that is added or removed: all images of one patient, say.

    Three bounds, of which the smallest holds:

    - Poisson samples: the group moves a step's sum by at most the number of its members drawn,
      which is binomial. The step is a mixture of Gaussians with these weights (Ganesh 2024,
      "Tight Group-Level DP Guarantees for DP-SGD with Sampling via Mixture of Gaussians
      Mechanisms", Theorem 3.1).
    - However units are sampled, the group moves a step's sum by at most `size` times what one
      unit moves it: the Gaussian mechanism with that sensitivity. For the full batch and for
      shuffled epochs this is all there is.
    - Whatever the mechanism, (ε, δ′) for one unit is (kε, δ) for k, with
      δ = δ′ (e^(kε) − 1) / (e^ε − 1) (Vadhan 2017, "The Complexity of Differential Privacy",
      Lemma 2.2).

    Args:
        events: What ran.
        size: Number k of units in the group, at least 1.
        delta: δ of the guarantee for the group.

    Returns:
        An upper bound by privacy loss distributions; never below that of one unit, ∞ if a step
        had no noise.

    Raises:
        ConfigurationError: If an argument is out of range.
        AccountingError: If an event has no accounting.
    """
    _validate.open_unit_interval(delta=delta)
    _validate.positive_int(size=size)
    one = PldAccountant()
    alone = one.epsilon(events, delta=delta)
    if size == 1 or not terms_of(events):
        return alone
    terms = terms_of(events)
    mu = size * _gaussian.unamplified_mu(terms, _RELATION)
    if not math.isfinite(mu * mu):
        return math.inf
    bound = _gaussian.gaussian_epsilon(mu, delta=delta)
    if all(term.truncation is None for term in terms):
        if not all(term.closed for term in terms):
            bound = min(bound, _mixture_epsilon(terms, size=size, delta=delta))
    else:
        bound = min(bound, _converted(events, size=size, delta=delta))
    return checked(max(bound, alone))


def _mixture_epsilon(terms: Sequence[GaussianTerm], *, size: int, delta: float) -> float:
    if any(high - low > _MOST_PARTS for low, high in (_members_drawn(t, size=size) for t in terms)):
        return math.inf
    # More members drawn than are looked at: that likely, δ does not hold; and given that they
    # are not, the odds against them shift ε by as much.
    missed = 2 * _NEVER * len(terms)
    widest = max(
        _pld.TAIL_DEVIATIONS * size / t.noise_multiplier + (size / t.noise_multiplier) ** 2 / 2
        for t in terms
    )
    steps = sum(term.steps for term in terms)
    cells = min(max(_FEWEST_CELLS, _CELLS_PER_STEP * steps), _MOST_CELLS)
    grid = _pld.power_of_two(16 * max(_pld.FINEST_GRID, widest / 16 / cells), round_up=True)
    while grid <= _pld.COARSEST_GRID:
        parts = [_mixture_steps(term, size=size, grid=grid) for term in terms]
        distribution = functools.reduce(PrivacyLossDistribution.compose, parts)
        composed = _pld.judged(distribution, terms)
        if composed is not None:
            return composed.epsilon(delta=delta - missed) + missed if delta > missed else math.inf
        grid *= 2
    return math.inf


def _members_drawn(term: GaussianTerm, *, size: int) -> tuple[int, int]:
    """Fewest and most members of a group that a step draws, but for `_NEVER` over all steps."""
    rarely = _NEVER / term.steps
    low = int(stats.binom.ppf(rarely, size, term.sample_rate))
    high = min(size, int(stats.binom.isf(rarely, size, term.sample_rate)) + 1)
    return max(0, low), high


def _mixture_steps(term: GaussianTerm, *, size: int, grid: float) -> PrivacyLossDistribution:
    """All steps of a term, for a group: k members drawn move the sum by k."""
    if term.sample_rate == 1:
        sigma = term.noise_multiplier / math.sqrt(term.steps) / size
        step = privacy_loss_distribution.from_gaussian_mechanism(
            sigma, value_discretization_interval=grid
        )
        return _pld.dense(step)
    low, high = _members_drawn(term, size=size)
    drawn = np.arange(low, high + 1)
    weights = stats.binom.pmf(drawn, size, term.sample_rate)
    # A larger shift bounds a smaller one: the few that are left out below move up.
    weights[0] += max(0.0, float(stats.binom.cdf(low - 1, size, term.sample_rate)))
    weights /= weights.sum()
    step = privacy_loss_distribution.from_mixture_gaussian_mechanism(
        term.noise_multiplier,
        sensitivities=drawn.astype(float).tolist(),
        sampling_probs=weights.tolist(),
        value_discretization_interval=grid,
    )
    return _pld.dense(step).self_compose(term.steps)


def _converted(events: Sequence[Event], *, size: int, delta: float) -> float:
    """The least k ε over the base δ that the conversion allows."""
    accountant = PldAccountant().coarse()

    def group_delta(epsilon: float) -> float:
        """δ of the group at k · ε."""
        base = accountant.delta(events, epsilon=epsilon)
        if base <= 0:
            return 0.0
        if epsilon == 0:
            return min(1.0, size * base)
        # (e^(kε) − 1) / (e^ε − 1), as a logarithm, so that it does not overflow.
        growth = (size - 1) * epsilon + math.log(
            -math.expm1(-size * epsilon) / -math.expm1(-epsilon)
        )
        logarithm = math.log(base) + growth
        return 1.0 if logarithm > 0 else math.exp(logarithm)

    low, high = 0.0, 1.0
    while group_delta(high) > delta:
        low, high = high, 2 * high
        if high > 500:
            return math.inf
    while high - low > _TOLERANCE * high:
        middle = (low + high) / 2
        low, high = (low, middle) if group_delta(middle) <= delta else (middle, high)
    return size * high
