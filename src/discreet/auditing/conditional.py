"""Estimates that hold only if the mechanism is Gaussian: shown apart, never a verdict.

They turn one operating point into a whole trade-off curve by assuming its shape. Where the shape
is another, they may be far above the true ε: on randomised response with ε = 3 (δ = 1e-5, thousands
of canaries) the two below say between 4 and 5.4, and between 17 and 19.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, ndtr, ndtri

from discreet.auditing.one_run import Guessing, correct_guesses, default_guesses
from discreet.auditing.rates import Calls, clopper_pearson, halves
from discreet.auditing.scores import CONFIDENCE, Bound, CanaryScores

_LARGEST_MU = 40.0


def gaussian_epsilon(mu: float, delta: float) -> float:
    """ε at δ of μ-Gaussian differential privacy.

    Dong, Roth, Su, "Gaussian Differential Privacy" (2019), Corollary 2.13.
    """
    if mu <= 0:
        return 0.0

    def exceeds(epsilon: float) -> bool:
        first = log_ndtr(-epsilon / mu + mu / 2)
        second = epsilon + log_ndtr(-epsilon / mu - mu / 2)
        return second < first and first + math.log1p(-math.exp(second - first)) > math.log(delta)

    if not exceeds(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while exceeds(high):
        low, high = high, 2 * high
    while high - low > 1e-7 * max(1.0, high):
        middle = (low + high) / 2
        low, high = (middle, high) if exceeds(middle) else (low, middle)
    return low


def gaussian_rates_estimate(
    canaries: CanaryScores,
    *,
    delta: float,
    confidence: float = CONFIDENCE,
    stream: np.random.Generator,
) -> Bound:
    """Lower bound on ε from one pair of error rates, if the mechanism is Gaussian.

    μ >= Φ⁻¹(1 - FPR) - Φ⁻¹(FNR) with Clopper-Pearson limits on both (Nasr et al., "Tight Auditing
    of Differentially Private Machine Learning", 2023). Threshold chosen on one half of the
    canaries, rates measured on the other.

    Args:
        canaries: Scores and coins.
        delta: δ of the claim, > 0.
        confidence: Of the bound.
        stream: Splits the canaries in halves.
    """
    choosing, bounding = halves(canaries, stream)
    candidates = np.unique(choosing.scores)
    if len(candidates) == 0:
        return Bound(epsilon=0.0, confidence=confidence, guesses=0, correct=0)
    found = _least_mu(Calls.at(candidates, choosing), 1 - confidence)
    best = int(np.argmax(found))
    calls = Calls.at(candidates[best : best + 1], bounding)
    return Bound(
        epsilon=gaussian_epsilon(float(_least_mu(calls, 1 - confidence)[0]), delta),
        confidence=confidence,
        guesses=len(bounding),
        correct=int(calls.in_right[0] + calls.total_out - calls.in_wrong[0]),
    )


def _least_mu(calls: Calls, significance: float) -> NDArray[np.float64]:
    """Lower bound on μ of each test, (k,)."""
    missed = calls.total_in - calls.in_right
    false_in = clopper_pearson(calls.in_wrong, calls.total_out, significance=significance / 2)[1]
    false_out = clopper_pearson(missed, calls.total_in, significance=significance / 2)[1]
    # Both limits at 1 say nothing: -inf, not inf - inf.
    return -ndtri(false_in) - ndtri(np.minimum(false_out, 1 - 1e-12))


def gaussian_one_run_estimate(
    canaries: CanaryScores,
    *,
    delta: float,
    confidence: float = CONFIDENCE,
    guesses: Sequence[Guessing] | None = None,
) -> Bound:
    """Lower bound on ε from one run, if the mechanism is Gaussian.

    Mahloujifar, Melis, Chaudhuri, "Auditing f-Differential Privacy in One Run" (2024, arXiv
    2410.22235), with the trade-off curve of μ-Gaussian differential privacy.

    Args:
        canaries: Scores and coins.
        delta: δ at which the ε of that μ is reported, > 0.
        confidence: Of the bound.
        guesses: See `one_run_bound`.
    """
    tried = tuple(default_guesses(len(canaries)) if guesses is None else guesses)
    significance = (1 - confidence) / len(tried)
    best = Bound(epsilon=0.0, confidence=confidence, guesses=tried[0].number, correct=0)
    for way in tried:
        correct = correct_guesses(canaries, way)
        mu = _refuted_mu(len(canaries), way.number, correct, significance)
        epsilon = gaussian_epsilon(mu, delta)
        if epsilon >= best.epsilon:
            best = Bound(
                epsilon=epsilon, confidence=confidence, guesses=way.number, correct=correct
            )
    return best


def _refuted_mu(canaries: int, guesses: int, correct: int, significance: float) -> float:
    if guesses == 0 or not _refutes(0.0, canaries, guesses, correct, significance):
        return 0.0
    low, high = 0.0, _LARGEST_MU
    while high - low > 1e-5:
        middle = (low + high) / 2
        if _refutes(middle, canaries, guesses, correct, significance):
            low = middle
        else:
            high = middle
    return low


def _refutes(mu: float, canaries: int, guesses: int, correct: int, significance: float) -> bool:
    """Whether so many correct guesses are too many for a μ-Gaussian mechanism.

    Let `right` and `wrong` be the shares of canaries guessed right and wrong, weighted by the
    probability of the tail event at each count. The recursion walks down from the observed count:
    each step's `wrong` is at least what the trade-off curve forces from its `right`. A private
    mechanism cannot have made more guesses than the two of them end at.
    """
    right = significance * correct / canaries
    wrong = significance * (guesses - correct) / canaries
    for count in range(correct - 1, -1, -1):
        forced = max(wrong, float(ndtr(ndtri(right) - mu)))
        if forced == wrong:
            break
        right = min(1.0, right + count / (guesses - count) * (forced - wrong))
        wrong = forced
    return right + wrong > guesses / canaries
