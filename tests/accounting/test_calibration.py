"""Calibration: meets the target, wastes little, and says when it cannot."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discreet.accounting import (
    Accountant,
    Event,
    PldAccountant,
    PoissonSampledGaussian,
    RdpAccountant,
    ShuffledGaussian,
    TruncatedPoissonSampledGaussian,
    calibrate_noise_multiplier,
    default_delta,
    make_accountant,
)
from discreet.errors import AccountingError, ConfigurationError
from discreet.privacy import NeighboringRelation

DELTA = 1e-5
# Of processor time; other work on the same core may double what is counted.
TWO_SECONDS = 2 * 2


def plain(q: float, steps: int) -> Callable[[float], Sequence[Event]]:
    def events(sigma: float) -> Sequence[Event]:
        return [PoissonSampledGaussian(sample_rate=q, noise_multiplier=sigma, steps=steps)]

    return events


def spent(sigma: float, q: float, steps: int, by: Accountant, delta: float = DELTA) -> float:
    event = PoissonSampledGaussian(sample_rate=q, noise_multiplier=sigma, steps=steps)
    return by.epsilon([event], delta=delta)


@pytest.mark.parametrize(
    ("name", "q", "steps", "expected", "digits"),
    [
        ("pld", 0.01024, 4883, 0.757, 5e-4),
        ("rdp", 0.01024, 4883, 0.786, 5e-4),
        ("pld", 0.01024, 9766, 0.888, 5e-4),
        ("rdp", 0.01024, 9766, 0.923, 5e-4),
        ("pld", 1.0, 100, 6.00, 5e-3),
    ],
)
def test_known_noise_multipliers(
    name: str, q: float, steps: int, expected: float, digits: float
) -> None:
    by = make_accountant(name)  # type: ignore[arg-type]
    began = time.process_time()
    sigma = calibrate_noise_multiplier(
        target_epsilon=8, delta=DELTA, events=plain(q, steps), accountant=by
    )
    assert time.process_time() - began < TWO_SECONDS
    assert sigma == pytest.approx(expected, abs=digits)
    assert 8 * 0.99 <= spent(sigma, q, steps, by) <= 8
    assert spent(sigma * 0.998, q, steps, by) > 8


def test_replace_one_wants_more_noise() -> None:
    by = PldAccountant(relation=NeighboringRelation.REPLACE_ONE)
    sigma = calibrate_noise_multiplier(
        target_epsilon=8, delta=DELTA, events=plain(0.01024, 4883), accountant=by
    )
    assert sigma > 0.9
    assert 8 * 0.99 <= spent(sigma, 0.01024, 4883, by) <= 8


N = 1_000_000
Q, T = 1024 / N, 48_829


@pytest.mark.parametrize(
    "events",
    [
        lambda z: [
            TruncatedPoissonSampledGaussian(
                sample_rate=Q, noise_multiplier=z, steps=T, population=N, largest_batch=1152
            )
        ],
        lambda z: [ShuffledGaussian(noise_multiplier=z, steps_per_epoch=977, steps=T)],
        lambda z: [
            PoissonSampledGaussian(sample_rate=Q, noise_multiplier=z * k, steps=9000)
            for k in (2.0, 1.5, 1.2, 1.0)
        ],
    ],
    ids=["truncated", "shuffle", "schedule"],
)
def test_any_plan_is_calibrated(events: Callable[[float], Sequence[Event]]) -> None:
    by = PldAccountant()
    sigma = calibrate_noise_multiplier(target_epsilon=8, delta=1e-7, events=events, accountant=by)
    assert 8 * 0.99 <= by.epsilon(events(sigma), delta=1e-7) <= 8


def test_prv_is_calibrated() -> None:
    by = make_accountant("prv")
    sigma = calibrate_noise_multiplier(
        target_epsilon=8, delta=DELTA, events=plain(0.01024, 4883), accountant=by
    )
    assert 8 * 0.99 <= spent(sigma, 0.01024, 4883, by) <= 8
    assert sigma == pytest.approx(0.7575, abs=1e-3)


@settings(max_examples=6, deadline=None)
@given(
    st.sampled_from([PldAccountant().coarse(), RdpAccountant()]),
    st.floats(0.3, 30),
    st.floats(2e-3, 0.3),
    st.integers(1, 1000),
    st.sampled_from([1e-3, 1e-5, 1e-6]),
)
def test_meets_the_target_and_wastes_little(
    by: Accountant, target: float, q: float, steps: int, delta: float
) -> None:
    sigma = calibrate_noise_multiplier(
        target_epsilon=target, delta=delta, events=plain(q, steps), accountant=by
    )
    assert spent(sigma, q, steps, by, delta) <= target
    # ε may jump from far above the target to 0 where δ alone covers every draw.
    assert spent(sigma * 0.99, q, steps, by, delta) > target or sigma == 0.01
    assert sigma == float(f"{sigma:.4e}"), "more digits than are published"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimistic:
    """An accountant whose coarse form under-reports."""

    name: ClassVar[str] = "pld"
    factor: float = 1.0
    version: str = ""
    relation: NeighboringRelation = NeighboringRelation.ADD_OR_REMOVE_ONE

    def epsilon(self, events: Sequence[Event], *, delta: float) -> float:
        return self.factor * PldAccountant(coarse_grid=True).epsilon(events, delta=delta)

    def delta(self, events: Sequence[Event], *, epsilon: float) -> float:
        raise NotImplementedError

    def coarse(self) -> Optimistic:
        return Optimistic(factor=0.9)


def test_the_accountant_asked_for_has_the_last_word() -> None:
    by = Optimistic()
    sigma = calibrate_noise_multiplier(
        target_epsilon=3, delta=DELTA, events=plain(0.05, 200), accountant=by
    )
    assert 3 * 0.99 <= spent(sigma, 0.05, 200, by) <= 3


@pytest.mark.parametrize("target", [0.0, -1.0, math.nan, math.inf, -math.inf])
def test_a_target_that_is_none_is_refused(target: float) -> None:
    with pytest.raises(AccountingError, match="epsilon"):
        calibrate_noise_multiplier(
            target_epsilon=target,
            delta=DELTA,
            events=plain(0.01, 100),
            accountant=PldAccountant(),
        )


@pytest.mark.parametrize("name", ["pld", "rdp"])
@pytest.mark.parametrize(("target", "q", "steps"), [(1e-9, 0.01, 5000), (8.0, 1.0, 10**9)])
def test_a_target_out_of_reach_says_what_to_do(
    name: str, target: float, q: float, steps: int
) -> None:
    with pytest.raises(AccountingError, match="no noise multiplier up to 10,000") as caught:
        calibrate_noise_multiplier(
            target_epsilon=target,
            delta=DELTA,
            events=plain(q, steps),
            accountant=make_accountant(name),  # type: ignore[arg-type]
        )
    assert f"{target:g}" in str(caught.value)
    assert "raise epsilon or delta" in str(caught.value)


def test_a_generous_target_still_gets_some_noise() -> None:
    by = PldAccountant()
    sigma = calibrate_noise_multiplier(
        target_epsilon=1e9, delta=DELTA, events=plain(1, 10), accountant=by
    )
    assert sigma == 0.01


@pytest.mark.parametrize(
    "wrong",
    [
        {"delta": 0.0},
        {"delta": 1.0},
        {"events": plain(0.0, 100)},
        {"events": plain(1.1, 100)},
        {"events": plain(0.01, 0)},
        {"events": lambda _: []},
    ],
)
def test_other_arguments_out_of_range(wrong: dict[str, object]) -> None:
    good: dict[str, object] = {"delta": DELTA, "events": plain(0.01, 100)}
    with pytest.raises(ConfigurationError):
        calibrate_noise_multiplier(
            target_epsilon=8,
            accountant=RdpAccountant(),
            **{**good, **wrong},  # type: ignore[arg-type]
        )


@pytest.mark.parametrize(
    ("n", "delta"),
    [
        (1, 1e-5),
        (4, 1e-5),
        (99, 1e-5),
        (100, 1e-3),
        (292, 1e-3),
        (999, 1e-3),
        (1000, 1e-4),
        (1008, 1e-4),
        (10**9, 1e-10),
    ],
)
def test_default_delta(n: int, delta: float) -> None:
    assert default_delta(n) == delta


@given(st.integers(100, 10**12))
def test_default_delta_is_below_one_over_n_and_no_smaller_than_needed(n: int) -> None:
    assert default_delta(n) * n < 1
    assert default_delta(n) * 10 * n >= 1 - 1e-9


@pytest.mark.parametrize("n", [0, -1, 2.5])
def test_default_delta_of_no_units(n: float) -> None:
    with pytest.raises(ConfigurationError, match="n"):
        default_delta(n)  # type: ignore[arg-type]
