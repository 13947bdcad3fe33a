"""Privacy loss distributions of Gaussian steps on a grid, always rounded towards more loss.

The numerics are dp-accounting's (Doroshenko et al. 2022, "Connect the Dots"). This module picks
the grid, and turns what floating point can do to the result into a slack on δ, so that ε and δ
stay upper bounds.

The grid is never finer than 1e-4: below, rounding makes mass appear out of nothing (0.7 % of it
at 1e-5). It is coarser where the loss spreads so wide that the finest grid would cost more than
about a second (small noise, ε in the hundreds); a coarser grid stays an upper bound.
"""

from __future__ import annotations

import bisect
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dp_accounting
import numpy as np
from dp_accounting.pld import privacy_loss_distribution
from dp_accounting.pld.pld_pmf import PLDPmf
from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution
from numpy.typing import NDArray

from discreet.accounting._gaussian import GaussianTerm, Truncation, sensitivity_factor
from discreet.errors import AccountingError
from discreet.privacy import NeighboringRelation

FINEST_GRID = 1e-4
# Beyond this the rounding of one step is no longer small against the loss of one step; the
# Gaussian bound takes over, at an ε in the tens of thousands.
COARSEST_GRID = 1.0
# Grid points of one step and of the composition: together about a second on one core.
_STEP_CELLS = 110_000
_TOTAL_CELLS = 1_000_000
# dp-accounting leaves out no more than e^-50 of a step's mass: 10.2 standard deviations.
TAIL_DEVIATIONS = 10.2
# ... and no more than 1e-15 of a composition's: log(2 / 1e-15).
_TAIL_EXPONENT = 35.2
_COARSE_FACTOR = 16
# So many mechanisms of a plan are remembered by their beginnings.
_SHARED_BEGINNING = 64
# Neighbours that differ by a replacement are two contributions apart.
_REPLACED = 2.0
# With less noise a single step is wider than the coarsest grid holds.
_SMALLEST_NOISE = 1e-3

# Mass may appear (harmless: it counts as loss) up to here; the grid is coarsened beyond.
_MASS_EXCESS = 0.05
# Rounding of the FFT, of its T-th power, and of the sums over the grid.
_ROUNDING = 1e-12
_ROUNDING_PER_STEP = 4e-16

_RELATIONS = {
    NeighboringRelation.ADD_OR_REMOVE_ONE: dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE,
    NeighboringRelation.REPLACE_ONE: dp_accounting.NeighboringRelation.REPLACE_ONE,
}
_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ComposedLoss:
    """Privacy loss distribution of all that ran.

    Attributes:
        distribution: On the grid, for both directions of the neighbouring relation.
        slack: Bound on the probability mass that floating point may have lost. Taken off δ
            when ε is asked for, added to δ when δ is.
    """

    distribution: PrivacyLossDistribution
    slack: float

    def epsilon(self, *, delta: float) -> float:
        """Smallest ε on record for δ, at least 0; ∞ where the slack eats all of δ."""
        usable = delta - self.slack
        if usable <= 0:
            return math.inf
        return max(_epsilon_of(pmf, usable) for pmf in _directions(self.distribution))

    def delta(self, *, epsilon: float) -> float:
        """Smallest δ on record for ε, at most 1."""
        return min(1.0, float(self.distribution.get_delta_for_epsilon(epsilon)) + self.slack)

    def deltas(self, epsilons: _Floats) -> _Floats:
        """The same for several ε, ascending."""
        with np.errstate(all="ignore"):
            both = [_deltas_of(pmf, epsilons) for pmf in _directions(self.distribution)]
        found = np.maximum(*both)
        # e^ε may overflow; δ falls, so what holds at a smaller ε holds there.
        falling = np.minimum.accumulate(np.where(np.isfinite(found), found, 1.0))
        return np.minimum(1.0, falling + self.slack)


def _deltas_of(pmf: PLDPmf, epsilons: _Floats) -> _Floats:
    """δ at each ε, ascending, in one direction: the library's own sums, without its loops.

    The mass of larger losses less e^ε times what the other neighbour has there (Doroshenko et al.
    2022, section 2).
    """
    losses, probabilities, infinite = _mass(pmf)
    first = np.searchsorted(losses, epsilons, side="right")
    mine = np.append(probabilities, infinite)
    theirs = np.append(probabilities * np.exp(-losses), 0.0)
    mine, theirs = (np.cumsum(mass[::-1])[::-1] for mass in (mine, theirs))
    return mine[first] - np.exp(epsilons) * theirs[first]


