"""The closed form: against the library, against integration, and flattening of events."""

from __future__ import annotations

import math

import dp_accounting
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from discreet.accounting._gaussian import (
    GaussianTerm,
    gaussian_delta,
    gaussian_epsilon,
    gaussian_terms,
    unamplified_mu,
)
from discreet.errors import AccountingError
from discreet.privacy import NeighboringRelation


@pytest.mark.parametrize(("mu", "epsilon"), [(0.1, 0.2), (1.0, 1.0), (1.0, 0.0), (8.33, 40.0)])
def test_delta_is_the_hockey_stick_divergence(mu: float, epsilon: float) -> None:
    def excess(x: float) -> float:
        return max(0.0, stats.norm.pdf(x, mu) - math.exp(epsilon) * stats.norm.pdf(x, 0))

    edge = epsilon / mu + mu / 2  # where the excess begins
    expected, _ = integrate.quad(excess, edge, edge + 40, limit=200)
    assert gaussian_delta(mu, epsilon=epsilon) == pytest.approx(expected, rel=1e-6)


@settings(deadline=None)
@given(st.floats(1e-3, 1e3), st.sampled_from([1e-2, 1e-5, 1e-9]))
def test_epsilon_meets_delta(mu: float, delta: float) -> None:
    epsilon = gaussian_epsilon(mu, delta=delta)
    assert gaussian_delta(mu, epsilon=epsilon) <= delta * (1 + 1e-6)
    if epsilon > 0:
        assert gaussian_delta(mu, epsilon=epsilon * 0.999) > delta


@pytest.mark.parametrize("mu", [1e-300, 1e-8, 1e3, 1e6, 1e150])
def test_far_ends_are_numbers(mu: float) -> None:
    assert 0 <= gaussian_epsilon(mu, delta=1e-5) < math.inf
    for epsilon in (0.0, 8.0, 1e5):
        assert 0 <= gaussian_delta(mu, epsilon=epsilon) <= 1


def test_no_and_all_noise() -> None:
    assert gaussian_epsilon(0.0, delta=1e-5) == gaussian_delta(0.0, epsilon=0.0) == 0
    assert gaussian_epsilon(math.inf, delta=1e-5) == math.inf
    assert gaussian_delta(math.inf, epsilon=9.0) == 1


def test_mu_adds_in_squares_and_doubles_for_replacement() -> None:
    terms = [
        GaussianTerm(noise_multiplier=2.0, sample_rate=0.1, steps=9),
        GaussianTerm(noise_multiplier=0.5, sample_rate=1.0, steps=1),
    ]
    expected = math.sqrt(9 / 4 + 4)
    assert unamplified_mu(terms, NeighboringRelation.ADD_OR_REMOVE_ONE) == pytest.approx(expected)
    assert unamplified_mu(terms, NeighboringRelation.REPLACE_ONE) == pytest.approx(2 * expected)


def test_sampled_mixture_stays_below_the_gaussian() -> None:
    # Both directions, orders above and below 1: the Gaussian pair dominates the sampled one.
    q, sigma = 0.2, 0.8
    x = np.linspace(-12, 12, 200_001)
    low, high = stats.norm.pdf(x, 0, sigma), stats.norm.pdf(x, 1, sigma)
    mixed = (1 - q) * low + q * high
    for alpha in np.exp(np.linspace(-3, 3, 13)):
        gaussian = integrate.trapezoid(np.maximum(high - alpha * low, 0), x)
        for upper, lower in ((mixed, low), (low, mixed)):
            assert integrate.trapezoid(np.maximum(upper - alpha * lower, 0), x) <= gaussian + 1e-9


def test_events_are_flattened_and_added_up() -> None:
    gaussian = dp_accounting.GaussianDpEvent(2.0)
    sampled = dp_accounting.PoissonSampledDpEvent(0.1, gaussian)
    nested = dp_accounting.SelfComposedDpEvent(
        dp_accounting.ComposedDpEvent([sampled, gaussian, dp_accounting.NoOpDpEvent()]), 3
    )
    assert gaussian_terms([nested, sampled]) == (
        GaussianTerm(noise_multiplier=2.0, sample_rate=0.1, steps=4),
        GaussianTerm(noise_multiplier=2.0, sample_rate=1.0, steps=3),
    )


@pytest.mark.parametrize(
    ("sigma", "q", "moved_sigma", "moved_q"),
    [(1e200, 0.5, 1e9, 0.5), (1.0, 1e-300, 1.0, 1e-12), (1.0, 1 - 1e-15, 1.0, 1.0)],
)
def test_settings_beyond_the_numerics_move_towards_more_loss(
    sigma: float, q: float, moved_sigma: float, moved_q: float
) -> None:
    event = dp_accounting.PoissonSampledDpEvent(q, dp_accounting.GaussianDpEvent(sigma))
    (term,) = gaussian_terms([event])
    assert (term.noise_multiplier, term.sample_rate) == (moved_sigma, moved_q)


@pytest.mark.parametrize(
    "event",
    [
        dp_accounting.NonPrivateDpEvent(),
        dp_accounting.LaplaceDpEvent(1.0),
        dp_accounting.PoissonSampledDpEvent(0.1, dp_accounting.LaplaceDpEvent(1.0)),
    ],
)
def test_other_events_are_refused(event: dp_accounting.DpEvent) -> None:
    with pytest.raises(AccountingError, match="no accounting"):
        gaussian_terms([dp_accounting.ComposedDpEvent([event])])
