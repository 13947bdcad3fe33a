"""The numerics of privacy loss distributions: grids, mass, and rounding towards more loss."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution
from hypothesis import given, settings
from hypothesis import strategies as st

from discreet.accounting import _pld
from discreet.accounting._gaussian import GaussianTerm, gaussian_epsilon
from discreet.errors import AccountingError
from discreet.privacy import NeighboringRelation

ADD_OR_REMOVE = NeighboringRelation.ADD_OR_REMOVE_ONE
USUAL = GaussianTerm(noise_multiplier=1.2, sample_rate=0.01, steps=5000)


def composed(*terms: GaussianTerm, coarse: bool = False) -> _pld.ComposedLoss:
    loss = _pld.compose(terms, relation=ADD_OR_REMOVE, coarse=coarse)
    assert loss is not None
    return loss


@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-7, 1e-9, 1e-11, 1e-13])
@pytest.mark.parametrize(("sigma", "steps"), [(70.0, 5000), (20.0, 100), (300.0, 100_000)])
def test_never_below_the_truth_of_full_batches(sigma: float, steps: int, delta: float) -> None:
    # The grid is not used for these alone, so that the closed form is an independent check.
    # Composed step by step, through the transform whose rounding the slack has to cover.
    truth = gaussian_epsilon(math.sqrt(steps) / sigma, delta=delta)
    almost_full = GaussianTerm(noise_multiplier=sigma, sample_rate=1 - 1e-12, steps=steps)
    spent = composed(almost_full).epsilon(delta=delta)
    assert spent >= truth * (1 - 1e-6)
    if delta >= 1e-7:
        assert spent <= truth * 1.001


@pytest.mark.parametrize(
    "term",
    [
        USUAL,
        GaussianTerm(noise_multiplier=1.0, sample_rate=0.01024, steps=4883),
        GaussianTerm(noise_multiplier=3.0, sample_rate=0.2, steps=200),
        GaussianTerm(noise_multiplier=22.0, sample_rate=0.01, steps=5000),
    ],
)
def test_usual_runs_are_on_the_finest_grid(term: GaussianTerm) -> None:
    grid = _pld.choose_grid([term], relation=ADD_OR_REMOVE)
    assert grid == _pld.FINEST_GRID
    coarse = _pld.choose_grid([term], relation=ADD_OR_REMOVE, coarse=True)
    assert _pld.FINEST_GRID <= coarse <= 16 * _pld.FINEST_GRID
    fine, rough = (composed(term, coarse=c).epsilon(delta=1e-5) for c in (False, True))
    assert fine <= rough <= fine * 1.02


@given(
    st.floats(0, 1e6, exclude_min=True),
    st.floats(0, 1, exclude_min=True),
    st.integers(1, 10**9),
    st.sampled_from(list(NeighboringRelation)),
)
def test_never_finer_than_the_finest_grid(
    sigma: float, q: float, steps: int, relation: NeighboringRelation
) -> None:
    term = GaussianTerm(noise_multiplier=sigma, sample_rate=q, steps=steps)
    fine, coarse = (_pld.choose_grid([term], relation=relation, coarse=c) for c in (False, True))
    assert _pld.FINEST_GRID <= fine <= coarse


@pytest.mark.parametrize(
    "term",
    [
        GaussianTerm(noise_multiplier=0.2, sample_rate=0.05, steps=50),
        GaussianTerm(noise_multiplier=1.2, sample_rate=0.01, steps=500),
    ],
)
def test_a_coarser_grid_is_an_upper_bound(term: GaussianTerm) -> None:
    def epsilon(grid: float) -> float:
        loss = _pld._compose_on((term,), relation=ADD_OR_REMOVE, grid=grid)
        assert loss is not None
        return loss.epsilon(delta=1e-5)

    spent = [epsilon(grid) for grid in (1e-3, 4e-3, 1e-2, 5e-2)]
    assert spent == sorted(spent)


def test_epsilon_in_the_thousands_is_found() -> None:
    # e^-ε is as good as 0 here, and the library's own search answers ∞.
    term = GaussianTerm(noise_multiplier=0.625, sample_rate=0.625, steps=1650)
    loss = composed(term)
    spent = loss.epsilon(delta=1e-5)
    assert 500 < spent < 3000
    assert loss.delta(epsilon=spent) <= 1e-5 + 2 * loss.slack
    assert loss.delta(epsilon=spent * 0.999) > 1e-5


def test_unaffordable_is_left_to_the_closed_form() -> None:
    hardly = GaussianTerm(noise_multiplier=1e-3, sample_rate=0.01, steps=10)
    assert _pld.compose([hardly], relation=ADD_OR_REMOVE) is None


def test_mass_is_close_to_one() -> None:
    for _, finite, infinite in map(_pld._mass, _pld._directions(composed(USUAL).distribution)):
        assert 1 - 1e-9 <= float(finite.sum()) + infinite <= 1 + 1e-3
    assert 0 < composed(USUAL).slack < 1e-11


def _spoil(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    real = privacy_loss_distribution.from_gaussian_mechanism

    def spoilt(*args: object, **kwargs: object) -> object:
        distribution = real(*args, **kwargs)  # type: ignore[arg-type]
        for pmf in _pld._directions(distribution):
            pmf.to_dense_pmf()._probs *= factor
        return distribution

    monkeypatch.setattr(privacy_loss_distribution, "from_gaussian_mechanism", spoilt)
    _pld._one_step.cache_clear()
    _pld._joined.cache_clear()


@pytest.fixture(autouse=True)
def _fresh_cache() -> None:
    _pld._one_step.cache_clear()
    _pld._joined.cache_clear()


def test_mass_that_got_lost_counts_as_infinite_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    once = GaussianTerm(noise_multiplier=1.2, sample_rate=0.01, steps=1)
    good = composed(once)
    _spoil(monkeypatch, 1 - 1e-6)
    bad = composed(once)
    assert bad.slack >= 0.99e-6
    assert bad.delta(epsilon=0.5) >= good.delta(epsilon=0.5)
    assert bad.epsilon(delta=1e-7) == math.inf
    assert bad.epsilon(delta=1e-5) >= good.epsilon(delta=1e-5)


def test_mass_out_of_nothing_is_not_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    _spoil(monkeypatch, 1.1)
    once = GaussianTerm(noise_multiplier=1.2, sample_rate=0.01, steps=1)
    assert _pld._compose_on((once,), relation=ADD_OR_REMOVE, grid=1e-3) is None


def test_mass_that_is_not_a_number_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    _spoil(monkeypatch, math.nan)
    once = GaussianTerm(noise_multiplier=1.2, sample_rate=0.01, steps=1)
    with pytest.raises(AccountingError, match="does not add up"):
        _pld.compose([once], relation=ADD_OR_REMOVE)


@settings(max_examples=10, deadline=None)
@given(st.floats(1e-3, 0.99), st.floats(0.6, 10), st.integers(1, 500))
def test_delta_falls_with_epsilon_and_stays_a_probability(
    q: float, sigma: float, steps: int
) -> None:
    loss = composed(GaussianTerm(noise_multiplier=sigma, sample_rate=q, steps=steps), coarse=True)
    deltas = [loss.delta(epsilon=epsilon) for epsilon in (0.0, 0.5, 2.0, 8.0)]
    assert all(low <= high + 1e-12 for high, low in itertools.pairwise(deltas))
    assert all(0 <= delta <= 1 for delta in deltas)


@pytest.mark.parametrize("relation", NeighboringRelation)
@pytest.mark.parametrize(("noise", "rate", "steps"), [(1.0, 0.3, 40), (0.5, 0.01, 1000), (3, 1, 7)])
def test_epsilon_and_delta_are_those_of_the_librarys_loops(
    relation: NeighboringRelation, noise: float, rate: float, steps: int
):
    term = GaussianTerm(noise_multiplier=noise, sample_rate=rate, steps=steps)
    found = _pld.compose([term], relation=relation)
    assert found is not None
    points = np.linspace(0.0, 40.0, 300)
    deltas = found.distribution.get_delta_for_epsilon(points.tolist())
    assert found.deltas(points) == pytest.approx(np.minimum(1, deltas + found.slack), rel=1e-9)
    for delta in (0.2, 1e-3, 1e-5, 1e-9):
        epsilon = found.distribution.get_epsilon_for_delta(delta - found.slack)
        assert found.epsilon(delta=delta) == pytest.approx(epsilon, rel=1e-9)
