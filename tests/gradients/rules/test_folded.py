from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from discreet.gradients import LayerwiseEngine
from tests.gradients.oracle import assert_same, one_by_one, per_image_loss, trainable
from tests.gradients.rules.test_conv import convolutions
from tests.gradients.rules.test_norms import BATCH_NORMS, CONVOLUTIONS, randomise

# PyTorch's own forward pass copies its input then; ours pads it.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")


@settings(deadline=None, max_examples=30)
@given(
    data=st.data(),
    dims=st.sampled_from((1, 2, 2, 3)),
    frozen=st.sets(st.sampled_from(("1.bias", "2.weight", "2.bias"))),
)
def test_every_folded_pair_agrees_with_the_oracle(
    data: st.DataObject, dims: int, frozen: set[str]
) -> None:
    conv, shape = data.draw(convolutions(dims=dims))
    first = CONVOLUTIONS[dims](shape[1], shape[1], 1)
    norm = randomise(BATCH_NORMS[dims](conv.weight.shape[0], eps=1e-3))
    model = nn.Sequential(first, conv, norm).eval()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    parameters, x = trainable(model), torch.randn(shape)
    expected = one_by_one(model, x)
    engine = LayerwiseEngine(model, parameters, benchmark=False)
    for _ in range(2):
        found = engine.per_example_gradients(lambda: per_image_loss(model, x))
        assert_same(found, expected, parameters, images=len(x))
    assert engine._folding._pairs == {conv: norm}


def test_a_norm_with_zero_scale_folds() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)).eval()
    nn.init.zeros_(model[1].weight)
    x, parameters = torch.randn(4, 3, 20, 20), trainable(model)
    expected = one_by_one(model, x)
    engine = LayerwiseEngine(model, parameters)
    for _ in range(2):
        found = engine.per_example_gradients(lambda: per_image_loss(model, x))
        assert_same(found, expected, parameters, images=4)
    assert found.squared_norms["1.weight"].min() > 0
    assert found.squared_norms["0.weight"].max() == 0


def test_a_norm_without_scale_and_shift_folds() -> None:
    norm = nn.BatchNorm2d(4, affine=False)
    model = randomise(nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.Conv2d(4, 2, 1))).eval()
    x, parameters = torch.randn(4, 3, 20, 20), trainable(model)
    engine = LayerwiseEngine(model, parameters)
    for _ in range(2):
        found = engine.per_example_gradients(lambda: per_image_loss(model, x))
        assert_same(found, one_by_one(model, x), parameters, images=4)
    assert engine._folding._pairs == {model[0]: norm}
