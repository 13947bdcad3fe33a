"""A lower bound on ε from an attack's rates of error, without any assumption on the mechanism.

Shape legend: m is the number of canaries. Each canary was put among the training records by a
fair coin of its own; its score says how much the auditor believes that it was in.

Every choice that shapes a bound (how many guesses, which threshold) is made before the coins are
looked at, on another half of them, or is paid for by a union bound. A bound that is picked as the
best of many on the same coins is no bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta

from discreet.auditing.scores import CONFIDENCE, Bound, CanaryScores, check_question


def clopper_pearson(
    successes: ArrayLike, trials: int, *, significance: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One-sided lower and one-sided upper bounds on binomial proportions.

    Clopper and Pearson, "The use of confidence or fiducial limits" (1934). Each holds with
    probability at least 1 - significance. They are 0 and 1 where there were no trials.
    """
    hits = np.asarray(successes, dtype=np.float64)
    low = beta.ppf(significance, np.maximum(hits, 1), trials - hits + 1)
    high = beta.ppf(1 - significance, hits + 1, np.maximum(trials - hits, 1))
    return np.where(hits > 0, low, 0.0), np.where(hits < trials, high, 1.0)


def halves(
    canaries: CanaryScores, stream: np.random.Generator
) -> tuple[CanaryScores, CanaryScores]:
    """Two disjoint random halves: one to choose on, one to bound on."""
    order = stream.permutation(len(canaries))
    middle = len(order) // 2
    first, second = (
        CanaryScores(
            scores=canaries.scores[part], included=canaries.included[part], centre=canaries.centre
        )
        for part in (order[:middle], order[middle:])
    )
    return first, second


@dataclass(frozen=True, kw_only=True)
class Calls:
    """What tests that call a canary "in" at or above a threshold got; k is their number.

    Attributes:
        in_right: Included canaries at or above, int64 (k,).
        in_wrong: Others at or above, int64 (k,).
        total_in: Number of included canaries.
        total_out: Number of the others.
    """

    in_right: NDArray[np.int64]
    in_wrong: NDArray[np.int64]
    total_in: int
    total_out: int

    @classmethod
    def at(cls, thresholds: NDArray[np.float64], canaries: CanaryScores) -> Self:
        """Count at each threshold, (k,)."""
        inside = np.sort(canaries.scores[canaries.included])
        outside = np.sort(canaries.scores[~canaries.included])
        return cls(
            in_right=len(inside) - np.searchsorted(inside, thresholds).astype(np.int64),
            in_wrong=len(outside) - np.searchsorted(outside, thresholds).astype(np.int64),
            total_in=len(inside),
            total_out=len(outside),
        )

    def reversed(self) -> Calls:
        """The tests that call "out" below the threshold, as if "out" were "in"."""
        return Calls(
            in_right=self.total_out - self.in_wrong,
            in_wrong=self.total_in - self.in_right,
            total_in=self.total_out,
            total_out=self.total_in,
        )

    def epsilons(self, *, delta: float, significance: float) -> NDArray[np.float64]:
        """Lower bound on ε of each test, (k,)."""
        low = clopper_pearson(self.in_right, self.total_in, significance=significance / 2)[0]
        high = clopper_pearson(self.in_wrong, self.total_out, significance=significance / 2)[1]
        return np.maximum(np.log(np.maximum(low - delta, 1e-300) / high), 0.0)


def clopper_pearson_bound(
    canaries: CanaryScores,
    *,
    delta: float,
    confidence: float = CONFIDENCE,
    stream: np.random.Generator,
) -> Bound:
    """Lower bound on ε from true and false positive rates, for independent trials.

    From TPR <= e^ε FPR + δ and the same for negatives (Kairouz, Oh, Viswanath 2015, Theorem 2.1),
    with Clopper-Pearson limits on both rates (Jagielski, Ullman, Oprea 2020). Threshold and side
    are chosen on one half of the canaries; the bound is computed on the other.

    A bound for independent scores: one run per canary. In one run with many canaries scores may
    hang together, and then `one_run_bound` is the one that holds.

    Args:
        canaries: Scores and coins.
        delta: δ of the claim.
        confidence: Of the bound.
        stream: Splits the canaries in halves.

    Raises:
        ConfigurationError: An argument is out of range.
    """
    check_question(delta=delta, confidence=confidence)
    significance = 1 - confidence
    choosing, bounding = halves(canaries, stream)
    thresholds = np.unique(choosing.scores)
    if len(thresholds) == 0:
        return Bound(epsilon=0.0, confidence=confidence, guesses=0, correct=0)
    chosen = Calls.at(thresholds, choosing)
    of_in = chosen.epsilons(delta=delta, significance=significance)
    of_out = chosen.reversed().epsilons(delta=delta, significance=significance)
    says_in = of_in.max() >= of_out.max()
    best = int(np.argmax(of_in if says_in else of_out))
    calls = Calls.at(thresholds[best : best + 1], bounding)
    calls = calls if says_in else calls.reversed()
    return Bound(
        epsilon=float(calls.epsilons(delta=delta, significance=significance)[0]),
        confidence=confidence,
        guesses=int(calls.in_right[0] + calls.in_wrong[0]),
        correct=int(calls.in_right[0]),
    )
