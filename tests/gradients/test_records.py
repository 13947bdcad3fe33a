from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from discreet.gradients.records import (
    CHUNK,
    Held,
    RecordedGradients,
    SideBySide,
    Units,
    squared_norms,
)
from discreet.gradients.rules.conv_record import ConvPass, Recomputed
from discreet.gradients.rules.geometry import Geometry
from discreet.gradients.rules.linear import LinearFactors


@settings(deadline=None, max_examples=30)
@given(
    images=st.integers(0, 4),
    length=st.one_of(
        st.integers(1, 50),
        st.integers(CHUNK - 2, CHUNK + 2),
        st.sampled_from((2 * CHUNK, 3 * CHUNK + 7, 300_000)),
    ),
    seed=st.integers(0, 99),
)
def test_norms_of_long_rows_keep_their_last_digits(images: int, length: int, seed: int) -> None:
    rows = torch.randn(images, length, generator=torch.Generator().manual_seed(seed))
    expected = rows.double().square().sum(1)
    # Half the margin of clipping: on squares, twice the relative error.
    torch.testing.assert_close(squared_norms(rows).double(), expected, rtol=1e-6, atol=0)


def test_a_plain_norm_of_a_long_row_loses_them() -> None:
    rows = torch.randn(8, 300_000)
    plain = torch.linalg.vector_norm(rows, dim=1).square().double()
    expected = rows.double().square().sum(1)
    assert (plain / expected - 1).abs().max() > (squared_norms(rows) / expected - 1).abs().max()


def records(gradients: Tensor) -> list[tuple[str, Held | Recomputed | LinearFactors]]:
    """The same gradients (B, O, C) in every form, as of T = 1."""
    images, outputs, _ = gradients.shape
    grad = torch.eye(outputs).repeat(images, 1, 1)  # position t gives row t of the gradient
    geometry = Geometry(stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1)
    x = gradients.transpose(1, 2).unsqueeze(-1).contiguous()  # (B, C, T, 1)
    source = ConvPass(
        x=x,
        grad=grad.unsqueeze(-1),
        weight=gradients.new_zeros(outputs, gradients.shape[2], 1, 1),
        geometry=geometry,
    )
    conv = source.record(squared_norms(gradients.flatten(1)))
    half = torch.full((outputs,), 0.5)
    return [
        ("held", Held(gradients)),
        ("reordered", Held(gradients.unsqueeze(-1).transpose(2, 3).contiguous().transpose(2, 3))),
        ("scaled", Held(gradients * 2, half)),
        ("factors", LinearFactors(gradients, grad)),
        ("recomputed", conv),
    ]


def test_every_record_sums_the_same() -> None:
    gradients, weights = torch.randn(5, 3, 4), torch.tensor([1.0, 0.0, -2.0, 0.5, 0.0])
    expected = torch.einsum("b,boc->oc", weights, gradients)
    for name, record in records(gradients):
        found = record.weighted_sum(weights).view(3, 4)
        torch.testing.assert_close(found, expected, msg=name)
        torch.testing.assert_close(record.per_example().view(5, 3, 4), gradients, msg=name)
        torch.testing.assert_close(
            record.squared_norms(), gradients.flatten(1).square().sum(1), msg=name
        )


def test_what_is_not_finite_is_left_out() -> None:
    gradients = torch.randn(5, 3, 4)
    gradients[1, 0, 0], gradients[3, 2, 1] = float("nan"), float("inf")
    weights = torch.tensor([1.0, 0.0, -2.0, 0.0, 1.0])
    expected = torch.einsum("b,boc->oc", weights[weights != 0], gradients[weights != 0])
    for name, record in records(gradients):
        squared = record.squared_norms()
        assert torch.isfinite(squared).tolist() == [True, False, True, False, True], name
        found = record.weighted_sum(weights, weights != 0).view(3, 4)
        torch.testing.assert_close(found, expected, msg=name)
        nothing = record.weighted_sum(torch.zeros(5), torch.zeros(5, dtype=torch.bool))
        assert not nothing.any(), name
        assert nothing.numel() == 12


@pytest.mark.parametrize("small", [0, 1])
@pytest.mark.parametrize("alike", [True, False])
def test_weight_zero_removes_what_is_not_finite(small: int, alike: bool) -> None:
    parameters = {name: nn.Parameter(torch.zeros(2, 3)) for name in ("a", "b")}
    gradients = {name: torch.randn(3, 2, 3) for name in parameters}
    gradients["a"][1, 0, 2] = float("nan")
    side_by_side = SideBySide(parameters if small else {}, 3)
    for name in parameters if small else ():
        side_by_side.add(name, gradients[name])
    held = {} if small else {name: Held(g) for name, g in gradients.items()}
    found = RecordedGradients(parameters, held, 3, small=side_by_side)
    weights = {"a": torch.tensor([1.0, 0.0, 2.0])}
    weights["b"] = weights["a"] if alike else torch.tensor([1.0, 1.0, 0.0])
    sums = found.weighted_sum(weights)
    torch.testing.assert_close(sums["a"], gradients["a"][0] + 2 * gradients["a"][2])
    expected = torch.einsum("b,boc->oc", weights["b"], gradients["b"])
    torch.testing.assert_close(sums["b"], expected)
    assert torch.isfinite(found.squared_norms["a"]).tolist() == [True, False, True]
    # A weight that is not zero keeps what is not finite: nothing is hidden.
    kept = found.weighted_sum(dict.fromkeys(parameters, torch.ones(3)))
    assert torch.isnan(kept["a"]).any()


@settings(deadline=None, max_examples=30)
@given(examples=st.integers(0, 4), lengths=st.lists(st.integers(1, 4096), min_size=1, max_size=4))
def test_norms_side_by_side_keep_their_last_digits(examples: int, lengths: list[int]) -> None:
    parameters = {str(i): nn.Parameter(torch.zeros(n)) for i, n in enumerate(lengths)}
    side_by_side = SideBySide(parameters, examples)
    gradients = {name: torch.randn(examples, *p.shape) for name, p in parameters.items()}
    for name in parameters:
        side_by_side.add(name, gradients[name])
        side_by_side.add(name, gradients[name])
    for name, norms in side_by_side.squared_norms().items():
        expected = (2 * gradients[name].double()).square().sum(1)
        torch.testing.assert_close(norms.double(), expected, rtol=2e-7, atol=0)


@settings(deadline=None, max_examples=30)
@given(units=st.integers(1, 4), images=st.integers(0, 6), seed=st.integers(0, 99))
def test_units_add_their_images(units: int, images: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(units, (images,), generator=generator)
    gradients = torch.randn(images, 2, 3, generator=generator)
    found = Units(index=index, count=units).sum(gradients)
    for unit in range(units):
        torch.testing.assert_close(found[unit], gradients[index == unit].sum(0))


def test_parameters_without_records_are_zero() -> None:
    parameters = {"a": nn.Parameter(torch.ones(2, 3)), "b": nn.Parameter(torch.ones(()))}
    gradients = RecordedGradients(parameters, {"b": Held(torch.tensor([1.0, 2.0]))}, 2)
    assert gradients.squared_norms["a"].tolist() == [0, 0]
    assert gradients.squared_norms["b"].tolist() == [1, 4]
    sums = gradients.weighted_sum(dict.fromkeys(parameters, torch.ones(2)))
    assert sums["a"].tolist() == [[0, 0, 0], [0, 0, 0]]
    assert sums["b"].item() == 3
    assert not sums["a"].requires_grad
    assert gradients.per_example("a").shape == (2, 2, 3)
