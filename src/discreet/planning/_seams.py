"""What planning asks of accounting, one small function each."""

from __future__ import annotations

import math
from typing import cast

import dp_accounting
from scipy import stats

from discreet.accounting import (
    Accountant,
    AccountantName,
    Event,
    PoissonSampledGaussian,
    ShuffledGaussian,
    calibrate_noise_multiplier,
    make_accountant,
)

# Rounded up: a group's ε may be told a few per cent too large, never too small.
_GROUP_GRID = 5e-3


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
    """ε of adding or removing `size` units at once.

    A step then draws a Binomial(size, q) number of them, each of which may move the sum by the
    clip bound: a mixture of Gaussians (dp-accounting's event of that name).

    Args:
        event: The run, for one unit.
        size: Number of units that belong together.
        delta: δ of the guarantee.
    """
    sigma, q = event.noise_multiplier, event.sample_rate
    if sigma == 0:
        return math.inf
    if q == 1:
        whole = PoissonSampledGaussian(
            sample_rate=1.0, noise_multiplier=sigma / size, steps=event.steps
        )
        return make_accountant("pld").epsilon([whole], delta=delta)
    sizes = range(size + 1)
    step = dp_accounting.dp_event.MixtureOfGaussiansDpEvent(
        sigma, list(sizes), [float(p) for p in stats.binom.pmf(sizes, size, q)]
    )
    library = dp_accounting.pld.PLDAccountant(value_discretization_interval=_GROUP_GRID)
    library.compose(step, event.steps)
    return float(library.get_epsilon(delta))


def calibrate(
    *, target_epsilon: float, delta: float, event: PoissonSampledGaussian, accountant: Accountant
) -> float:
    """Smallest noise multiplier whose ε is at or under the target; that of `event` is not used."""
    return calibrate_noise_multiplier(
        target_epsilon=target_epsilon,
        delta=delta,
        sample_rate=event.sample_rate,
        steps=event.steps,
        accountant=accountant,
    )
