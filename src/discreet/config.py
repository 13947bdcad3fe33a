"""What the guarantee depends on: one frozen configuration, published as it is."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from discreet.accounting import (
    Accountant,
    PoissonSampledGaussian,
    make_accountant,
)
from discreet.clipping import Clipping, FlatClipping
from discreet.noise import GaussianMechanism
from discreet.privacy import NeighboringRelation, PrivacySpent, PrivacyUnit
from discreet.sampling import PoissonSampler


class MechanismConfig(BaseModel):
    """The mechanism of a run. Speed settings live in `PerformanceConfig` and never move ε.

    Attributes:
        population: Number of privacy units n in the training set. Disclosed: it sets q.
        expected_batch_size: Expected units per step, B = q · n; also the normaliser.
        steps: Number of steps T.
        noise_multiplier: Standard deviation of the noise over the sensitivity, σ.
        max_grad_norm: L2 bound C on one unit's contribution.
        delta: δ of the guarantee.
        clipping: Kind of clipping.
        accountant: Which accountant computes ε.
        unit: The privacy unit.
        relation: The neighbouring relation.
        sampling: How units are drawn.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    population: int = Field(ge=1)
    expected_batch_size: int = Field(ge=1)
    steps: int = Field(ge=1)
    noise_multiplier: float = Field(ge=0)
    max_grad_norm: float = Field(gt=0)
    delta: float = Field(gt=0, lt=1)
    clipping: Literal["flat"] = "flat"
    accountant: Literal["pld", "rdp"] = "pld"
    unit: PrivacyUnit = PrivacyUnit.IMAGE
    relation: NeighboringRelation = NeighboringRelation.ADD_OR_REMOVE_ONE
    sampling: Literal["poisson"] = "poisson"

    @model_validator(mode="after")
    def _batch_within_population(self) -> Self:
        if self.expected_batch_size > self.population:
            raise ValueError(
                f"expected batch size {self.expected_batch_size} is more than the "
                f"{self.population} units there are"
            )
        return self

    @property
    def sample_rate(self) -> float:
        """Probability q = B / n of a unit to be drawn in one step."""
        return self.expected_batch_size / self.population

    @property
    def step_event(self) -> PoissonSampledGaussian:
        """The event that one step is."""
        return PoissonSampledGaussian(
            sample_rate=self.sample_rate, noise_multiplier=self.noise_multiplier, steps=1
        )

    def planned_event(self, steps: int | None = None) -> PoissonSampledGaussian:
        """The event of the first `steps` steps, by default of all."""
        return PoissonSampledGaussian(
            sample_rate=self.sample_rate,
            noise_multiplier=self.noise_multiplier,
            steps=self.steps if steps is None else steps,
        )

    def make_accountant(self) -> Accountant:
        """The accountant named in the configuration."""
        return make_accountant(self.accountant, relation=self.relation)

    def make_sampler(self) -> PoissonSampler:
        """The sampler whose event `step_event` is."""
        return PoissonSampler(population=self.population, sample_rate=self.sample_rate)

    def make_clipping(self) -> Clipping:
        """The clipping rule."""
        return FlatClipping(max_grad_norm=self.max_grad_norm)

    def make_mechanism(self) -> GaussianMechanism:
        """The noise."""
        return GaussianMechanism(noise_multiplier=self.noise_multiplier)

    def planned(self) -> PrivacySpent:
        """The guarantee after all steps."""
        epsilon = self.make_accountant().epsilon([self.planned_event()], delta=self.delta)
        return PrivacySpent(epsilon=epsilon, delta=self.delta)


def steps_for(*, epochs: float, population: int, expected_batch_size: int) -> int:
    """Steps of that many expected passes: ceil(epochs · n / B)."""
    return math.ceil(epochs * population / expected_batch_size)
