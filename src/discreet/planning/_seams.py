"""What planning asks of accounting, one small function each."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import dp_accounting
from scipy import stats

from discreet.accounting import (
    Event,
    PoissonSampledGaussian,
    calibrate_noise_multiplier,
    make_accountant,
)
from discreet.errors import AccountingError


class Answers(Protocol):
    """The part of an accountant that a plan needs."""

    def epsilon(self, events: Sequence[Event], *, delta: float) -> float:
        """ε at δ."""
        ...

    def coarse(self) -> Answers:
        """Faster and looser."""
        ...


def accountant(name: str) -> Answers:
    """The accountant of that name, `prv` among them."""
    return _Prv() if name == "prv" else make_accountant(name)  # type: ignore[arg-type]


def without_sampling(event: PoissonSampledGaussian) -> Event:
    """The same run with a shuffled loader: each unit takes part once per epoch, unamplified."""
    steps_per_epoch = math.ceil(1 / event.sample_rate)
    return PoissonSampledGaussian(
        sample_rate=1.0,
        noise_multiplier=event.noise_multiplier,
        steps=math.ceil(event.steps / steps_per_epoch),
    )


def group_epsilon(event: PoissonSampledGaussian, *, size: int, delta: float) -> float:
    """ε of adding or removing `size` units at once."""
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
    library = dp_accounting.pld.PLDAccountant(value_discretization_interval=1e-2)
    library.compose(step, event.steps)
    return float(library.get_epsilon(delta))


@dataclass(frozen=True)
class _Prv:
    error: float = 0.01

    def coarse(self) -> _Prv:
        return _Prv(error=0.05)

    def epsilon(self, events: Sequence[Event], *, delta: float) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            from opacus.accountants import PRVAccountant

        library: Any = PRVAccountant()
        for event in events:
            assert isinstance(event, PoissonSampledGaussian)
            if event.noise_multiplier == 0:
                return math.inf
            library.history.append((event.noise_multiplier, event.sample_rate, event.steps))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a logarithm of zero, where it is left out
                return float(library.get_epsilon(delta, eps_error=self.error))
        except (ValueError, RuntimeError, MemoryError, ArithmeticError) as error:
            raise AccountingError(f"PRV does not come to a number ({error})") from error


def calibrate(
    *, target_epsilon: float, delta: float, event: PoissonSampledGaussian, accountant: Answers
) -> float:
    """Smallest noise multiplier whose ε is at or under the target; that of `event` is not used."""
    return calibrate_noise_multiplier(
        target_epsilon=target_epsilon,
        delta=delta,
        sample_rate=event.sample_rate,
        steps=event.steps,
        accountant=accountant,  # type: ignore[arg-type]
    )