def _epsilon_of(pmf: PLDPmf, delta: float) -> float:
    """Smallest ε ≥ 0 whose δ in one direction is at most the given one.

    Between two losses of the grid δ(ε) is a constant less e^ε times another. The library finds the
    same in a loop over the grid, and overflows where ε is in the hundreds.
    """
    losses, probabilities, infinite = _mass(pmf)
    if infinite > delta:
        return math.inf

    def delta_at(epsilon: float) -> float:
        larger = int(np.searchsorted(losses, epsilon, side="right"))
        shares = -np.expm1(epsilon - losses[larger:])
        return infinite + float(np.dot(shares, probabilities[larger:]))

    if delta_at(0.0) <= delta:
        return 0.0
    points = range(len(losses))  # at the last one, the infinite loss is left
    end = bisect.bisect_left(points, True, key=lambda i: delta_at(max(0.0, losses[i])) <= delta)
    epsilon = float(losses[end])
    mine = infinite + float(probabilities[end:].sum())
    theirs = float(np.dot(probabilities[end:], np.exp(epsilon - losses[end:])))
    if 0 < mine - delta < theirs:  # else rounding errors are all there is between two points
        epsilon += math.log((mine - delta) / theirs)
    return max(0.0, epsilon)


def compose(
    terms: Sequence[GaussianTerm], *, relation: NeighboringRelation, coarse: bool = False
) -> ComposedLoss | None:
    """Compose the terms, at least one, all with noise.

    Args:
        terms: What ran.
        relation: The neighbouring relation.
        coarse: Take a grid that is faster and about 1 % looser.

    Returns:
        The composition; None where no usable grid is affordable (ε in the tens of thousands).

    Raises:
        AccountingError: If mass does not add up on any grid.
    """
    grid = choose_grid(terms, relation=relation, coarse=coarse)
    while grid <= COARSEST_GRID:
        composed = _compose_on(tuple(terms), relation=relation, grid=grid)
        if composed is not None:
            return composed
        grid *= 2
    return None


def choose_grid(
    terms: Sequence[GaussianTerm], *, relation: NeighboringRelation, coarse: bool = False
) -> float:
    """Finest affordable grid: 1e-4 times a power of two; ∞ where there is hardly any noise.

    The costs are estimates. Of one step, from the loss at the end of its tail. Of the
    composition, from the Chernoff bounds by which the library truncates it, with the variance of
    one step's loss at most q² (e^(1/σ²) − 1), its value for small q (four times that where
    neighbours differ by a replacement), and at most q · width². Truncated steps have, with the
    probability of a truncation, the loss of a replacement at half the noise.
    """
    if any(term.noise_multiplier < _SMALLEST_NOISE for term in terms):
        return math.inf
    widest = total = 0.0
    narrowest = math.inf
    for term in terms:
        precision, shift = term.noise_multiplier**-2, sensitivity_factor(relation)
        deviation = term.sample_rate * math.sqrt(math.expm1(min(precision, 700)))
        variance = (shift * deviation) ** 2
        if _is_cut(term):
            shift = 2 * _REPLACED
            cut = term.sample_rate * _REPLACED
            variance += (
                _probability(term.truncation) * cut * cut * math.expm1(min(4 * precision, 700))
            )
        width = TAIL_DEVIATIONS * shift / term.noise_multiplier + shift * shift * precision / 2
        relative_variance = term.steps * min(variance / width**2, term.sample_rate)
        side = min(relative_variance * k / 2 + _TAIL_EXPONENT / k for k in range(1, 21))
        total += 2 * width * side
        widest, narrowest = max(widest, width), min(narrowest, deviation)
    fine = power_of_two(max(widest / _STEP_CELLS, total / _TOTAL_CELLS), round_up=True)
    if not coarse or fine > COARSEST_GRID:
        return fine
    # The grid must resolve one step's loss, or rounding takes over.
    limit = min(_COARSE_FACTOR * fine, COARSEST_GRID, narrowest / 4)
    return max(fine, power_of_two(limit, round_up=False))


def power_of_two(width: float, *, round_up: bool) -> float:
    """The finest grid times the power of two that is next to the width."""
    exponent = math.log2(max(width / FINEST_GRID, 1.0))
    return FINEST_GRID * 2.0 ** (math.ceil(exponent) if round_up else math.floor(exponent))


def _compose_on(
    terms: tuple[GaussianTerm, ...], *, relation: NeighboringRelation, grid: float
) -> ComposedLoss | None:
    return judged(_joined(terms, relation, grid), terms)


