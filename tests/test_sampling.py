from __future__ import annotations

import numpy as np
import pytest

from discreet.errors import ConfigurationError
from discreet.randomness import InsecureSource, SecureSource
from discreet.sampling import PoissonSampler

N, DRAWS, RATE = 200, 5000, 0.1


@pytest.fixture(scope="module")
def draws() -> np.ndarray:
    """(DRAWS, N) of 0 and 1."""
    sampler, source = PoissonSampler(population=N, sample_rate=RATE), InsecureSource(1)
    out = np.zeros((DRAWS, N))
    for row in out:
        row[sampler.draw(source.stream())] = 1
    return out


def test_each_unit_at_its_rate(draws: np.ndarray):
    # 10^6 decisions: the total is within 5 standard deviations, and so is every unit.
    deviation = np.sqrt(RATE * (1 - RATE))
    assert abs(draws.mean() - RATE) < 5 * deviation / np.sqrt(draws.size)
    assert np.abs(draws.mean(0) - RATE).max() < 5 * deviation / np.sqrt(DRAWS)


def test_sizes_are_binomial_not_fixed(draws: np.ndarray):
    # A shuffled loader has variance 0, sampling with replacement has duplicates.
    variance = draws.sum(1).var()
    expected = N * RATE * (1 - RATE)
    assert abs(variance / expected - 1) < 5 * np.sqrt(2 / DRAWS)


def test_units_and_steps_are_independent(draws: np.ndarray):
    centred = draws - draws.mean(0)
    pairs = (centred.T @ centred) / DRAWS / (RATE * (1 - RATE))
    np.fill_diagonal(pairs, 0)
    assert np.abs(pairs).max() < 6 / np.sqrt(DRAWS)
    lagged = (centred[1:] * centred[:-1]).mean() / (RATE * (1 - RATE))
    assert abs(lagged) < 5 / np.sqrt(draws.size)


def test_full_rate_draws_everyone_and_empty_draws_happen():
    stream = SecureSource().stream()
    assert np.array_equal(PoissonSampler(population=5, sample_rate=1.0).draw(stream), np.arange(5))
    rare = PoissonSampler(population=2, sample_rate=1e-9)
    assert rare.draw(stream).shape == (0,)


def test_indices_are_distinct_and_ascending():
    drawn = PoissonSampler(population=1000, sample_rate=0.5).draw(SecureSource().stream())
    assert np.all(np.diff(drawn) > 0)


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.5, float("nan")])
def test_bad_rates_are_refused(rate: float):
    with pytest.raises(ConfigurationError, match="sample_rate"):
        PoissonSampler(population=10, sample_rate=rate)
