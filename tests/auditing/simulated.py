"""Mechanisms of known ε, and the scores that an optimal attack makes of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import expit, log_ndtr

from discreet.auditing.scores import CanaryScores

Simulation = Callable[[np.random.Generator, int], CanaryScores]


def gaussian_epsilon_by_search(mu: float, delta: float) -> float:
    """ε(δ) of N(0, 1) against N(μ, 1), by a plain grid: an oracle apart from the package."""
    grid = np.linspace(0, 60, 600_001)
    spent = np.exp(log_ndtr(mu / 2 - grid / mu)) - np.exp(grid + log_ndtr(-mu / 2 - grid / mu))
    return float(grid[np.argmax(spent <= delta)])


def gaussian(mu: float) -> Simulation:
    def draw(rng: np.random.Generator, canaries: int) -> CanaryScores:
        coins = rng.random(canaries) < 0.5
        return CanaryScores.of(mu * coins + rng.standard_normal(canaries), coins, centre=mu / 2)

    return draw


def randomised_response(epsilon: float) -> Simulation:
    """Answers, with ties broken at random so that every number of guesses is another one."""

    def draw(rng: np.random.Generator, canaries: int) -> CanaryScores:
        coins = rng.random(canaries) < 0.5
        honest = rng.random(canaries) < expit(epsilon)
        answers = np.where(honest, coins, ~coins)
        return CanaryScores.of(np.where(answers, 1.0, -1.0) * rng.random(canaries), coins, centre=0)

    return draw


def laplace(epsilon: float) -> Simulation:
    def draw(rng: np.random.Generator, canaries: int) -> CanaryScores:
        coins = rng.random(canaries) < 0.5
        return CanaryScores.of(
            coins + rng.laplace(scale=1 / epsilon, size=canaries), coins, centre=0.5
        )

    return draw
