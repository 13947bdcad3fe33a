"""What planning asks of accounting, one small function each."""

from __future__ import annotations

import dataclasses
import math
from typing import cast

from discreet import accounting
from discreet.accounting import (
    Accountant,
    AccountantName,
    Event,
    PoissonSampledGaussian,
    ShuffledGaussian,
    calibrate_noise_multiplier,
    make_accountant,
)


def accountant(name: str) -> Accountant:
    """The accountant of that name."""
    return make_accountant(cast(AccountantName, name))


def without_sampling(event: PoissonSampledGaussian) -> Event:
    """The same run with a shuffled loader: each unit takes part once per epoch, unamplified."""
    return ShuffledGaussian(
        noise_multiplier=event.noise_multiplier,
        steps_per_epoch=math.ceil(1 / event.sample_rate),
        steps=event.steps,
    )


def group_epsilon(event: PoissonSampledGaussian, *, size: int, delta: float) -> float:
    """ε of adding or removing `size` units at once."""
    return accounting.group_epsilon([event], size=size, delta=delta)


def calibrate(
    *, target_epsilon: float, delta: float, event: PoissonSampledGaussian, accountant: Accountant
) -> float:
    """Smallest noise multiplier whose ε is at or under the target; that of `event` is not used."""
    return calibrate_noise_multiplier(
        target_epsilon=target_epsilon,
        delta=delta,
        events=lambda noise: [dataclasses.replace(event, noise_multiplier=noise)],
        accountant=accountant,
    )
