from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from discreet.clipping import FlatClipping
from discreet.errors import ConfigurationError


class Stored:
    """Per-example gradients held as tensors (B, …): the plainest implementation."""

    def __init__(self, gradients: Mapping[str, Tensor]) -> None:
        self.gradients = gradients

    @property
    def squared_norms(self) -> dict[str, Tensor]:
        return {name: g.flatten(1).pow(2).sum(1) for name, g in self.gradients.items()}

    def weighted_sum(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        out = {}
        for name, gradient in self.gradients.items():
            kept = weights[name] != 0
            out[name] = torch.einsum("b,b...->...", weights[name][kept], gradient[kept])
        return out


def two_parameters(rows: Tensor) -> Stored:
    return Stored({"a": rows[:, :3], "b": rows[:, 3:].reshape(len(rows), 2, 2)})


def flat(sums: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([value.flatten() for value in sums.values()])


def test_norm_is_over_all_parameters_together():
    rows = torch.tensor([[3.0, 0, 0, 4.0, 0, 0, 0], [0.3, 0, 0, 0.4, 0, 0, 0]])
    clipped = FlatClipping(max_grad_norm=1.0).clip_and_sum(two_parameters(rows))
    expected = rows[0] / 5 + rows[1]
    assert torch.allclose(flat(clipped.sums), expected, atol=1e-5)
    assert (clipped.units, clipped.clipped, clipped.non_finite) == (2, 1, 0)
    assert clipped.sensitivity == 1.0


@given(
    norms=st.lists(st.floats(0, 1e6, width=32), min_size=1, max_size=6),
    bound=st.floats(1e-3, 1e3),
)
def test_adding_one_unit_moves_the_sum_by_at_most_the_sensitivity(norms: list[float], bound: float):
    generator = torch.Generator().manual_seed(len(norms))
    rows = torch.nn.functional.normalize(torch.randn(len(norms), 7, generator=generator), dim=1)
    rows *= torch.tensor(norms)[:, None]
    clipping = FlatClipping(max_grad_norm=bound)
    whole = flat(clipping.clip_and_sum(two_parameters(rows)).sums).double()
    without = flat(clipping.clip_and_sum(two_parameters(rows[1:])).sums).double()
    rounding = 1e-6 * bound * len(norms)
    assert float((whole - without).norm()) <= clipping.sensitivity + rounding


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_a_unit_that_is_not_finite_contributes_zero(poison: float):
    rows = torch.ones(3, 7) * 0.1
    rows[1, 4] = poison
    clipped = FlatClipping(max_grad_norm=1.0).clip_and_sum(two_parameters(rows))
    assert torch.allclose(flat(clipped.sums), torch.full((7,), 0.2))
    assert clipped.non_finite == 1


def test_zero_gradient_and_empty_batch():
    clipping = FlatClipping(max_grad_norm=1.0)
    assert torch.all(flat(clipping.clip_and_sum(two_parameters(torch.zeros(2, 7))).sums) == 0)
    empty = clipping.clip_and_sum(two_parameters(torch.zeros(0, 7)))
    assert empty.units == 0
    assert torch.all(flat(empty.sums) == 0)


@pytest.mark.parametrize("bound", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_bounds_are_refused(bound: float):
    with pytest.raises(ConfigurationError, match="max_grad_norm"):
        FlatClipping(max_grad_norm=bound)
