"""What the guarantee depends on: one frozen configuration, published as it is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from discreet.accounting import (
    Accountant,
    AccountantName,
    AdaptivelyClippedGaussian,
    Event,
    make_accountant,
    merge,
)
from discreet.clipping import (
    AdaptiveClipping,
    AutomaticClipping,
    Clipping,
    FlatClipping,
    GroupClipping,
)
from discreet.noise import GaussianMechanism
from discreet.privacy import NeighboringRelation, PrivacySpent, PrivacyUnit
from discreet.sampling import (
    PoissonSampler,
    Sampler,
    ShuffleSampler,
    TruncatedPoissonSampler,
)

SamplingName = Literal["poisson", "truncated_poisson", "shuffle"]
ClippingName = Literal["flat", "automatic", "per_layer", "per_block", "adaptive"]
NoiseSchedule = Literal["constant", "step", "exponential"]

# Noise on the count of adaptive clipping, over the expected batch (Andrew et al. 2021, section 3).
_COUNT_NOISE = 0.05

# Noise falls in plateaus: as many different mechanisms as the accountant has to compose.
_PLATEAUS: Mapping[NoiseSchedule, int] = {"constant": 1, "step": 4, "exponential": 12}


class MechanismConfig(BaseModel):
    """The mechanism of a run. Speed settings live in `PerformanceConfig` and never move ε.

    Attributes:
        population: Number of privacy units n in the training set. Disclosed: it sets q.
        expected_batch_size: Expected units per step, B = q · n; also the normaliser.
        steps: Number of steps T.
        noise_multiplier: Standard deviation of the noise over the sensitivity, σ, in the first
            step.
        noise_schedule: How σ moves over the run: not at all, in four plateaus, or in up to 12
            (a geometric series either way).
        final_noise: σ of the last plateau over σ of the first.
        max_grad_norm: L2 bound C on one unit's contribution; with adaptive clipping, in the
            first step.
        delta: δ of the guarantee.
        clipping: Kind of clipping.
        accountant: Which accountant computes ε.
        unit: The privacy unit.
        max_images_per_unit: Most images of a drawn unit that a step reads; None where a unit is
            one image.
        relation: The neighbouring relation.
        sampling: How units are drawn.
        largest_batch: Cap on the drawn units of truncated Poisson sampling.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    population: int = Field(ge=1)
    expected_batch_size: int = Field(ge=1)
    steps: int = Field(ge=1)
    noise_multiplier: float = Field(ge=0)
    max_grad_norm: float = Field(gt=0)
    delta: float = Field(gt=0, lt=1)
    clipping: ClippingName = "flat"
    accountant: AccountantName = "pld"
    unit: PrivacyUnit = PrivacyUnit.IMAGE
    max_images_per_unit: int | None = Field(default=None, ge=1)
    relation: NeighboringRelation = NeighboringRelation.ADD_OR_REMOVE_ONE
    sampling: SamplingName = "poisson"
    largest_batch: int | None = Field(default=None, ge=1)
    noise_schedule: NoiseSchedule = "constant"
    final_noise: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _batch_within_population(self) -> Self:
        if self.expected_batch_size > self.population:
            raise ValueError(
                f"expected batch size {self.expected_batch_size} is more than the "
                f"{self.population} units there are"
            )
        return self

    @model_validator(mode="after")
    def _cap_where_it_belongs(self) -> Self:
        if (self.largest_batch is not None) != (self.sampling == "truncated_poisson"):
            raise ValueError("largest_batch belongs to truncated Poisson sampling, and only there")
        return self

    @model_validator(mode="after")
    def _images_of_a_unit_where_it_has_several(self) -> Self:
        if (self.max_images_per_unit is not None) != (self.unit is PrivacyUnit.GROUP):
            raise ValueError("max_images_per_unit belongs to units that are groups, and only there")
        return self

    @model_validator(mode="after")
    def _final_noise_where_it_belongs(self) -> Self:
        if self.noise_schedule == "constant" and self.final_noise != 1:
            raise ValueError("final_noise needs a noise schedule other than constant")
        return self

    @model_validator(mode="after")
    def _adaptive_clipping_where_it_is_accounted(self) -> Self:
        if self.clipping == "adaptive" and self.sampling != "poisson":
            raise ValueError("adaptive clipping is accounted for Poisson sampling only")
        return self

    @property
    def count_noise_multiplier(self) -> float:
        """σ_b of adaptive clipping, in units."""
        return _COUNT_NOISE * self.expected_batch_size

    @property
    def sample_rate(self) -> float:
        """Probability q = B / n of a unit to be drawn in one step."""
        return self.expected_batch_size / self.population

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one expected pass over the data: ceil(n / B)."""
        return math.ceil(self.population / self.expected_batch_size)

    def with_noise(self, noise_multiplier: float) -> Self:
        """The same with another noise multiplier of the first step."""
        return self.model_copy(update={"noise_multiplier": noise_multiplier})

    def noise_multiplier_at(self, step: int) -> float:
        """σ of the `step`-th step, from 1."""
        return self._noise_of_plateau((step - 1) // self._period * self._plateaus // self._periods)

    def step_event(self, step: int) -> Event:
        """The event that the `step`-th step, from 1, is."""
        return self._event(self.noise_multiplier_at(step), steps=1)

    def planned_events(self, steps: int | None = None) -> tuple[Event, ...]:
        """The events of the first `steps` steps, by default of all, in order."""
        end = self.steps if steps is None else min(steps, self.steps)
        bounds = [self._first_step_of(plateau) - 1 for plateau in range(self._plateaus)]
        return merge(
            self._event(self._noise_of_plateau(plateau), steps=min(stop, end) - start)
            for plateau, (start, stop) in enumerate(pairwise([*bounds, self.steps]))
            if start < end
        )

    @property
    def _period(self) -> int:
        # A shuffled epoch is dealt at once, and is one participation: noise moves between epochs.
        return self.steps_per_epoch if self.sampling == "shuffle" else 1

    @property
    def _periods(self) -> int:
        return math.ceil(self.steps / self._period)

    @property
    def _plateaus(self) -> int:
        return min(_PLATEAUS[self.noise_schedule], self._periods)

    def _noise_of_plateau(self, plateau: int) -> float:
        if plateau == 0:
            return self.noise_multiplier
        return self.noise_multiplier * self.final_noise ** (plateau / (self._plateaus - 1))

    def _first_step_of(self, plateau: int) -> int:
        return math.ceil(plateau * self._periods / self._plateaus) * self._period + 1

    def _event(self, noise_multiplier: float, *, steps: int) -> Event:
        if self.clipping == "adaptive":
            event = AdaptivelyClippedGaussian(
                sample_rate=self.sample_rate,
                noise_multiplier=noise_multiplier,
                count_noise_multiplier=self.count_noise_multiplier,
                steps=steps,
            )
            if self.sampling == "poisson":
                return event
            noise_multiplier = event.combined_noise_multiplier  # what other samplings would cost
        return self.make_sampler().event(noise_multiplier=noise_multiplier, steps=steps)

    def make_accountant(self) -> Accountant:
        """The accountant named in the configuration."""
        return make_accountant(self.accountant, relation=self.relation)

    def make_sampler(self) -> Sampler:
        """A sampler at the start of an epoch, whose event `step_event` is."""
        match self.sampling:
            case "poisson":
                return PoissonSampler(population=self.population, sample_rate=self.sample_rate)
            case "truncated_poisson":
                assert self.largest_batch is not None
                return TruncatedPoissonSampler(
                    population=self.population,
                    sample_rate=self.sample_rate,
                    largest_batch=self.largest_batch,
                )
            case "shuffle":
                return ShuffleSampler(
                    population=self.population, steps_per_epoch=self.steps_per_epoch
                )

    def make_clipping(self, blocks: Mapping[str, str] | None = None) -> Clipping:
        """The clipping rule, as it begins.

        Args:
            blocks: Parameter name to block of the model, for clipping per block; only what each
                block gets depends on it, never the sensitivity.
        """
        match self.clipping:
            case "flat":
                return FlatClipping(max_grad_norm=self.max_grad_norm)
            case "automatic":
                return AutomaticClipping(max_grad_norm=self.max_grad_norm)
            case "per_layer":
                return GroupClipping(max_grad_norm=self.max_grad_norm)
            case "per_block":
                return GroupClipping(max_grad_norm=self.max_grad_norm, group_of=blocks or {})
            case "adaptive":
                return AdaptiveClipping(
                    max_grad_norm=self.max_grad_norm,
                    count_noise_multiplier=self.count_noise_multiplier,
                )

    def make_mechanism(self, step: int) -> GaussianMechanism:
        """The noise of the `step`-th step, from 1."""
        return GaussianMechanism(noise_multiplier=self.noise_multiplier_at(step))

    def planned(self) -> PrivacySpent:
        """The guarantee after all steps."""
        epsilon = self.make_accountant().epsilon(self.planned_events(), delta=self.delta)
        return PrivacySpent(epsilon=epsilon, delta=self.delta)


def steps_for(*, epochs: float, population: int, expected_batch_size: int) -> int:
    """Steps of that many expected passes: ceil(epochs · n / B)."""
    return math.ceil(epochs * population / expected_batch_size)
