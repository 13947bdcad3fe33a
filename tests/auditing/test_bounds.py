"""Lower bounds on ε: against other people's numbers, and on mechanisms whose ε is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import binom

from discreet.auditing.one_run import (
    Guessing,
    correct_guesses,
    default_guesses,
    guess_coins,
    one_run_bound,
    one_run_p_value,
    reach,
    refuted_epsilon,
)
from discreet.auditing.rates import clopper_pearson, clopper_pearson_bound
from discreet.auditing.scores import Bound, CanaryScores
from discreet.errors import ConfigurationError

from .simulated import (
    gaussian,
    gaussian_epsilon_by_search,
    laplace,
    randomised_response,
)

AUDITS = 200
# 10 of 200 are expected to fail of a bound that is exactly at 95 %; 18 or fewer with 99 %.
MOST_FAILURES = 18

Estimator = Callable[[CanaryScores, float, np.random.Generator], Bound]


def one_run(scores: CanaryScores, delta: float, rng: np.random.Generator) -> Bound:
    return one_run_bound(scores, delta=delta)


def independent(scores: CanaryScores, delta: float, rng: np.random.Generator) -> Bound:
    return clopper_pearson_bound(scores, delta=delta, stream=rng)


DELTA = 1e-5
MU = 1.0
GAUSSIAN_EPSILON = gaussian_epsilon_by_search(MU, DELTA)  # 4.38
# simulation, true ε, δ, share of ε that the median audit of 2000 canaries reaches: one-run, rates
KNOWN = {
    "randomised response, ε = 3": (randomised_response(3), 3.0, 0.0, 0.9, 0.8),
    "randomised response, ε = 1": (randomised_response(1), 1.0, 0.0, 0.8, 0.7),
    "Laplace, ε = 2": (laplace(2), 2.0, 0.0, 0.75, 0.6),
    "Laplace, ε = 4": (laplace(4), 4.0, 0.0, 0.75, 0.6),
    "Gaussian, μ = 1": (gaussian(MU), GAUSSIAN_EPSILON, DELTA, 0.25, 0.25),
}


@cache
def audits(name: str, estimator: Estimator) -> np.ndarray:
    """Bounds of simulated audits with 2,000 canaries, (200,)."""
    simulate, _, delta, _, _ = KNOWN[name]
    rng = np.random.default_rng(sum(map(ord, name)))
    found = [estimator(simulate(rng, 2000), delta, rng).epsilon for _ in range(AUDITS)]
    return np.array(found)


@pytest.mark.parametrize("estimator", [one_run, independent])
@pytest.mark.parametrize("name", KNOWN)
def test_the_bound_is_above_the_true_epsilon_in_at_most_one_of_twenty(
    name: str, estimator: Estimator
):
    assert (audits(name, estimator) > KNOWN[name][1]).sum() <= MOST_FAILURES


@pytest.mark.parametrize(("estimator", "column"), [(one_run, 3), (independent, 4)])
@pytest.mark.parametrize("name", KNOWN)
def test_the_bound_reaches_its_share_of_epsilon(name: str, estimator: Estimator, column: int):
    assert np.median(audits(name, estimator)) >= KNOWN[name][column] * KNOWN[name][1]


def test_few_canaries_do_not_fool_the_bound():
    rng = np.random.default_rng(7)
    draws = [randomised_response(2)(rng, 60) for _ in range(AUDITS)]
    assert sum(one_run_bound(d, delta=0).epsilon > 2 for d in draws) <= MOST_FAILURES
    assert sum(independent(d, 0, rng).epsilon > 2 for d in draws) <= MOST_FAILURES


def test_scores_that_know_nothing_show_nothing():
    rng = np.random.default_rng(3)
    found: list[float] = []
    for _ in range(AUDITS):
        scores = CanaryScores.of(rng.standard_normal(500), rng.random(500) < 0.5)
        found.append(one_run_bound(scores, delta=DELTA).epsilon)
    assert np.count_nonzero(found) <= MOST_FAILURES


# (m, guesses, correct, δ, significance) → ε of `epsilon_one_run` in jax_privacy 8967688, at that
# one threshold.
JAX_PRIVACY: Sequence[tuple[int, int, int, float, float, float]] = (
    (100, 100, 70, 1e-6, 0.05, 0.471647),
    (1000, 80, 75, 1e-5, 0.05, 1.920953),
    (1000, 1000, 880, 1e-5, 0.01, 1.7653),
    (1000, 250, 250, 1e-5, 0.0125, 3.980255),
    (2000, 500, 480, 1e-4, 0.05, 2.742543),
    (200, 20, 20, 1e-3, 0.05, 0.979042),
    (2000, 125, 124, 1e-5, 0.0125, 2.868846),
)


@pytest.mark.parametrize("row", JAX_PRIVACY)
def test_agrees_with_jax_privacy(row: tuple[int, int, int, float, float, float]):
    canaries, guesses, correct, delta, significance, expected = row
    found = refuted_epsilon(
        canaries=canaries, guesses=guesses, correct=correct, delta=delta, significance=significance
    )
    assert found == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize(("guesses", "correct"), [(20, 20), (20, 17), (100, 88), (7, 1)])
@pytest.mark.parametrize("delta", [0.0, 1e-5, 1e-3])
def test_the_p_value_is_the_theorem_s(guesses: int, correct: int, delta: float):
    """Theorem 5.2, summed term by term."""
    epsilon, canaries = 1.3, 150
    mass = [binom.pmf(k, guesses, expit(epsilon)) for k in range(guesses + 1)]
    tail = sum(mass[correct:])
    windows = [sum(mass[max(correct - i, 0) : correct]) / i for i in range(1, canaries + 1)]
    assert one_run_p_value(
        epsilon=epsilon, delta=delta, canaries=canaries, guesses=guesses, correct=correct
    ) == pytest.approx(min(1.0, tail + 2 * canaries * delta * max(windows)))


def test_the_p_value_grows_with_epsilon():
    """So the largest refuted ε is where refutation ends: nothing smaller is left standing."""
    grid = np.linspace(0, 12, 400)
    for guesses, correct, delta in [(60, 58, 1e-4), (500, 490, 1e-5), (2000, 1900, 1e-5)]:
        values = [
            one_run_p_value(epsilon=e, delta=delta, canaries=2000, guesses=guesses, correct=correct)
            for e in grid
        ]
        below = np.flatnonzero(np.array(values) <= 0.05)
        assert len(below) == below[-1] + 1  # refuted from 0 to one point, and never again


def test_delta_costs():
    free, dear = (
        refuted_epsilon(canaries=2000, guesses=300, correct=295, delta=d, significance=0.05)
        for d in (0, 1e-4)
    )
    assert dear < free


def test_guesses_depend_on_scores_alone():
    scores = np.array([0.1, -3.0, 2.0, 0.0, 5.0, -0.2])
    assert guess_coins(scores, 3).tolist() == [0, -1, 1, 0, 1, 0]
    assert guess_coins(scores, 3, centre=0).tolist() == [0, -1, 1, 0, 1, 0]
    assert guess_coins(scores, 2, centre=4).tolist() == [0, -1, 0, 0, 0, -1]
    assert guess_coins(scores, 0).tolist() == [0] * 6
    with pytest.raises(ConfigurationError, match="guesses=7"):
        guess_coins(scores, 7)


def test_guesses_on_the_highest_scores_alone():
    coins = np.array([True, False, True, False])
    scores = CanaryScores.of([5.0, 4.0, 3.0, -9.0], coins, centre=0)
    assert correct_guesses(scores, Guessing(number=3, highest=True)) == 2
    assert correct_guesses(scores, Guessing(number=0, highest=True)) == 0


def test_default_guesses_are_few_and_public():
    assert [way.number for way in default_guesses(2000)] == [2000, 500, 125, 31]
    assert [way.number for way in default_guesses(1)] == [1]


def test_reach_is_the_bound_of_a_perfect_attack():
    coins = np.arange(1000) % 2 == 0
    perfect = CanaryScores.of(np.where(coins, 1.0, -1.0), coins, centre=0)
    assert one_run_bound(perfect, delta=1e-5).epsilon == reach(1000, delta=1e-5)
    assert 5 < reach(1000, delta=1e-5) < np.log(1000)


def test_clopper_pearson_covers():
    """Against the definition: at a one-sided limit, the tail has exactly the significance."""
    low, high = clopper_pearson(30, 200, significance=0.025)
    assert binom.sf(29, 200, low) == pytest.approx(0.025)
    assert binom.cdf(30, 200, high) == pytest.approx(0.025)
    assert clopper_pearson(0, 10, significance=0.025)[0] == 0
    assert clopper_pearson(10, 10, significance=0.025)[1] == 1


@pytest.mark.parametrize("delta", [-0.1, 1.0])
def test_delta_out_of_range_is_refused(delta: float):
    scores = CanaryScores.of([1.0, 2.0], [True, False])
    with pytest.raises(ConfigurationError, match="delta"):
        one_run_bound(scores, delta=delta)


def test_scores_and_coins_must_match():
    with pytest.raises(ConfigurationError, match="one score and one coin"):
        CanaryScores.of([1.0], [True, False])
    with pytest.raises(ConfigurationError, match="not a number"):
        CanaryScores.of([float("nan")], [True])
