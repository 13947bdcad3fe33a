"""Who takes part in a step: samplers, each with the event that is true of it.

An empty draw is a draw: the step runs on pure noise and is counted. Shuffling is another
mechanism than Poisson sampling, with a much weaker guarantee: its event says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from discreet import _validate
from discreet.accounting.events import (
    Event,
    PoissonSampledGaussian,
    ShuffledGaussian,
    TruncatedPoissonSampledGaussian,
)


class Sampler(Protocol):
    """Draws the units of one step, and says what mechanism that makes."""

    kind: ClassVar[str]
    """`poisson`, `truncated_poisson` or `shuffle`."""

    @property
    def population(self) -> int:
        """Number of units n that are drawn from."""
        ...

    @property
    def sample_rate(self) -> float:
        """Probability of a unit to be drawn in one step, before any cut."""
        ...

    def draw(self, stream: np.random.Generator) -> NDArray[np.int64]:
        """Indices of the drawn units, distinct, ascending; maybe none."""
        ...

    def event(self, *, noise_multiplier: float, steps: int) -> Event:
        """What `steps` steps on these draws are, with Gaussian noise on their sums."""
        ...


@dataclass(frozen=True, kw_only=True)
class PoissonSampler:
    """Independent Bernoulli draws, one per unit (Abadi et al. 2016, section 3.1).

    Attributes:
        population: Number of units n.
        sample_rate: Probability q in (0, 1] of each unit in each step. A public constant: set
            from the configuration, never from what was drawn.
    """

    kind: ClassVar[str] = "poisson"

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

    def event(self, *, noise_multiplier: float, steps: int) -> PoissonSampledGaussian:
        """Poisson-sampled Gaussian steps."""
        return PoissonSampledGaussian(
            sample_rate=self.sample_rate, noise_multiplier=noise_multiplier, steps=steps
        )


@dataclass(frozen=True, kw_only=True)
class TruncatedPoissonSampler:
    """Poisson draws of which at most a fixed number is kept: a cap on the memory of a step.

    Attributes:
        population: Number of units n.
        sample_rate: Probability q in (0, 1] of each unit, before the cut.
        largest_batch: Most units that are kept; of more, a uniformly random subset.
    """

    kind: ClassVar[str] = "truncated_poisson"

    population: int
    sample_rate: float
    largest_batch: int

    def __post_init__(self) -> None:
        _validate.positive_int(population=self.population, largest_batch=self.largest_batch)
        _validate.sample_rate(self.sample_rate)

    def draw(self, stream: np.random.Generator) -> NDArray[np.int64]:
        """Indices of the kept units, distinct, ascending, at most `largest_batch`; maybe none.

        Args:
            stream: A stream used for this draw alone.
        """
        drawn = PoissonSampler(population=self.population, sample_rate=self.sample_rate).draw(
            stream
        )
        if len(drawn) <= self.largest_batch:
            return drawn
        return np.sort(stream.choice(drawn, self.largest_batch, replace=False, shuffle=False))

    def event(self, *, noise_multiplier: float, steps: int) -> TruncatedPoissonSampledGaussian:
        """Truncated Poisson-sampled Gaussian steps."""
        return TruncatedPoissonSampledGaussian(
            sample_rate=self.sample_rate,
            noise_multiplier=noise_multiplier,
            steps=steps,
            population=self.population,
            largest_batch=self.largest_batch,
        )


class ShuffleSampler:
    """Each epoch deals every unit to one of its batches, independently and uniformly.

    Batches differ in size, as balls in bins do. Dealing batches of one size would tie units
    together: leaving one out would move others, and no bound of this size is known for that.

    What is left of an epoch lives in this object only and is never stored: it would tell who
    is still to come. A new sampler begins a new epoch; whoever broke an epoch off charges the
    event's `rest_of_epoch` first, since a unit may take part in both.

    Args:
        population: Number of units n.
        steps_per_epoch: Number of batches of an epoch.
    """

    kind: ClassVar[str] = "shuffle"

    def __init__(self, *, population: int, steps_per_epoch: int) -> None:
        _validate.positive_int(population=population, steps_per_epoch=steps_per_epoch)
        self._population, self._steps_per_epoch = population, steps_per_epoch
        self._dealt = np.empty(0, dtype=np.int64)
        self._position = 0

    @property
    def population(self) -> int:
        """Number of units n."""
        return self._population

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches of an epoch."""
        return self._steps_per_epoch

    @property
    def sample_rate(self) -> float:
        """Probability of a unit to be in a given batch. It amplifies nothing."""
        return 1 / self._steps_per_epoch

    @property
    def epoch_position(self) -> int:
        """How many batches of the present epoch were handed out; 0 between epochs."""
        return self._position

    def draw(self, stream: np.random.Generator) -> NDArray[np.int64]:
        """Indices of the next batch, distinct, ascending; maybe none.

        Args:
            stream: A stream used for this draw alone. The first draw of an epoch deals.
        """
        if self._position == 0:
            self._dealt = stream.integers(0, self._steps_per_epoch, size=self._population)
        batch = np.flatnonzero(self._dealt == self._position).astype(np.int64, copy=False)
        self._position = (self._position + 1) % self._steps_per_epoch
        return batch

    def event(self, *, noise_multiplier: float, steps: int) -> ShuffledGaussian:
        """Steps on the batches of epochs, from the first of an epoch on."""
        return ShuffledGaussian(
            noise_multiplier=noise_multiplier, steps_per_epoch=self._steps_per_epoch, steps=steps
        )

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("shuffle samplers are never pickled: a copy would tell who is to come")