def judged(
    distribution: PrivacyLossDistribution, terms: Sequence[GaussianTerm]
) -> ComposedLoss | None:
    """The distribution of the composed terms with its slack; None where its grid is too fine.

    Raises:
        AccountingError: If the mass is not a number.
    """
    excess, lost = 0.0, 0.0
    for _, finite, infinite in map(_mass, _directions(distribution)):
        total = float(finite.sum()) + infinite
        if not math.isfinite(total):
            raise AccountingError(
                "the privacy loss distribution does not add up to a probability",
                do="use accountant=rdp",
            )
        excess = max(excess, total - 1)
        lost = max(lost, max(0.0, 1 - total) - 2 * float(np.minimum(finite, 0).sum()))
    if excess > _MASS_EXCESS:
        return None
    steps = sum(term.steps for term in terms)
    lost += sum(t.steps * _probability(t.truncation) for t in terms if not _is_cut(t))
    return ComposedLoss(distribution, _ROUNDING + _ROUNDING_PER_STEP * steps + lost)


# Asked again with one more step, or one more term, when ε is wanted along the way: all but the
# last term are composed already.
@functools.lru_cache(maxsize=4)
def _joined(
    terms: tuple[GaussianTerm, ...], relation: NeighboringRelation, grid: float
) -> PrivacyLossDistribution:
    if len(terms) > _SHARED_BEGINNING:  # as from a ledger: one after the other
        joined = _joined(terms[:_SHARED_BEGINNING], relation, grid)
        for term in terms[_SHARED_BEGINNING:]:
            joined = joined.compose(_many_steps(term, relation, grid))
        return joined
    last = _many_steps(terms[-1], relation, grid)
    return last if len(terms) == 1 else _joined(terms[:-1], relation, grid).compose(last)


def _many_steps(
    term: GaussianTerm, relation: NeighboringRelation, grid: float
) -> PrivacyLossDistribution:
    sigma, truncation = term.noise_multiplier, term.truncation if _is_cut(term) else None
    if term.closed:
        # Full-batch steps compose to one Gaussian step with less noise.
        return _one_step(sigma / math.sqrt(term.steps), 1.0, None, relation, grid)
    return _one_step(sigma, term.sample_rate, truncation, relation, grid).self_compose(term.steps)


def _is_cut(term: GaussianTerm) -> bool:
    # Rarer truncations than rounding errors are counted as such, with infinite loss.
    return term.steps * _probability(term.truncation) > _ROUNDING


def _probability(truncation: Truncation | None) -> float:
    return 0.0 if truncation is None else truncation.probability


# Pure, and asked again with the same arguments when ε is wanted after each epoch.
@functools.lru_cache(maxsize=40)
def _one_step(
    noise_multiplier: float,
    sample_rate: float,
    truncation: Truncation | None,
    relation: NeighboringRelation,
    grid: float,
) -> PrivacyLossDistribution:
    def gaussian(sigma: float, q: float, by: NeighboringRelation) -> PrivacyLossDistribution:
        # Under REPLACE_ONE the library itself takes neighbours to be two sensitivities apart.
        return privacy_loss_distribution.from_gaussian_mechanism(
            sigma,
            value_discretization_interval=grid,
            sampling_prob=q,
            neighboring_relation=_RELATIONS[by],
        )

    step = gaussian(noise_multiplier, sample_rate, relation)
    if truncation is not None:
        # Where the batch is cut, a unit that is kept takes another's place: neighbours differ by
        # a replacement, two bounds apart (Ganesh et al. 2025, section 4; the library doubles
        # once more, a little loose). The library's own event is about n units and one fewer.
        # One more raises the probability of a cut; that difference is counted with a unit
        # that is always kept, which bounds both.
        replace, cut = NeighboringRelation.REPLACE_ONE, truncation.probability
        always = gaussian(noise_multiplier / 2, sample_rate, replace)
        share = truncation.probability_of_fewer / cut
        if share > 0 and truncation.kept > 0:
            kept = gaussian(noise_multiplier / 2, truncation.kept, replace)
            always = kept.compute_mixture(always, share)
        step = always.compute_mixture(step, cut)
    return dense(step)


def dense(step: PrivacyLossDistribution) -> PrivacyLossDistribution:
    """The same, dense: composing a sparse one T times first works out size ** T exactly."""
    remove, add = (pmf.to_dense_pmf() for pmf in _directions(step))
    return PrivacyLossDistribution(remove, add)


def _directions(distribution: PrivacyLossDistribution) -> tuple[PLDPmf, PLDPmf]:
    # The library has no public view of these; its version is held below the next minor one.
    return distribution._pmf_remove, distribution._pmf_add  # pyright: ignore[reportPrivateUsage]


def _mass(pmf: PLDPmf) -> tuple[_Floats, _Floats, float]:
    """Finite losses, ascending, their probabilities, and that of an infinite one."""
    # The library has no public view of these either.
    dense: Any = pmf.to_dense_pmf()
    probabilities: _Floats = dense._probs
    losses: _Floats = (np.arange(len(probabilities)) + dense._lower_loss) * dense._discretization
    return losses, probabilities, float(dense._infinity_mass)
