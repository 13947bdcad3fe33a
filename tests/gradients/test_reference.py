from __future__ import annotations

import pytest
import torch
from torch import nn

from discreet.errors import ModelError
from discreet.gradients import ReferenceEngine
from tests.gradients.oracle import assert_same, one_by_one, per_image_loss, trainable


def model() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(16, 2))


def test_it_agrees_with_passes_over_single_images() -> None:
    network, x = model(), torch.randn(3, 3, 4, 4)
    engine = ReferenceEngine(network, trainable(network))
    found = engine.per_example_gradients(lambda: per_image_loss(network, x))
    assert_same(found, one_by_one(network, x), trainable(network), images=3)
    alone = engine.single_image_gradients(lambda i: per_image_loss(network, x[i : i + 1])[0], 3)
    assert_same(alone, found, trainable(network), images=3)


def test_by_hand() -> None:
    network = nn.Linear(2, 1, bias=False)
    x = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    engine = ReferenceEngine(network, trainable(network))
    found = engine.per_example_gradients(lambda: network(x).squeeze(1))
    assert found.squared_norms["weight"].tolist() == [25, 4]
    sums = found.weighted_sum({"weight": torch.tensor([1.0, 0.5])})
    assert sums["weight"].tolist() == [[3, 5]]


def test_a_gradient_that_is_not_finite_is_refused() -> None:
    network, x = model(), torch.randn(3, 3, 4, 4)
    x[1] = float("nan")
    engine = ReferenceEngine(network, trainable(network))
    with pytest.raises(ModelError, match="not finite"):
        engine.per_example_gradients(lambda: per_image_loss(network, x))
    alone = engine.single_image_gradients(lambda i: per_image_loss(network, x[i : i + 1])[0], 3)
    finite = torch.isfinite(alone.squared_norms["0.weight"])
    assert finite.tolist() == [True, False, True]
