"""How the units of a step were drawn, and what was done to their gradients."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from discreet.config import ClippingName, NoiseSchedule, SamplingName
from discreet.statement.part import (
    Count,
    CountFromOne,
    NonNegative,
    Part,
    Positive,
    Words,
)


class Mechanism(Part):
    """What was done to each step's sum of gradients."""

    name: Literal["DP-SGD"]
    noise: Literal["gaussian"]
    clipping: ClippingName
    """flat: one L2 bound on the whole gradient of a unit; automatic: every unit's whole gradient
    normalised to that bound; per_layer, per_block: a bound for each part, of which C is the L2
    norm; adaptive: flat, the bound following a noised quantile that the events account for."""
    max_grad_norm: Positive
    """Clip norm C."""
    sensitivity: Positive
    """L2 bound on the change of the sum when one unit is added or removed."""
    noise_multiplier: NonNegative
    """σ, of the first step."""
    noise_schedule: NoiseSchedule
    """How σ moves from the first step to the last."""
    final_noise: Positive
    """σ of the schedule's last part over σ of its first."""
    noise_multiplier_of_last_step: NonNegative
    noise_standard_deviation: NonNegative
    """Of the noise on each coordinate of the sum, in the first step: σ times the sensitivity."""
    noise_standard_deviation_of_last_step: NonNegative
    normaliser: CountFromOne
    """What the noisy sum is divided by: the expected batch size, never the drawn one."""


class Sampling(Part):
    """How the units of a step were drawn."""

    used: SamplingName
    """What ran."""
    assumed: SamplingName | None
    """What the accountant took it for; null where it is none of these."""
    match: bool
    """Whether these are the same."""
    sample_rate: Annotated[float, Field(gt=0, le=1)]
    """Probability q of a unit to be drawn in a step."""
    expected_batch_size: CountFromOne
    """q · n."""
    largest_batch: CountFromOne | None
    """Cap on the drawn units of truncated Poisson sampling."""


class Steps(Part):
    """Steps of the run."""

    planned: Count
    charged: Count
    """Counted in ε: each before its update was visible."""
    executed: Count
    """In the weights. Charged steps that a crash lost are not, and stay charged."""
    resumes: Count
    """How often the run went on after an interruption."""


class RandomSource(Part):
    """Where noise and sampling come from."""

    description: Words
    secure: bool
    """Whether nobody without the process's memory can predict it."""
