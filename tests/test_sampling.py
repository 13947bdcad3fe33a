"""Samplers: rates, independence, and events that are true of what they do."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from scipy import stats

from discreet.accounting import (
    PoissonSampledGaussian,
    ShuffledGaussian,
    TruncatedPoissonSampledGaussian,
)
from discreet.errors import ConfigurationError
from discreet.randomness import InsecureSource, SecureSource
from discreet.sampling import PoissonSampler, Sampler, ShuffleSampler, TruncatedPoissonSampler

# A million decisions each.
N, DRAWS, RATE = 200, 5000, 0.1


def table(sampler: Sampler, seed: int = 1, draws: int = DRAWS) -> np.ndarray:
    """(draws, N) of 0 and 1."""
    source, out = InsecureSource(seed), np.zeros((draws, N))
    for row in out:
        row[sampler.draw(source.stream())] = 1
    return out


def deviations(drawn: np.ndarray, rate: float) -> dict[str, float]:
    """How many standard deviations off independent draws at the rate, by kind of fault."""
    variance, steps = rate * (1 - rate), len(drawn)
    centred = drawn - rate
    pairs = (centred.T @ centred) / (steps * variance) * np.sqrt(steps)
    np.fill_diagonal(pairs, 0)
    lagged = (centred[1:] * centred[:-1]).sum() / (variance * np.sqrt(drawn.size))
    return {
        "rate": abs(centred.sum()) / np.sqrt(variance * drawn.size),
        "unit": np.abs(centred.sum(0)).max() / np.sqrt(variance * steps),
        "pairs": np.abs(pairs).max(),
        "sizes": abs(drawn.sum(1).var() / (N * variance) - 1) / np.sqrt(2 / steps),
        "steps": abs(lagged),
    }


# About one false alarm in 10^4 tests of each kind, more units and pairs being looked at.
LIMITS = {"rate": 4, "unit": 5.5, "pairs": 6.5, "sizes": 4.5, "steps": 4}


def faults(drawn: np.ndarray, rate: float) -> set[str]:
    return {kind for kind, off in deviations(drawn, rate).items() if off > LIMITS[kind]}


def test_poisson_draws_at_its_rate_and_independently():
    assert faults(table(PoissonSampler(population=N, sample_rate=RATE)), RATE) == set()


@pytest.mark.parametrize("factor", [0.98, 1.02])
def test_a_rate_off_by_two_percent_is_seen(factor: float):
    drawn = table(PoissonSampler(population=N, sample_rate=RATE * factor))
    assert "rate" in faults(drawn, RATE)


@dataclass
class Faulty:
    """Draws that are wrong in one way, at the right rate."""

    how: str

    def __post_init__(self) -> None:
        self.good = PoissonSampler(population=N, sample_rate=RATE)
        self.last = np.empty(0, dtype=np.int64)

    def draw(self, stream: np.random.Generator) -> np.ndarray:
        drawn = self.good.draw(stream)
        match self.how:
            case "fixed size":
                return stream.choice(N, int(N * RATE), replace=False)
            case "twins":  # units 0 and 1 always together
                return np.union1d(drawn[drawn > 1], [0, 1] if 0 in drawn else []).astype(int)
            case "sticky":  # one step in fifty is the one before
                repeated = len(self.last) > 0 and stream.random() < 0.02
                self.last = self.last if repeated else drawn
                return self.last
            case _:  # every unit but one
                return drawn[drawn > 0]


@pytest.mark.parametrize(
    ("how", "fault"),
    [("fixed size", "sizes"), ("twins", "pairs"), ("sticky", "steps"), ("one left out", "unit")],
)
def test_draws_that_are_not_independent_are_seen(how: str, fault: str):
    assert fault in faults(table(Faulty(how)), RATE)  # type: ignore[arg-type]


# --- truncated -----------------------------------------------------------------------------


def test_truncated_draws_are_cut_fairly():
    largest = 22
    sampler = TruncatedPoissonSampler(population=N, sample_rate=RATE, largest_batch=largest)
    drawn = table(sampler)
    sizes = drawn.sum(1)
    assert sizes.max() == largest
    # Sizes are binomial, cut: the share of full batches and of every smaller size.
    full = stats.binom.sf(largest - 1, N, RATE)
    assert abs((sizes == largest).mean() - full) < 4 * np.sqrt(full / DRAWS)
    smaller = stats.binom.pmf(np.arange(largest), N, RATE) @ np.arange(largest)
    rate = float(smaller + largest * full) / N
    off = deviations(drawn, rate)
    assert off["rate"] < 4
    # The subset that is kept is uniform: no unit is favoured.
    assert off["unit"] < 5.5


def test_a_generous_cap_draws_what_poisson_draws():
    capped = TruncatedPoissonSampler(population=N, sample_rate=RATE, largest_batch=N)
    plain = PoissonSampler(population=N, sample_rate=RATE)
    assert np.array_equal(table(capped, draws=50), table(plain, draws=50))


# --- shuffling -----------------------------------------------------------------------------

EPOCH = 10


def test_shuffled_epochs_hold_every_unit_once():
    sampler = ShuffleSampler(population=N, steps_per_epoch=EPOCH)
    drawn = table(sampler)
    per_epoch = drawn.reshape(-1, EPOCH, N).sum(1)
    assert np.all(per_epoch == 1)


def test_shuffled_batches_are_balls_in_bins():
    # One batch of each epoch: every unit at 1/EPOCH, independently of all others and of the
    # same batch of the next epoch. Batches of one size would fail by their sizes.
    drawn = table(ShuffleSampler(population=N, steps_per_epoch=EPOCH), draws=DRAWS)
    for position in (0, EPOCH // 2, EPOCH - 1):
        assert faults(drawn[position::EPOCH], 1 / EPOCH) == set()


def test_leaving_a_unit_out_moves_no_other():
    # What the event's sensitivity rests on: the last unit's draw comes last.
    def dealt(n: int) -> list[np.ndarray]:
        sampler, source = ShuffleSampler(population=n, steps_per_epoch=4), InsecureSource(3)
        return [sampler.draw(source.stream()) for _ in range(4)]

    for more, fewer in zip(dealt(50), dealt(49), strict=True):
        assert np.array_equal(more[more < 49], fewer)


def test_shuffle_state_is_in_the_object_only():
    sampler, source = ShuffleSampler(population=N, steps_per_epoch=3), InsecureSource(5)
    positions = [sampler.epoch_position]
    for _ in range(4):
        sampler.draw(source.stream())
        positions.append(sampler.epoch_position)
    assert positions == [0, 1, 2, 0, 1]
    for store in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="never pickled"):
            store(sampler)
    assert ShuffleSampler(population=N, steps_per_epoch=3).epoch_position == 0


# --- events --------------------------------------------------------------------------------


def participations(sampler: Sampler, steps: int, runs: int) -> np.ndarray:
    """How often each unit took part, (runs · N,)."""
    return np.concatenate([table(sampler, seed, steps).sum(0) for seed in range(runs)])


def fits(counts: np.ndarray, probabilities: Sequence[float]) -> bool:
    """Chi-squared test of counts 0, 1, … at about one false alarm in 10^4."""
    expected = np.array(probabilities) * len(counts)
    seen = np.bincount(counts.astype(int), minlength=len(expected))
    assert len(seen) == len(expected), "took part more often than it may"
    usual = expected > 5
    statistic = ((seen - expected)[usual] ** 2 / expected[usual]).sum()
    return bool(stats.chi2.sf(statistic, usual.sum() - 1) > 1e-4)


def test_poisson_event_is_what_the_sampler_does():
    sampler = PoissonSampler(population=N, sample_rate=RATE)
    event = sampler.event(noise_multiplier=1.2, steps=20)
    assert event == PoissonSampledGaussian(sample_rate=RATE, noise_multiplier=1.2, steps=20)
    counts = participations(sampler, event.steps, 50)
    law = stats.binom.pmf(np.arange(event.steps + 1), event.steps, event.sample_rate)
    assert fits(counts, law)
    wrong = stats.binom.pmf(np.arange(event.steps + 1), event.steps, event.sample_rate * 1.1)
    assert not fits(counts, wrong)


def test_truncated_event_is_what_the_sampler_does():
    sampler = TruncatedPoissonSampler(population=N, sample_rate=RATE, largest_batch=18)
    event = sampler.event(noise_multiplier=1.2, steps=20)
    assert event == TruncatedPoissonSampledGaussian(
        sample_rate=RATE, noise_multiplier=1.2, steps=20, population=N, largest_batch=18
    )
    counts = participations(sampler, event.steps, 50)
    sizes = np.minimum(np.arange(N + 1), event.largest_batch)
    kept = float(stats.binom.pmf(np.arange(N + 1), N, event.sample_rate) @ sizes) / N
    assert fits(counts, stats.binom.pmf(np.arange(event.steps + 1), event.steps, kept))
    assert not fits(counts, stats.binom.pmf(np.arange(event.steps + 1), event.steps, RATE))


def test_shuffled_event_is_what_the_sampler_does():
    sampler = ShuffleSampler(population=N, steps_per_epoch=EPOCH)
    event = sampler.event(noise_multiplier=1.2, steps=25)
    assert event == ShuffledGaussian(noise_multiplier=1.2, steps_per_epoch=EPOCH, steps=25)
    drawn = table(sampler, draws=event.steps)
    assert drawn.sum(0).max() == event.epochs == 3
    assert drawn.sum(0).min() == 2


def test_kinds_are_named():
    kinds = [PoissonSampler.kind, TruncatedPoissonSampler.kind, ShuffleSampler.kind]
    assert kinds == ["poisson", "truncated_poisson", "shuffle"]


# --- edges ---------------------------------------------------------------------------------


def test_full_rate_draws_everyone_and_empty_draws_happen():
    stream = SecureSource().stream()
    assert np.array_equal(PoissonSampler(population=5, sample_rate=1.0).draw(stream), np.arange(5))
    rare = PoissonSampler(population=2, sample_rate=1e-9)
    assert rare.draw(stream).shape == (0,)


def test_indices_are_distinct_and_ascending():
    for sampler in (
        PoissonSampler(population=1000, sample_rate=0.5),
        TruncatedPoissonSampler(population=1000, sample_rate=0.5, largest_batch=400),
        ShuffleSampler(population=1000, steps_per_epoch=2),
    ):
        drawn = sampler.draw(SecureSource().stream())
        assert drawn.dtype == np.int64
        assert np.all(np.diff(drawn) > 0)


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.5, float("nan")])
def test_bad_rates_are_refused(rate: float):
    with pytest.raises(ConfigurationError, match="sample_rate"):
        PoissonSampler(population=10, sample_rate=rate)
    with pytest.raises(ConfigurationError, match="sample_rate"):
        TruncatedPoissonSampler(population=10, sample_rate=rate, largest_batch=5)
