"""Every kind of clipping: the sum never moves by more than the declared sensitivity."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from discreet.accounting import AdaptivelyClippedGaussian, PoissonSampledGaussian
from discreet.clipping import (
    AdaptiveClipping,
    AutomaticClipping,
    ClippedSum,
    Clipping,
    FlatClipping,
    GroupClipping,
)
from discreet.config import MechanismConfig
from discreet.randomness import make_source

from .test_clipping import flat, two_parameters
from .test_config import config

KINDS = ("flat", "automatic", "per_layer", "per_block", "adaptive")
BLOCKS = {"a": "neck", "b": "class branch"}


def rule(kind: str, bound: float = 1.0) -> Clipping:
    made = config(clipping=kind, max_grad_norm=bound)
    return made.make_clipping(BLOCKS)


def rows_of(norms: list[float]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(len(norms))
    rows = torch.nn.functional.normalize(torch.randn(len(norms), 7, generator=generator), dim=1)
    return rows * torch.tensor(norms)[:, None]


@pytest.mark.parametrize("kind", KINDS)
@given(
    norms=st.lists(st.floats(0, 1e6, width=32), min_size=1, max_size=6),
    bound=st.floats(1e-3, 1e3),
)
def test_adding_one_unit_moves_the_sum_by_at_most_the_declared_sensitivity(
    kind: str, norms: list[float], bound: float
):
    clipping = rule(kind, bound)
    rows = rows_of(norms)
    whole = clipping.clip_and_sum(two_parameters(rows))
    without = clipping.clip_and_sum(two_parameters(rows[1:]))
    moved = float((flat(whole.sums).double() - flat(without.sums).double()).norm())
    assert whole.sensitivity == clipping.sensitivity == bound
    assert moved <= clipping.sensitivity * (1 + 1e-6 * len(norms))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e30])
def test_a_unit_that_is_not_finite_contributes_zero_to_every_group(kind: str, poison: float):
    rows = torch.ones(3, 7)
    rows[1, 4] = poison
    whole = rule(kind).clip_and_sum(two_parameters(rows))
    others = rule(kind).clip_and_sum(two_parameters(rows[[0, 2]]))
    assert torch.allclose(flat(whole.sums), flat(others.sums))
    assert (whole.units, whole.non_finite) == (3, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_zero_gradients_and_empty_draws(kind: str):
    for rows in (torch.zeros(2, 7), torch.zeros(0, 7)):
        assert torch.all(flat(rule(kind).clip_and_sum(two_parameters(rows)).sums) == 0)


@pytest.mark.parametrize("kind", KINDS)
@given(norms=st.lists(st.floats(0, 1e3, width=32), min_size=1, max_size=4))
def test_rules_that_say_so_only_shrink(kind: str, norms: list[float]):
    clipping = rule(kind)
    for row in rows_of(norms).split(1):
        length = float(flat(clipping.clip_and_sum(two_parameters(row)).sums).norm())
        if clipping.only_shrinks:
            assert length <= float(row.norm()) * (1 + 1e-5)
        else:
            assert length == pytest.approx(float(row.norm()) / (float(row.norm()) + 0.01), rel=1e-4)


def test_groups_share_the_bound_by_the_root_of_their_number():
    rows = torch.tensor([[9.0, 0, 0, 0.1, 0, 0, 0]])
    clipped = GroupClipping(max_grad_norm=1.0, group_of=BLOCKS).clip_and_sum(two_parameters(rows))
    assert float(clipped.sums["a"].norm()) == pytest.approx(1 / math.sqrt(2), rel=1e-5)
    assert float(clipped.sums["b"].norm()) == pytest.approx(0.1)  # small enough: kept
    one = GroupClipping(max_grad_norm=1.0, group_of=dict.fromkeys(BLOCKS, "all"))
    assert float(one.clip_and_sum(two_parameters(rows)).sums["a"].norm()) == pytest.approx(1, 1e-3)


# ---- adaptive ----


def end(clipping: AdaptiveClipping, *, units: int, clipped: int, seed: int = 0) -> None:
    summed = ClippedSum(sums={}, sensitivity=1.0, units=units, clipped=clipped)
    clipping.end_step(summed, expected_batch_size=100, source=make_source(seed))


def test_the_bound_falls_where_most_units_are_within_it_and_rises_where_few_are():
    def after(clipped: int) -> float:
        clipping = AdaptiveClipping(max_grad_norm=1.0, count_noise_multiplier=0.0)
        end(clipping, units=100, clipped=clipped)
        return clipping.max_grad_norm

    assert after(0) == pytest.approx(math.exp(-0.2 * 0.5))
    assert after(50) == 1.0
    assert after(100) == pytest.approx(math.exp(0.2 * 0.5))
    # A unit moves the count by 1/2, no more, drawn or clipped or neither.
    assert after(50) / after(51) == pytest.approx(math.exp(-0.2 * 0.01))


def test_the_count_carries_the_noise_that_is_accounted():
    bounds: list[float] = []
    for seed in range(300):
        clipping = AdaptiveClipping(max_grad_norm=1.0, count_noise_multiplier=7.0)
        end(clipping, units=100, clipped=50, seed=seed)
        bounds.append(math.log(clipping.max_grad_norm) / -0.2 * 100)
    assert np.std(bounds) == pytest.approx(7.0, rel=0.15)


def test_the_event_of_adaptive_clipping_pays_for_the_count():
    made = config(clipping="adaptive")
    rule_of_run = made.make_clipping()
    assert isinstance(rule_of_run, AdaptiveClipping)
    assert made.planned_events() == (
        AdaptivelyClippedGaussian(
            sample_rate=0.1,
            noise_multiplier=2.0,
            count_noise_multiplier=rule_of_run.count_noise_multiplier,
            steps=50,
        ),
    )
    assert made.planned().epsilon > config().planned().epsilon


def test_adaptive_clipping_needs_poisson_sampling():
    changes: dict[str, Any] = {"sampling": "shuffle", "clipping": "adaptive"}
    with pytest.raises(ValueError, match="Poisson"):
        config(**changes)


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "adaptive"])
def test_all_other_kinds_cost_what_flat_clipping_costs(kind: str):
    made: MechanismConfig = config(clipping=kind)
    (event,) = made.planned_events()
    assert event == PoissonSampledGaussian(sample_rate=0.1, noise_multiplier=2.0, steps=50)
    rule_of_run = made.make_clipping()
    before = rule_of_run.sensitivity
    summed = ClippedSum(sums={}, sensitivity=1.0, units=9, clipped=1)
    rule_of_run.end_step(summed, expected_batch_size=10, source=make_source(0))
    assert rule_of_run.sensitivity == before


def test_the_kinds_are_what_they_are_called():
    kinds = [FlatClipping, AutomaticClipping, GroupClipping, GroupClipping, AdaptiveClipping]
    assert [type(rule(kind)) for kind in KINDS] == kinds
