"""Estimates that assume Gaussian privacy: right where it is, far off where it is not."""

from __future__ import annotations

import numpy as np
import pytest

from discreet.auditing.conditional import (
    gaussian_epsilon,
    gaussian_one_run_estimate,
    gaussian_rates_estimate,
)
from discreet.auditing.one_run import Guessing, one_run_bound
from discreet.auditing.scores import CanaryScores

from .simulated import gaussian, gaussian_epsilon_by_search, randomised_response

DELTA = 1e-5


@pytest.mark.parametrize("mu", [0.3, 1.0, 1.6, 3.0])
def test_gaussian_epsilon(mu: float):
    assert gaussian_epsilon(mu, DELTA) == pytest.approx(
        gaussian_epsilon_by_search(mu, DELTA), abs=2e-4
    )


# ε of `_epsilon_one_run_fdp` in jax_privacy 8967688: (m, correct, significance) → ε at δ = 1e-5,
# all m guessed.
JAX_PRIVACY = [(100, 70, 0.05, 1.0607), (1000, 880, 0.01, 2.72729)]


@pytest.mark.parametrize(("canaries", "correct", "significance", "expected"), JAX_PRIVACY)
def test_agrees_with_jax_privacy(canaries: int, correct: int, significance: float, expected: float):
    coins = np.arange(canaries) % 2 == 0
    right = np.arange(canaries) < correct
    scores = CanaryScores.of(np.where(coins == right, 1.0, -1.0), coins, centre=0)
    found = gaussian_one_run_estimate(
        scores, delta=DELTA, confidence=1 - significance, guesses=[Guessing(number=canaries)]
    )
    assert found.correct == correct
    assert found.epsilon == pytest.approx(expected, abs=1e-3)


def test_they_are_tighter_where_the_mechanism_is_gaussian():
    rng = np.random.default_rng(1)
    draws = [gaussian(1.0)(rng, 2000) for _ in range(12)]
    true = gaussian_epsilon_by_search(1.0, DELTA)
    rates = [gaussian_rates_estimate(d, delta=DELTA, stream=rng).epsilon for d in draws]
    one_run = [gaussian_one_run_estimate(d, delta=DELTA).epsilon for d in draws]
    plain = [one_run_bound(d, delta=DELTA).epsilon for d in draws]
    assert np.median(one_run) > np.median(plain)
    assert 0.6 * true < np.median(rates) < true
    assert (np.array(rates) > true).sum() <= 3
    assert (np.array(one_run) > true).sum() <= 3


def test_on_randomised_response_they_exceed_the_true_epsilon():
    """Why they are shown apart: the true ε is 3, and no bound may say more."""
    rng = np.random.default_rng(2)
    scores = randomised_response(3)(rng, 4000)
    assert 4 < gaussian_one_run_estimate(scores, delta=DELTA).epsilon < 6
    assert 15 < gaussian_rates_estimate(scores, delta=DELTA, stream=rng).epsilon < 20
    assert one_run_bound(scores, delta=DELTA).epsilon < 3
