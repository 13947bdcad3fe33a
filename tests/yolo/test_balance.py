"""Balanced class loss: an image's own labels decide, and nobody else's."""

from __future__ import annotations

import pytest
import torch

from discreet.yolo.class_balance import class_weights
from discreet.yolo.loss import PerImageLoss

from .conftest import make_batch, make_model


def losses(batch: dict[str, torch.Tensor], balance: float) -> torch.Tensor:
    model = make_model()
    with torch.no_grad():
        return PerImageLoss(model, balance=balance)(model(batch["img"]), batch)


def test_weights_are_those_of_the_formula():
    targets = torch.zeros(2, 6, 3)
    targets[0, :4, 0] = 1.0  # four anchors of one class, one of another
    targets[0, 4, 1] = 1.0
    targets[1, 0, 2] = 0.5
    weights = class_weights(targets, 0.5)
    assert weights[0, 0, 0] == pytest.approx((5 / (2 * 4)) ** 0.5)
    assert weights[0, 4, 1] == pytest.approx((5 / (2 * 1)) ** 0.5)
    assert weights[1, 0, 2] == 1.0  # alone in its image
    assert torch.all(weights[targets == 0] == 1)
    rare = torch.zeros(1, 1001, 2)
    rare[0, :1000, 0], rare[0, 1000, 1] = 1.0, 1.0
    assert float(class_weights(rare, 1.0).max()) == 10.0
    assert torch.all(class_weights(torch.zeros(1, 4, 3), 0.5) == 1)


def test_an_images_weights_do_not_depend_on_the_images_beside_it():
    whole = make_batch([3, 1, 0, 7])
    together = losses(whole, 0.5)
    alone = losses(make_batch([3]), 0.5)
    assert torch.allclose(together[0], alone[0], rtol=1e-4)
    assert not torch.allclose(together[:, 1], losses(whole, 0.0)[:, 1])
    assert torch.allclose(together[:, [0, 2]], losses(whole, 0.0)[:, [0, 2]], rtol=1e-5)
