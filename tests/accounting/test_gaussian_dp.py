"""μ and the trade-off curve: never more optimistic than the distributions they come from."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from discreet.accounting import (
    PldAccountant,
    PoissonSampledGaussian,
    TruncatedPoissonSampledGaussian,
    gaussian_dp,
    trade_off_curve,
)
from discreet.accounting._gaussian import gaussian_delta, gaussian_epsilon
from discreet.errors import AccountingError, ConfigurationError
from discreet.privacy import NeighboringRelation

REPLACE = NeighboringRelation.REPLACE_ONE
ALPHAS = [0.0, 1e-6, 0.001, 0.01, 0.1, 0.3, 0.5, 0.8, 1.0]


def ran(q: float, steps: int, sigma: float = 1.2) -> PoissonSampledGaussian:
    return PoissonSampledGaussian(sample_rate=q, noise_multiplier=sigma, steps=steps)


@pytest.mark.parametrize(("floor", "expected"), [(1e-5, 0.729), (1e-6, 0.732), (1e-9, 0.742)])
def test_known_mu(floor: float, expected: float) -> None:
    found = gaussian_dp([ran(0.01, 5000)], delta_floor=floor)
    assert found.mu == pytest.approx(expected, abs=6e-4)
    assert found.delta_floor == floor
    # 0.713, as another library says, implies ε = 2.97 at δ = 1e-5, where 3.04 is the truth.
    assert gaussian_epsilon(0.713, delta=1e-5) < 2.98
    assert gaussian_epsilon(found.mu, delta=1e-5) >= 3.044


@pytest.mark.parametrize("relation", list(NeighboringRelation))
@pytest.mark.parametrize(
    ("q", "steps", "sigma"), [(0.05, 300, 1.0), (0.3, 40, 2.0), (1e-3, 9, 0.6)]
)
def test_mu_is_never_below_what_the_events_imply(
    q: float, steps: int, sigma: float, relation: NeighboringRelation
) -> None:
    floor, events = 1e-6, [ran(q, steps, sigma)]
    by = PldAccountant(relation=relation)
    found = gaussian_dp(events, delta_floor=floor, relation=relation)
    tight = False
    for epsilon in np.linspace(0, by.epsilon(events, delta=floor) * 0.9999, 12):
        needed = by.delta(events, epsilon=float(epsilon))
        assert gaussian_delta(found.mu, epsilon=float(epsilon)) >= needed * (1 - 1e-9)
        tight |= gaussian_delta(found.mu * 0.98, epsilon=float(epsilon)) < needed
    assert tight, "a smaller μ would do"


def test_full_batch_is_gaussian_exactly() -> None:
    found = gaussian_dp([ran(1, 100)], delta_floor=1e-9)
    assert (found.mu, found.regret) == (pytest.approx(100**0.5 / 1.2), 0)
    doubled = gaussian_dp([ran(1, 100)], delta_floor=1e-9, relation=REPLACE)
    assert doubled.mu == pytest.approx(2 * found.mu)
    assert found.mu == pytest.approx(8.33, abs=5e-3)


def test_nothing_and_no_noise() -> None:
    assert gaussian_dp([], delta_floor=1e-5).mu == 0
    assert gaussian_dp([ran(0.1, 1, 0.0)], delta_floor=1e-5).mu == math.inf
    assert trade_off_curve([], alphas=ALPHAS) == pytest.approx([1 - a for a in ALPHAS])
    assert trade_off_curve([ran(0.1, 1, 0.0)], alphas=[0.0, 0.5]) == (0, 0)


def test_regret_is_the_distance_of_the_curves() -> None:
    # Moved by κ towards the origin along both axes, the true curve lies below that of μ.
    events = [ran(0.01, 5000)]
    found = gaussian_dp(events, delta_floor=1e-5)
    assert 0.003 < found.regret < 0.01
    alphas = np.linspace(0, 1 - found.regret, 400)

    def below(kappa: float) -> bool:
        moved = np.array(trade_off_curve(events, alphas=list(alphas + kappa))) - kappa
        gaussian = stats.norm.cdf(stats.norm.ppf(1 - alphas) - found.mu)
        return bool(np.all(moved <= gaussian + 1e-5))

    assert below(found.regret)
    assert not below(0.8 * found.regret)


def test_floors_out_of_reach() -> None:
    with pytest.raises(ConfigurationError):
        gaussian_dp([ran(0.1, 5)], delta_floor=0.0)
    with pytest.raises(AccountingError, match="larger floor"):
        gaussian_dp([ran(0.1, 5)], delta_floor=1e-12)


def test_curve_of_the_full_batch() -> None:
    curve = trade_off_curve([ran(1, 1, 2.0)], alphas=ALPHAS)
    exact = stats.norm.cdf(stats.norm.ppf(1 - np.array(ALPHAS)) - 0.5)
    assert np.all(np.array(curve) <= exact + 1e-12)
    assert curve == pytest.approx(exact, abs=1e-4)


def test_curve_against_the_exact_sampled_step() -> None:
    # The worse direction of one sampled step, by thresholds on the output (Neyman and Pearson).
    q, sigma = 0.3, 0.8
    thresholds = np.linspace(-6, 8, 4001)
    null = stats.norm.sf(thresholds, 0, sigma)
    mixed = (1 - q) * null + q * stats.norm.sf(thresholds, 1, sigma)
    alphas = np.linspace(0, 1, 101)
    removed = np.interp(alphas, null[::-1], 1 - mixed[::-1])
    added = np.interp(alphas, (1 - mixed), null)
    curve = np.array(trade_off_curve([ran(q, 1, sigma)], alphas=list(alphas)))
    assert np.all(curve <= np.minimum(removed, added) + 1e-5)
    assert np.max(np.minimum(removed, added) - curve) < 0.02


@pytest.mark.parametrize("relation", list(NeighboringRelation))
def test_curve_is_convex_and_falls(relation: NeighboringRelation) -> None:
    event = TruncatedPoissonSampledGaussian(
        sample_rate=0.1, noise_multiplier=1.5, steps=20, population=1000, largest_batch=110
    )
    alphas = np.linspace(0, 1, 51)
    betas = trade_off_curve([event], alphas=list(alphas), relation=relation)
    falls = np.diff(betas)
    assert np.all(falls <= 1e-12)
    assert np.all(np.diff(falls) >= -1e-9)
    assert all(beta <= 1 - alpha + 1e-12 for alpha, beta in zip(alphas, betas, strict=True))
    assert all(a >= b for a, b in itertools.pairwise(betas))


def test_alphas_out_of_range() -> None:
    with pytest.raises(ConfigurationError, match="alphas"):
        trade_off_curve([ran(0.1, 5)], alphas=[1.5])


def test_a_loss_too_large_for_floats_is_no_protection_and_no_nonsense() -> None:
    # At ε around 720, beyond which e^ε is infinite.
    events = [PoissonSampledGaussian(sample_rate=0.9, noise_multiplier=1.0, steps=1400)]
    found = gaussian_dp(events, delta_floor=1e-9)
    assert 30 < found.mu < 40 and 0 <= found.regret <= 1
    curve = trade_off_curve(events, alphas=(0.0, 0.01, 0.5, 1.0))
    assert all(0 <= beta <= 1 for beta in curve)
