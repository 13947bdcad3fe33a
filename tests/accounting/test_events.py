"""Events: validated, immutable, and read back exactly or not at all."""

from __future__ import annotations

import dataclasses
import json
import math

import dp_accounting
import pytest
from hypothesis import given
from hypothesis import strategies as st

from discreet.accounting import PoissonSampledGaussian, event_from_json, merge
from discreet.errors import AccountingError, ConfigurationError

EVENT = PoissonSampledGaussian(sample_rate=0.01, noise_multiplier=1.2, steps=5000)

events = st.builds(
    PoissonSampledGaussian,
    sample_rate=st.floats(0, 1, exclude_min=True),
    noise_multiplier=st.floats(0, 1e6),
    steps=st.integers(0, 10**9),
)


@given(events)
def test_json_round_trip_is_exact(event: PoissonSampledGaussian) -> None:
    text = json.dumps(event.to_json(), allow_nan=False)
    assert event_from_json(json.loads(text)) == event


def test_json_says_what_kind_it_is() -> None:
    assert EVENT.to_json() == {
        "kind": "poisson_sampled_gaussian",
        "sample_rate": 0.01,
        "noise_multiplier": 1.2,
        "steps": 5000,
    }


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"kind": "laplace"}, "laplace"),
        ({"kind": "shuffled_gaussian"}, "missing 'steps_per_epoch', unknown key 'sample_rate'"),
        ({"kind": None}, "None"),
        ({"kind": ["poisson_sampled_gaussian"]}, "poisson_sampled_gaussian"),
        ({"seed": 7}, "seed"),
        ({"steps": 10.0}, "steps"),
        ({"steps": True}, "steps"),
        ({"steps": -1}, "steps"),
        ({"steps": "10"}, "steps"),
        ({"sample_rate": "0.01"}, "sample_rate"),
        ({"sample_rate": 0}, "sample_rate"),
        ({"sample_rate": 1.01}, "sample_rate"),
        ({"noise_multiplier": -1.0}, "noise_multiplier"),
        ({"noise_multiplier": math.nan}, "noise_multiplier"),
        ({"noise_multiplier": math.inf}, "noise_multiplier"),
        ({"noise_multiplier": None}, "noise_multiplier"),
    ],
)
def test_json_that_is_not_understood_is_refused(change: dict[str, object], named: str) -> None:
    with pytest.raises(AccountingError, match=named):
        event_from_json({**EVENT.to_json(), **change})


@pytest.mark.parametrize("key", ["kind", "sample_rate", "noise_multiplier", "steps"])
def test_json_with_a_missing_key_is_refused(key: str) -> None:
    data = EVENT.to_json()
    del data[key]
    with pytest.raises(AccountingError):
        event_from_json(data)


def test_json_that_is_not_an_object_is_refused() -> None:
    with pytest.raises(AccountingError, match="list"):
        event_from_json([EVENT.to_json()])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "arguments",
    [
        {"sample_rate": 0.0, "noise_multiplier": 1.0, "steps": 1},
        {"sample_rate": math.nan, "noise_multiplier": 1.0, "steps": 1},
        {"sample_rate": 1.5, "noise_multiplier": 1.0, "steps": 1},
        {"sample_rate": 0.5, "noise_multiplier": -0.1, "steps": 1},
        {"sample_rate": 0.5, "noise_multiplier": math.nan, "steps": 1},
        {"sample_rate": 0.5, "noise_multiplier": math.inf, "steps": 1},
        {"sample_rate": 0.5, "noise_multiplier": 1.0, "steps": -1},
        {"sample_rate": 0.5, "noise_multiplier": 1.0, "steps": 1.5},
    ],
)
def test_values_out_of_range_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        PoissonSampledGaussian(**arguments)  # type: ignore[arg-type]


def test_events_are_immutable_and_hashable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        EVENT.steps = 1  # type: ignore[misc]
    assert len({EVENT, EVENT.with_steps(5000), EVENT.with_steps(1)}) == 2


def test_full_batch_is_the_gaussian_mechanism() -> None:
    full = PoissonSampledGaussian(sample_rate=1, noise_multiplier=1.2, steps=3)
    gaussian = dp_accounting.GaussianDpEvent(1.2)
    assert full.to_dp_event() == dp_accounting.SelfComposedDpEvent(gaussian, 3)
    assert EVENT.with_steps(3).to_dp_event() == dp_accounting.SelfComposedDpEvent(
        dp_accounting.PoissonSampledDpEvent(0.01, gaussian), 3
    )
    assert EVENT.with_steps(0).to_dp_event() == dp_accounting.NoOpDpEvent()


def test_merge_adds_up_equal_neighbours_only() -> None:
    one, other = (
        EVENT.with_steps(1),
        PoissonSampledGaussian(sample_rate=0.01, noise_multiplier=1.3, steps=1),
    )
    merged = merge([one, one, one.with_steps(0), one.with_steps(5), other, other, one])
    assert merged == (one.with_steps(7), other.with_steps(2), one)
    assert merge([]) == ()
    assert merge([one.with_steps(0)]) == ()


@given(st.lists(st.sampled_from([EVENT.with_steps(2), EVENT.with_steps(0), EVENT])))
def test_merge_keeps_every_step(listed: list[PoissonSampledGaussian]) -> None:
    assert sum(e.steps for e in merge(listed)) == sum(e.steps for e in listed)
