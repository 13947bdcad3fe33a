"""The other events: what each costs, in known numbers, and who may account for it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from discreet.accounting import (
    AdaptivelyClippedGaussian,
    Event,
    PldAccountant,
    PoissonSampledGaussian,
    ShuffledGaussian,
    TruncatedPoissonSampledGaussian,
    event_from_json,
    make_accountant,
    merge,
)
from discreet.errors import AccountingError, ConfigurationError
from discreet.privacy import NeighboringRelation

DELTA = 1e-5
REPLACE = NeighboringRelation.REPLACE_ONE
Q, T = 0.01024, 4883


def poisson(steps: int = T, sigma: float = 1.2, q: float = Q) -> PoissonSampledGaussian:
    return PoissonSampledGaussian(sample_rate=q, noise_multiplier=sigma, steps=steps)


def truncated(
    largest: int, *, sigma: float = 1.2, q: float = Q, n: int = 100_000, steps: int = T
) -> TruncatedPoissonSampledGaussian:
    return TruncatedPoissonSampledGaussian(
        sample_rate=q, noise_multiplier=sigma, steps=steps, population=n, largest_batch=largest
    )


def shuffled(steps: int, *, per_epoch: int = 98, sigma: float = 1.2) -> ShuffledGaussian:
    return ShuffledGaussian(noise_multiplier=sigma, steps_per_epoch=per_epoch, steps=steps)


def adaptive(sigma: float, count: float, steps: int = T) -> AdaptivelyClippedGaussian:
    return AdaptivelyClippedGaussian(
        sample_rate=Q, noise_multiplier=sigma, count_noise_multiplier=count, steps=steps
    )


EVENTS = [truncated(1088), shuffled(300), adaptive(1.2, 51.2)]


@pytest.mark.parametrize("event", EVENTS, ids=lambda e: e.kind)
def test_json_round_trip(event: Event) -> None:
    data = event.to_json()
    assert event_from_json(data) == event
    assert event_from_json(data) != event.with_steps(1)
    for key in data:
        with pytest.raises(AccountingError):
            event_from_json({k: v for k, v in data.items() if k != key})
        with pytest.raises(AccountingError):
            event_from_json({**data, key: -1})
    with pytest.raises(AccountingError, match="extra"):
        event_from_json({**data, "extra": 1})


@pytest.mark.parametrize("event", EVENTS, ids=lambda e: e.kind)
def test_no_noise_and_no_steps(event: Event) -> None:
    data = event.to_json()
    loud = event_from_json({**data, "noise_multiplier": 0})
    assert PldAccountant().epsilon([loud], delta=DELTA) == math.inf
    assert PldAccountant().epsilon([event.with_steps(0)], delta=DELTA) == 0


@pytest.mark.parametrize(
    "wrong", [{"largest_batch": 0}, {"largest_batch": 1.5}, {"population": 0}, {"population": True}]
)
def test_truncation_out_of_range(wrong: dict[str, object]) -> None:
    with pytest.raises((AccountingError, ConfigurationError)):
        event_from_json({**truncated(10).to_json(), **wrong})


# --- truncated Poisson ---------------------------------------------------------------------


@pytest.mark.parametrize(("largest", "expected"), [(1088, 5.01), (1152, 3.098), (1280, 3.087)])
def test_truncated_known_numbers(largest: int, expected: float) -> None:
    spent = PldAccountant().epsilon([truncated(largest)], delta=DELTA)
    assert spent == pytest.approx(expected, rel=1e-3)


def test_a_cap_that_is_never_reached_costs_nothing() -> None:
    by = PldAccountant().coarse()
    assert by.epsilon([truncated(50_000)], delta=DELTA) == pytest.approx(
        by.epsilon([poisson()], delta=DELTA), rel=1e-9
    )


def test_one_unit_more_is_covered() -> None:
    # A cap of n never cuts a draw of n units, but does cut one of n + 1: adding a unit displaces
    # another. The library's event of n units alone says sensitivity 1.
    full = truncated(4, n=4, q=1.0, sigma=5.0, steps=1)
    spent = PldAccountant().epsilon([full], delta=DELTA)
    twice = PldAccountant().epsilon([poisson(1, 2.5, 1.0)], delta=DELTA)
    assert spent == pytest.approx(twice, rel=1e-3)


def test_truncated_exactly_for_three_units() -> None:
    # n = 2 or 3 units of contribution x_i, all drawn with q, at most 2 kept: the true δ by
    # integration, for the worst contributions (the unit is +1, the others are −1).
    q, sigma, epsilon = 0.6, 1.5, 0.5
    x = np.linspace(-14, 14, 200_001)

    def density(units: list[float]) -> np.ndarray:
        out = np.zeros_like(x)
        for drawn in range(2 ** len(units)):
            kept = [u for i, u in enumerate(units) if drawn >> i & 1]
            weight = q ** len(kept) * (1 - q) ** (len(units) - len(kept))
            ways = [kept] if len(kept) <= 2 else [kept[:i] + kept[i + 1 :] for i in range(3)]
            for way in ways:
                out += weight / len(ways) * np.exp(-(((x - sum(way)) / sigma) ** 2) / 2)
        return out / (sigma * math.sqrt(2 * math.pi))

    worst = 0.0
    for others in ([-1.0], [-1.0, -1.0], [0.0, -1.0]):
        with_unit, without = density([1.0, *others]), density(others)
        for p, r in ((with_unit, without), (without, with_unit)):
            excess = np.maximum(p - math.exp(epsilon) * r, 0)
            worst = max(worst, float(np.trapezoid(excess, x)))
    event = truncated(2, n=2, q=q, sigma=sigma, steps=1)
    assert worst <= PldAccountant().delta([event], epsilon=epsilon)
    # The unit displaces another: what Poisson sampling alone says is too little.
    assert worst > PldAccountant().delta([poisson(1, sigma, q)], epsilon=epsilon)


@pytest.mark.parametrize("name", ["rdp", "prv"])
def test_truncation_is_for_pld_only(name: str) -> None:
    with pytest.raises(AccountingError, match="accountant=pld"):
        make_accountant(name).epsilon([poisson(), truncated(1088)], delta=DELTA)  # type: ignore[arg-type]


def test_truncation_composes_with_other_events() -> None:
    by = PldAccountant().coarse()
    alone = by.epsilon([truncated(1088, steps=1000)], delta=DELTA)
    both = by.epsilon([truncated(1088, steps=1000), poisson(3000, 2.0)], delta=DELTA)
    assert alone < both < alone + by.epsilon([poisson(3000, 2.0)], delta=DELTA)
    assert (
        PldAccountant(relation=REPLACE).coarse().epsilon([truncated(1088, steps=1000)], delta=DELTA)
        > alone
    )


# --- shuffling -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pld", "rdp", "prv"])
def test_shuffling_has_no_amplification(name: str) -> None:
    by = make_accountant(name)  # type: ignore[arg-type]
    fifty = by.epsilon([shuffled(T)], delta=DELTA)  # ceil(4883 / 98) = 50 epochs
    assert fifty == by.epsilon([poisson(50, 1.2, 1.0)], delta=DELTA)
    if name == "pld":
        assert fifty == pytest.approx(41.7, rel=2e-3)
        hundred = by.epsilon([shuffled(9766)], delta=DELTA)
        assert hundred == pytest.approx(69.5, rel=2e-3)


def test_single_steps_add_up_to_epochs() -> None:
    (merged,) = merge([shuffled(1, per_epoch=10)] * 31)
    assert merged == shuffled(31, per_epoch=10)
    assert merged.epochs == 4
    assert merged.rest_of_epoch.steps == 9
    (whole,) = merge([merged, merged.rest_of_epoch])
    assert (whole.epochs, whole.rest_of_epoch.steps) == (4, 0)


def test_a_broken_off_epoch_counts_when_its_rest_is_charged() -> None:
    # 3 of 8 batches ran, then a new epoch of 8: a unit may be in both.
    begun = shuffled(3, per_epoch=8)
    (charged,) = merge([begun, begun.rest_of_epoch, shuffled(8, per_epoch=8)])
    assert charged.epochs == 2


def test_noise_that_changes_within_an_epoch() -> None:
    # The 8 steps at the smaller noise lie in two epochs, so a unit may take part twice.
    changing = [
        shuffled(4, per_epoch=8, sigma=9.0),
        shuffled(8, per_epoch=8, sigma=1.0),
        shuffled(4, per_epoch=8, sigma=9.0),
    ]
    assert PldAccountant().epsilon(changing, delta=DELTA) >= PldAccountant().epsilon(
        [poisson(2, 1.0, 1.0)], delta=DELTA
    )


@given(st.integers(0, 1000), st.integers(1, 50))
def test_epochs_are_rounded_up(steps: int, per_epoch: int) -> None:
    event = shuffled(steps, per_epoch=per_epoch)
    assert event.epochs == math.ceil(steps / per_epoch)


# --- adaptive clipping ---------------------------------------------------------------------


def test_sum_and_count_are_one_gaussian() -> None:
    # z⁻² = z_Δ⁻² + (2 σ_b)⁻²
    event = adaptive(1.25, 1.0)
    assert event.combined_noise_multiplier == pytest.approx((1.25**-2 + 0.25) ** -0.5)
    assert adaptive(2.0, 1.0).combined_noise_multiplier == pytest.approx(math.sqrt(2))
    by = PldAccountant().coarse()
    assert by.epsilon([event], delta=DELTA) == by.epsilon(
        [poisson(sigma=event.combined_noise_multiplier)], delta=DELTA
    )
    assert by.epsilon([event], delta=DELTA) > by.epsilon([poisson(sigma=1.25)], delta=DELTA)


def test_a_count_without_noise_is_no_privacy() -> None:
    assert PldAccountant().epsilon([adaptive(1.2, 0.0, 1)], delta=DELTA) == math.inf


# --- all together --------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "expected"), [("pld", 5.084), ("rdp", 5.6), ("prv", 5.094)])
def test_all_kinds_compose_in_one_accountant(name: str, expected: float) -> None:
    listed = [poisson(2000), adaptive(1.0, 20.0, 1000), shuffled(98, sigma=4.0), poisson(500, 0.8)]
    by = make_accountant(name)  # type: ignore[arg-type]
    together = by.epsilon(listed, delta=DELTA)
    assert together < sum(by.epsilon([event], delta=DELTA) for event in listed)
    reference = PldAccountant().epsilon(listed, delta=DELTA)
    allowed = {"pld": (1, 1), "prv": (1, 1.01), "rdp": (1, 1.15)}[name]
    assert allowed[0] * reference <= together <= allowed[1] * reference
