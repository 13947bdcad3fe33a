from __future__ import annotations

import math

import pytest
from scipy.stats import norm

from discreet.accounting import make_accountant
from discreet.config import MechanismConfig
from discreet.errors import AccountingError
from discreet.privacy import NeighboringRelation
from discreet.statement.figures import attack_bounds, figures_of, profile_of, unamplified
from discreet.statement.schema import DeltaAtEpsilon, PrivacyRecord

from .conftest import FULL_BATCH

MU = math.sqrt(10) / 5  # ten full-batch steps at σ = 5


def test_bounds_are_those_of_the_gaussian_mechanism_and_never_below(record: PrivacyRecord):
    attack = record.figures.attack
    assert attack is not None
    exact = norm.cdf(MU / 2)
    assert exact <= attack.balanced_accuracy <= exact + 1e-6
    for rate in attack.true_positive_rates:
        best = norm.cdf(norm.ppf(rate.false_positive_rate) + MU)
        assert best <= rate.at_most <= 1.25 * best


def test_bounds_are_exact_for_randomised_response():
    ε = 1.5
    truth = math.exp(ε) / (1 + math.exp(ε))  # tells the truth with this probability
    points = [DeltaAtEpsilon(epsilon=0, delta=2 * truth - 1), DeltaAtEpsilon(epsilon=ε, delta=0)]
    attack = attack_bounds(points)
    assert attack.balanced_accuracy == pytest.approx(truth)
    at = {rate.false_positive_rate: rate.at_most for rate in attack.true_positive_rates}
    assert at[0.1] == pytest.approx(0.1 * math.exp(ε))  # on the first leg of its trade-off


def test_nothing_known_bounds_nothing():
    attack = attack_bounds([])
    assert attack.balanced_accuracy == 1
    assert all(rate.at_most == 1 for rate in attack.true_positive_rates)


def test_perfect_privacy_leaves_a_coin():
    attack = attack_bounds([DeltaAtEpsilon(epsilon=0, delta=0)])
    assert attack.balanced_accuracy == 0.5
    assert all(
        r.at_most == pytest.approx(r.false_positive_rate) for r in attack.true_positive_rates
    )


def test_the_profile_falls_to_the_claim(record: PrivacyRecord):
    deltas = [point.delta for point in record.figures.profile]
    assert deltas == sorted(deltas, reverse=True)
    assert deltas[-1] == pytest.approx(1e-3, rel=1e-3)
    assert record.figures.profile[-1].epsilon == record.claim.epsilon


def test_more_delta_less_epsilon(record: PrivacyRecord):
    points = record.figures.epsilon_at_delta
    epsilons = [point.epsilon for point in points]
    assert epsilons == sorted(epsilons)
    assert points[0].delta == 1e-3
    assert points[0].epsilon == record.claim.epsilon


def test_groups_are_those_of_the_gaussian_mechanism(record: PrivacyRecord):
    from discreet.accounting._gaussian import gaussian_epsilon

    for group in record.figures.groups:
        assert group.epsilon is not None
        assert group.epsilon == pytest.approx(
            gaussian_epsilon(group.size * MU, delta=1e-3), rel=0.02
        )


def test_mu_is_that_of_the_gaussian_mechanism(record: PrivacyRecord):
    fitted = record.figures.gaussian_dp
    assert fitted is not None
    assert fitted.mu == pytest.approx(MU)
    assert fitted.regret == 0


def test_a_shuffled_loader_has_the_oracle_figure():
    mechanism = MechanismConfig(
        population=100_000,
        expected_batch_size=1024,
        steps=4883,
        noise_multiplier=1.2,
        max_grad_norm=1.0,
        delta=1e-5,
    )
    events = unamplified(mechanism, mechanism.planned_events())
    epsilon = make_accountant("pld").epsilon(events, delta=1e-5)
    assert epsilon == pytest.approx(41.7, abs=0.05)


def test_a_group_that_is_replaced_is_taken_away_and_put_back():
    from discreet.accounting._gaussian import gaussian_epsilon

    replaced = FULL_BATCH.model_copy(update={"relation": NeighboringRelation.REPLACE_ONE})
    figures = figures_of(replaced, replaced.planned_events(), epsilon=replaced.planned().epsilon)
    for group in figures.groups:
        assert group.epsilon == pytest.approx(gaussian_epsilon(2 * group.size * MU, delta=1e-3))


def test_groups_under_a_schedule_are_bounded_and_not_much_looser():
    from discreet.accounting._gaussian import gaussian_epsilon

    falling = FULL_BATCH.model_copy(
        update={"noise_schedule": "exponential", "final_noise": 0.5, "steps": 40}
    )
    mu = math.sqrt(sum(falling.noise_multiplier_at(step) ** -2 for step in range(1, 41)))
    epsilon = falling.planned().epsilon
    for group in figures_of(falling, falling.planned_events(), epsilon=epsilon).groups:
        exact = gaussian_epsilon(group.size * mu, delta=1e-3)
        assert group.epsilon is not None
        assert exact < group.epsilon < 1.5 * exact


def test_a_figure_that_cannot_be_had_is_left_out(monkeypatch: pytest.MonkeyPatch):
    def fails(*_: object, **__: object) -> float:
        raise AccountingError("no")

    monkeypatch.setattr("discreet.statement.figures.group_epsilon", fails)
    monkeypatch.setattr("discreet.statement.figures.gaussian_dp", fails)
    figures = figures_of(FULL_BATCH, FULL_BATCH.planned_events(), epsilon=1.8)
    assert figures.gaussian_dp is None
    assert {group.epsilon for group in figures.groups} == {None}


def test_no_bound_no_figures():
    silent = FULL_BATCH.model_copy(update={"noise_multiplier": 0.0})
    figures = figures_of(silent, silent.planned_events(), epsilon=math.inf)
    assert figures.attack is None
    assert figures.gaussian_dp is None
    assert all(group.epsilon is None for group in figures.groups)


def test_an_epsilon_of_zero_has_a_profile():
    assert profile_of([], make_accountant("pld"), epsilon=0.0)[0].delta == 0
