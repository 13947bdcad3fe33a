from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from discreet.accounting import PoissonSampledGaussian, merge
from discreet.config import MechanismConfig


def config(**changes: Any) -> MechanismConfig:
    values: dict[str, Any] = {
        "population": 1000, "expected_batch_size": 100, "steps": 50, "noise_multiplier": 2.0,
        "max_grad_norm": 1.0, "delta": 1e-5,
    } | changes  # fmt: skip
    return MechanismConfig(**values)


def test_constant_noise_is_one_event():
    assert config().planned_events() == (
        PoissonSampledGaussian(sample_rate=0.1, noise_multiplier=2.0, steps=50),
    )


@pytest.mark.parametrize(("schedule", "plateaus"), [("step", 4), ("exponential", 12)])
def test_noise_falls_in_plateaus_to_its_last_value(schedule: str, plateaus: int):
    made = config(noise_schedule=schedule, final_noise=0.5)
    values = [made.noise_multiplier_at(step) for step in range(1, 51)]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == plateaus
    assert values[0] == 2.0
    assert values[-1] == pytest.approx(1.0)
    ratios = {round(b / a, 9) for a, b in pairwise(values) if a != b}
    assert len(ratios) == 1  # a geometric series


@given(
    steps=st.integers(1, 200),
    until=st.integers(0, 250),
    schedule=st.sampled_from(["constant", "step", "exponential"]),
    sampling=st.sampled_from(["poisson", "shuffle", "truncated_poisson"]),
    batch=st.integers(1, 1000),
)
def test_planned_events_are_those_of_the_single_steps(
    steps: int, until: int, schedule: str, sampling: str, batch: int
):
    made = config(
        steps=steps,
        noise_schedule=schedule,
        final_noise=1.0 if schedule == "constant" else 0.25,
        sampling=sampling,
        expected_batch_size=batch,
        largest_batch=batch + 100 if sampling == "truncated_poisson" else None,
    )
    singles = [made.step_event(step) for step in range(1, min(steps, until) + 1)]
    assert made.planned_events(until) == merge(singles)


def test_noise_of_a_shuffled_run_moves_between_epochs_only():
    made = config(sampling="shuffle", noise_schedule="exponential", final_noise=0.5, steps=45)
    assert made.steps_per_epoch == 10
    values = [made.noise_multiplier_at(step) for step in range(1, 46)]
    assert set(Counter(values).values()) == {10, 5}
    epsilon = made.planned().epsilon
    sigma = [values[i] for i in range(0, 45, 10)]
    mu = math.sqrt(sum(s**-2 for s in sigma))
    unamplified = config(population=4, expected_batch_size=4, steps=1, noise_multiplier=1 / mu)
    assert epsilon == pytest.approx(unamplified.planned().epsilon, rel=1e-6)


def test_poisson_sampling_is_much_cheaper_than_shuffling():
    assert config(sampling="shuffle").planned().epsilon > 2 * config().planned().epsilon


@pytest.mark.parametrize(
    "changes",
    [
        {"largest_batch": 200},
        {"sampling": "truncated_poisson"},
        {"final_noise": 0.5},
        {"final_noise": 0.0, "noise_schedule": "step"},
        {"expected_batch_size": 1001},
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any]):
    with pytest.raises(ValidationError):
        config(**changes)
