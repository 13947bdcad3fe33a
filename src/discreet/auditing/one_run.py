"""A lower bound on ε from the coins of one run, without any assumption on the mechanism.

Shape legend: m is the number of canaries. Each canary was put among the training records by a
fair coin of its own; its score says how much the auditor believes that it was in.

Every choice that shapes a bound (how many guesses, which threshold) is made before the coins are
looked at, on another half of them, or is paid for by a union bound. A bound that is picked as the
best of many on the same coins is no bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import binom

from discreet.auditing.scores import CONFIDENCE, Bound, CanaryScores, check_question
from discreet.errors import ConfigurationError

_FEWEST_GUESSES = 8
_LARGEST_EPSILON = 50.0


@dataclass(frozen=True, kw_only=True)
class Guessing:
    """A way of guessing coins.

    Attributes:
        number: On how many canaries.
        highest: Guess "in" on the highest scores and nothing on the others, whatever centre the
            scores claim to have: a mechanism that is not what it says does not keep to it, and a
            canary that was never drawn looks like one that is out.
    """

    number: int
    highest: bool = False


def default_guesses(canaries: int) -> tuple[Guessing, ...]:
    """Numbers of guesses to try: all canaries, a quarter, a sixteenth, … of them.

    Depends on the number of canaries only, never on scores or coins.
    """
    numbers = [max(canaries, 1)]
    while numbers[-1] // 4 >= _FEWEST_GUESSES:
        numbers.append(numbers[-1] // 4)
    return tuple(Guessing(number=number) for number in numbers)


def guess_coins(
    scores: NDArray[np.float64], guesses: int, *, centre: float | None = None
) -> NDArray[np.int8]:
    """Guess "in" (1) or "out" (-1) where the scores are surest, and abstain (0) elsewhere.

    Args:
        scores: See `CanaryScores`, (m,).
        guesses: How many canaries to guess on, from 0 to m.
        centre: Scores above are guessed "in", below "out", farthest first. Without it, one half of
            the guesses are the highest scores, the other half the lowest.

    Returns:
        int8 (m,), of which `guesses` are not zero. A function of the scores alone.
    """
    if not 0 <= guesses <= len(scores):
        raise ConfigurationError(
            f"expected guesses from 0 to {len(scores)}, got guesses={guesses}", where="guesses"
        )
    guessed = np.zeros(len(scores), dtype=np.int8)
    if centre is None:
        order = np.argsort(scores, kind="stable")
        low = guesses // 2
        guessed[order[:low]] = -1
        guessed[order[len(order) - (guesses - low) :]] = 1
        return guessed
    surest = np.argsort(-np.abs(scores - centre), kind="stable")[:guesses]
    guessed[surest] = np.where(scores[surest] >= centre, 1, -1)
    return guessed


def one_run_p_value(
    *, epsilon: float, delta: float, canaries: int, guesses: int, correct: int
) -> float:
    """Probability that an (ε, δ)-private mechanism lets an auditor be right so often.

    Steinke, Nasr, Jagielski, "Privacy Auditing with One (1) Training Run" (2023), Theorem 5.2:
    with B ~ Binomial(guesses, e^ε / (1 + e^ε)) and v the number of correct guesses, at most

        P[B >= v] + 2 m δ · max over i of P[v > B >= v - i] / i.

    Args:
        epsilon: ε of the claim to refute.
        delta: δ of the claim.
        canaries: Number m of canaries with a coin, abstentions included.
        guesses: Number of guesses, fixed before the coins were seen.
        correct: How many were right.
    """
    right = float(expit(epsilon))
    at_least = float(binom.sf(correct - 1, guesses, right))
    if delta == 0 or correct == 0:
        return at_least
    window = np.arange(1, correct + 1)
    in_window = binom.sf(correct - 1 - window, guesses, right) - at_least
    return min(1.0, at_least + 2 * canaries * delta * float(np.max(in_window / window)))


def refuted_epsilon(
    *,
    delta: float,
    canaries: int,
    guesses: int,
    correct: int,
    significance: float,
    above: float = 0.0,
) -> float:
    """Largest ε that so many correct guesses refute; 0 if they refute none above `above`.

    Args:
        delta: δ of the claim.
        canaries: See `one_run_p_value`.
        guesses: See `one_run_p_value`.
        correct: See `one_run_p_value`.
        significance: Allowed probability of refuting a true claim.
        above: Only a larger ε is of interest.
    """

    def refuted(epsilon: float) -> bool:
        p_value = one_run_p_value(
            epsilon=epsilon, delta=delta, canaries=canaries, guesses=guesses, correct=correct
        )
        return p_value <= significance

    if guesses == 0 or not refuted(above):
        return 0.0
    low, high = above, _LARGEST_EPSILON
    while high - low > 1e-5:  # the lower end is always refuted: the error is towards 0
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def one_run_bound(
    canaries: CanaryScores,
    *,
    delta: float,
    confidence: float = CONFIDENCE,
    guesses: Sequence[Guessing] | None = None,
) -> Bound:
    """Lower bound on ε from one run with many canaries, whatever ties their scores together.

    Args:
        canaries: Scores and coins.
        delta: δ of the claim.
        confidence: Of the bound.
        guesses: Ways of guessing to try, fixed before the coins were seen; `default_guesses` if
            not given. The allowed error is shared out evenly among them.

    Raises:
        ConfigurationError: An argument is out of range.
    """
    check_question(delta=delta, confidence=confidence)
    tried = _tried(guesses, len(canaries))
    significance = (1 - confidence) / len(tried)
    best = Bound(epsilon=0.0, confidence=confidence, guesses=0, correct=0)
    for way in tried:
        correct = correct_guesses(canaries, way)
        epsilon = refuted_epsilon(
            delta=delta,
            canaries=len(canaries),
            guesses=way.number,
            correct=correct,
            significance=significance,
            above=best.epsilon,
        )
        if epsilon > best.epsilon or best.guesses == 0:
            best = Bound(
                epsilon=epsilon, confidence=confidence, guesses=way.number, correct=correct
            )
    return best


def correct_guesses(canaries: CanaryScores, way: Guessing) -> int:
    """How many guesses of that way are right."""
    if way.highest:
        order = np.argsort(canaries.scores, kind="stable")
        return int(canaries.included[order[len(order) - way.number :]].sum())
    guessed = guess_coins(canaries.scores, way.number, centre=canaries.centre)
    return int((guessed == np.where(canaries.included, 1, -1)).sum())


def reach(
    canaries: int,
    *,
    delta: float,
    confidence: float = CONFIDENCE,
    guesses: Sequence[Guessing] | None = None,
) -> float:
    """The bound if every guess were right: a claim above it cannot be refuted by these canaries."""
    tried = _tried(guesses, canaries)
    return max(
        refuted_epsilon(
            delta=delta,
            canaries=canaries,
            guesses=way.number,
            correct=way.number,
            significance=(1 - confidence) / len(tried),
        )
        for way in tried
    )


def _tried(guesses: Sequence[Guessing] | None, canaries: int) -> tuple[Guessing, ...]:
    tried = tuple(default_guesses(canaries) if guesses is None else guesses)
    if not tried:
        raise ConfigurationError("no way of guessing to try", where="guesses")
    return tried
