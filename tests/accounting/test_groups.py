"""Groups: the smaller of the sound bounds, in known numbers."""

from __future__ import annotations

import math
import time

import pytest

from discreet.accounting import (
    Event,
    PldAccountant,
    PoissonSampledGaussian,
    ShuffledGaussian,
    TruncatedPoissonSampledGaussian,
    group_epsilon,
)
from discreet.accounting._gaussian import gaussian_epsilon
from discreet.errors import ConfigurationError

DELTA = 1e-5


def ran(q: float, steps: int, sigma: float = 1.2) -> PoissonSampledGaussian:
    return PoissonSampledGaussian(sample_rate=q, noise_multiplier=sigma, steps=steps)


FIFTY = [ran(0.01024, 4883)]


def test_known_numbers_within_three_seconds() -> None:
    began = time.process_time()
    for size, expected in ((2, 6.90), (5, 21.7), (10, 56.8)):
        assert group_epsilon(FIFTY, size=size, delta=DELTA) == pytest.approx(expected, rel=2e-3)
    assert time.process_time() - began < 2 * 3  # other work on the core may double it


def test_a_group_of_one_is_a_unit() -> None:
    assert group_epsilon(FIFTY, size=1, delta=DELTA) == PldAccountant().epsilon(FIFTY, delta=DELTA)


def test_full_batch_and_shuffling_multiply_the_sensitivity() -> None:
    full = group_epsilon([ran(1, 10, 9.0)], size=3, delta=DELTA)
    assert full == pytest.approx(gaussian_epsilon(3 * math.sqrt(10) / 9, delta=DELTA), rel=1e-9)
    shuffled = ShuffledGaussian(noise_multiplier=9.0, steps_per_epoch=7, steps=70)
    assert group_epsilon([shuffled], size=3, delta=DELTA) == full


def test_one_step_of_a_group_of_two_exactly() -> None:
    # Removal, q² at 2, 2q(1 − q) at 1: δ by integration.
    from scipy import integrate, stats

    q, sigma, epsilon = 0.3, 2.0, 0.5

    def excess(x: float) -> float:
        mixed = sum(
            weight * stats.norm.pdf(x, shift, sigma)
            for shift, weight in ((0, (1 - q) ** 2), (1, 2 * q * (1 - q)), (2, q * q))
        )
        return max(0.0, mixed - math.exp(epsilon) * stats.norm.pdf(x, 0, sigma))

    delta = integrate.quad(excess, 0, 20, limit=400)[0]
    found = group_epsilon([ran(q, 1, sigma)], size=2, delta=delta)
    assert epsilon * (1 - 1e-6) <= found <= epsilon * 1.02


def test_what_has_nothing_better_is_converted_or_multiplied() -> None:
    cut = TruncatedPoissonSampledGaussian(
        sample_rate=0.01024,
        noise_multiplier=1.2,
        steps=4883,
        population=100_000,
        largest_batch=1280,
    )
    alone = PldAccountant().epsilon([cut], delta=DELTA)
    pair = group_epsilon([cut], size=2, delta=DELTA)
    # The conversion is sound and looser than the mixture for Poisson samples, which it bounds.
    assert 2 * alone < pair < 3 * alone
    assert group_epsilon(FIFTY, size=2, delta=DELTA) < pair
    assert group_epsilon([cut], size=1000, delta=DELTA) < math.inf


@pytest.mark.parametrize("size", [2, 10, 1000])
@pytest.mark.parametrize(
    "events",
    [
        [],
        [ran(0.5, 3, 0.0)],
        [ran(1e-9, 5)],
        [ran(0.9, 50, 0.2)],
        [ran(0.01, 100, 1.0), ran(1, 2, 8.0), ran(0.02, 30, 2.0)],
    ],
)
def test_never_nan_and_never_below_one_unit(size: int, events: list[Event]) -> None:
    spent = group_epsilon(events, size=size, delta=DELTA)
    assert spent >= PldAccountant().epsilon(events, delta=DELTA)
    assert not math.isnan(spent)


def test_larger_groups_cost_more() -> None:
    spent = [group_epsilon([ran(0.02, 300)], size=k, delta=DELTA) for k in (1, 2, 4, 8)]
    assert spent == sorted(spent)


def test_arguments_out_of_range() -> None:
    with pytest.raises(ConfigurationError, match="size"):
        group_epsilon(FIFTY, size=0, delta=DELTA)
    with pytest.raises(ConfigurationError, match="delta"):
        group_epsilon(FIFTY, size=2, delta=0.0)
