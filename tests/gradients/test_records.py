from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from discreet.gradients.records import CHUNK, Held, RecordedGradients, squared_norms
from discreet.gradients.rules.conv_record import Recomputed
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
    conv = Recomputed(
        x,
        grad.unsqueeze(-1),
        gradients.new_zeros(outputs, gradients.shape[2], 1, 1),
        geometry,
        squared=squared_norms(gradients.flatten(1)),
    )
    half = torch.full((outputs,), 0.5)
    return [
        ("held", Held(gradients)),
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
        torch.testing.assert_close(record.per_image().view(5, 3, 4), gradients, msg=name)
        torch.testing.assert_close(
            record.squared_norms(), gradients.flatten(1).square().sum(1), msg=name
        )


def test_weight_zero_removes_what_is_not_finite() -> None:
    gradients = torch.randn(5, 3, 4)
    gradients[1, 0, 0], gradients[3, 2, 1] = float("nan"), float("inf")
    weights = torch.tensor([1.0, 0.0, -2.0, 0.0, 1.0])
    kept = torch.tensor([0, 2, 4])
    expected = torch.einsum("b,boc->oc", weights[kept], gradients[kept])
    for name, record in records(gradients):
        squared = record.squared_norms()
        assert torch.isfinite(squared).tolist() == [True, False, True, False, True], name
        found = record.weighted_sum(weights).view(3, 4)
        torch.testing.assert_close(found, expected, msg=name)
        nothing = record.weighted_sum(torch.zeros(5))
        assert not nothing.any(), name
        assert nothing.numel() == 12


def test_a_weight_that_is_not_zero_keeps_what_is_not_finite() -> None:
    gradients = torch.randn(2, 3, 4)
    gradients[1, 0, 0] = float("nan")
    for name, record in records(gradients):
        assert torch.isnan(record.weighted_sum(torch.ones(2))).any(), name


def test_parameters_without_records_are_zero() -> None:
    parameters = {"a": nn.Parameter(torch.ones(2, 3)), "b": nn.Parameter(torch.ones(()))}
    gradients = RecordedGradients(parameters, {"b": Held(torch.tensor([1.0, 2.0]))}, 2)
    assert gradients.squared_norms["a"].tolist() == [0, 0]
    assert gradients.squared_norms["b"].tolist() == [1, 4]
    sums = gradients.weighted_sum(dict.fromkeys(parameters, torch.ones(2)))
    assert sums["a"].tolist() == [[0, 0, 0], [0, 0, 0]]
    assert sums["b"].item() == 3
    assert not sums["a"].requires_grad
    assert gradients.per_image("a").shape == (2, 2, 3)
