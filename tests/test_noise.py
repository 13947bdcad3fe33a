from __future__ import annotations

import math
from threading import Event, Timer

import numpy as np
import pytest
import torch
from scipy import stats

from discreet.clipping import ClippedSum
from discreet.errors import ConfigurationError
from discreet.noise import DrawnAhead, GaussianMechanism, hardened_normal
from discreet.randomness import InsecureSource, SecureSource

SIZE = 400_000  # standard error of the measured scale: 0.11 %, so ±2 % is 18 of them


def scale_is(samples: np.ndarray, deviation: float) -> bool:
    """Accepts the scale within 0.6 %: five standard errors."""
    return abs(samples.std() / deviation - 1) < 5 / math.sqrt(2 * len(samples))


def zeros(**shapes: tuple[int, ...]) -> ClippedSum:
    return ClippedSum(
        sums={name: torch.zeros(shape) for name, shape in shapes.items()}, sensitivity=2.5
    )


def test_scale_is_multiplier_times_the_sensitivity_that_the_sum_carries():
    noised = GaussianMechanism(noise_multiplier=1.2).privatise(zeros(w=(SIZE,)), InsecureSource(0))
    samples = noised["w"].double().numpy()
    assert scale_is(samples, 1.2 * 2.5)
    assert not scale_is(samples, 1.2 * 2.5 * 1.02)
    assert not scale_is(samples, 1.2 * 2.5 * 0.98)
    assert abs(samples.mean()) < 5 * 3.0 / math.sqrt(SIZE)


def test_samples_are_normal_also_in_the_tail():
    samples = hardened_normal(SIZE, InsecureSource(1).stream())
    assert stats.kstest(samples, "norm").pvalue > 1e-4
    beyond = (np.abs(samples) > 4).sum()
    assert 5 < beyond < 60  # 25.3 expected


def test_every_parameter_gets_its_own_noise():
    noised = GaussianMechanism(noise_multiplier=1.0).privatise(
        zeros(a=(20_000,), b=(20_000,), c=(3, 4)), SecureSource()
    )
    assert set(noised) == {"a", "b", "c"}
    assert noised["c"].shape == (3, 4)
    assert torch.all(noised["c"] != 0)
    correlation = np.corrcoef(noised["a"].numpy(), noised["b"].numpy())[0, 1]
    assert abs(correlation) < 5 / math.sqrt(20_000)


def test_steps_are_independent_even_with_torch_and_numpy_reseeded():
    mechanism, outputs = GaussianMechanism(noise_multiplier=1.0), []
    for _ in range(2):
        torch.manual_seed(0)
        np.random.seed(0)
        outputs.append(mechanism.privatise(zeros(w=(20_000,)), SecureSource())["w"].numpy())
    assert abs(np.corrcoef(*outputs)[0, 1]) < 5 / math.sqrt(20_000)


def test_chunks_do_not_repeat():
    samples = hardened_normal(600_000, SecureSource().stream())
    assert abs(np.corrcoef(samples[:262_144], samples[262_144:524_288])[0, 1]) < 5 / 512


def test_zero_multiplier_adds_nothing_and_keeps_the_sum_apart():
    clipped = zeros(w=(3,))
    noised = GaussianMechanism(noise_multiplier=0.0).privatise(clipped, SecureSource())
    noised["w"] += 1
    assert torch.equal(clipped.sums["w"], torch.zeros(3))


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_bad_multipliers_are_refused(value: float):
    with pytest.raises(ConfigurationError, match="noise_multiplier"):
        GaussianMechanism(noise_multiplier=value)


ENTRIES = {"a": SIZE, "b": 12}


def sums() -> ClippedSum:
    return zeros(a=(SIZE // 4, 4), b=(3, 4))


def test_noise_drawn_ahead_has_the_same_scale_and_is_never_used_twice():
    with DrawnAhead(SecureSource(), ENTRIES) as ahead:
        mechanism = ahead.scaled_by(GaussianMechanism(noise_multiplier=1.2))
        first, second = (mechanism.privatise(sums(), SecureSource()) for _ in range(2))
    for noised in (first, second):
        assert noised["a"].shape == (SIZE // 4, 4)
        samples = noised["a"].double().numpy().ravel()
        assert scale_is(samples, 1.2 * 2.5)
        assert not scale_is(samples, 1.2 * 2.5 * 1.02)
        assert torch.all(noised["b"] != 0)
    correlation = np.corrcoef(first["a"].numpy().ravel(), second["a"].numpy().ravel())[0, 1]
    assert abs(correlation) < 5 / math.sqrt(SIZE)


def test_noise_drawn_ahead_is_reproducible_for_tests():
    outputs = []
    for _ in range(2):
        source = InsecureSource(3)
        with DrawnAhead(source, ENTRIES) as ahead:
            mechanism = ahead.scaled_by(GaussianMechanism(noise_multiplier=1.0))
            outputs.append([mechanism.privatise(sums(), source)["a"] for _ in range(2)])
    assert all(torch.equal(one, other) for one, other in zip(*outputs, strict=True))


def test_noise_drawn_ahead_takes_each_steps_own_scale():
    with DrawnAhead(SecureSource(), ENTRIES) as ahead:
        for multiplier in (2.0, 0.5):
            step = ahead.scaled_by(GaussianMechanism(noise_multiplier=multiplier))
            samples = step.privatise(sums(), SecureSource())["a"].double().numpy().ravel()
            assert scale_is(samples, multiplier * 2.5)


def test_what_was_drawn_for_a_failed_step_is_forgotten():
    source = InsecureSource(3)
    step = GaussianMechanism(noise_multiplier=1.0)
    with DrawnAhead(source, ENTRIES) as ahead, pytest.raises(RuntimeError, match="sums"):
        ahead.scaled_by(step).privatise(zeros(a=(SIZE,)), source)
    with DrawnAhead(InsecureSource(3), ENTRIES) as ahead:
        mechanism = ahead.scaled_by(step)
        drawn = mechanism.privatise(sums(), source)["a"]
        with pytest.raises(RuntimeError):
            mechanism.privatise(zeros(a=(5,)), source)
        again = mechanism.privatise(sums(), source)["a"]
    assert not torch.equal(drawn, again)


def test_too_much_to_wait_in_memory_is_drawn_when_needed():
    with DrawnAhead(SecureSource(), ENTRIES, most=10) as ahead:
        assert ahead._thread is None
        mechanism = ahead.scaled_by(GaussianMechanism(noise_multiplier=1.0))
        assert mechanism.privatise(sums(), SecureSource())["a"].any()


def test_no_noise_stays_no_noise():
    with DrawnAhead(SecureSource(), ENTRIES) as ahead:
        mechanism = ahead.scaled_by(GaussianMechanism(noise_multiplier=0.0))
        assert not mechanism.privatise(sums(), SecureSource())["a"].any()


def test_leaving_stops_what_nobody_will_take(monkeypatch: pytest.MonkeyPatch):
    begun, go_on, drawn = Event(), Event(), []

    def draw(count: int, stream: np.random.Generator) -> np.ndarray:
        drawn.append(count)
        begun.set()
        go_on.wait(timeout=60)
        return np.zeros(count)

    monkeypatch.setattr("discreet.noise.hardened_normal", draw)
    ahead = DrawnAhead(SecureSource(), {"a": 1, "b": 2, "c": 3})
    assert begun.wait(timeout=60)
    Timer(0.2, go_on.set).start()
    ahead.__exit__()
    assert drawn == [1]
