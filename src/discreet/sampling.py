"""Poisson sampling: each unit is drawn independently, at a public rate.

Shuffling is another mechanism with a much weaker guarantee; it has no place behind a Poisson
figure. An empty draw is a draw: the step runs on pure noise and is counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from discreet import _validate


class Sampler(Protocol):
    """Draws the units of one step."""

    @property
    def sample_rate(self) -> float:
        """Probability of a unit to be drawn in one step."""
        ...

    def draw(self, stream: np.random.Generator) -> NDArray[np.int64]:
        """Indices of the drawn units, distinct, ascending; maybe none."""
        ...


@dataclass(frozen=True, kw_only=True)
class PoissonSampler:
    """Independent Bernoulli draws, one per unit (Abadi et al. 2016, section 3.1).

    Attributes:
        population: Number of units n.
        sample_rate: Probability q in (0, 1] of each unit in each step. A public constant: set
            from the configuration, never from what was drawn.
    """

    population: int
    sample_rate: float

    def __post_init__(self) -> None:
        _validate.positive_int(population=self.population)
        _validate.sample_rate(self.sample_rate)

    def draw(self, stream: np.random.Generator) -> NDArray[np.int64]:
        """Indices of the drawn units, distinct, ascending; maybe none.

        Compares 64 random bits with floor(q · 2⁶⁴), so the true rate is at most q and within
        2⁻⁶⁴ of it.

        Args:
            stream: A stream used for this draw alone.
        """
        if self.sample_rate == 1:
            return np.arange(self.population, dtype=np.int64)
        threshold = np.uint64(int(Fraction(self.sample_rate) * 2**64))
        bits = stream.integers(0, 2**64, size=self.population, dtype=np.uint64)
        return np.flatnonzero(bits < threshold).astype(np.int64, copy=False)
