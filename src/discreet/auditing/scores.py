"""What an attack made of its canaries, and what follows from it.

Shape legend: m is the number of canaries. Each canary was put among the training records by a
fair coin of its own; its score says how much the auditor believes that it was in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from discreet import _validate
from discreet.errors import ConfigurationError

CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class CanaryScores:
    """What an attack made of its canaries.

    Attributes:
        scores: How much the auditor believes each canary was in, float64 (m,). Higher is more.
        included: The coins, bool (m,).
        centre: The score at which "in" and "out" are equally likely, where the attack knows it: a
            log-likelihood ratio has 0. None where only the order of scores means something.
    """

    scores: NDArray[np.float64]
    included: NDArray[np.bool_]
    centre: float | None = None

    def __post_init__(self) -> None:
        if self.scores.ndim != 1 or self.scores.shape != self.included.shape:
            raise ConfigurationError(
                f"expected one score and one coin per canary, got {self.scores.shape} scores and "
                f"{self.included.shape} coins",
                where="scores",
            )
        if np.isnan(self.scores).any():
            raise ConfigurationError("a score is not a number", where="scores")

    @classmethod
    def of(cls, scores: ArrayLike, included: ArrayLike, *, centre: float | None = None) -> Self:
        """From anything that numpy reads."""
        return cls(
            scores=np.asarray(scores, dtype=np.float64),
            included=np.asarray(included, dtype=np.bool_),
            centre=centre,
        )

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True, kw_only=True)
class Bound:
    """A lower bound on ε.

    Attributes:
        epsilon: With the stated confidence, the mechanism is not (ε', δ)-private for any smaller
            ε'. 0 where the attack shows nothing.
        confidence: Probability, at least, that the bound is below the true ε.
        guesses: How many canaries it rests on.
        correct: How many of these were guessed right.
    """

    epsilon: float
    confidence: float
    guesses: int
    correct: int


def check_question(*, delta: float, confidence: float) -> None:
    """Refuse what no bound can be given for.

    Raises:
        ConfigurationError: δ or the confidence is out of range.
    """
    _validate.open_unit_interval(confidence=confidence)
    if not 0 <= delta < 1:
        raise ConfigurationError(f"expected delta in [0, 1), got delta={delta!r}", where="delta")
