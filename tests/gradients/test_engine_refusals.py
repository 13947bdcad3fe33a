"""What engines refuse: layers and losses that mix images, and parameters of elsewhere."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from discreet.errors import ModelError, UnsupportedLayerError
from discreet.gradients import LayerwiseEngine, OpacusEngine, Units, make_engine
from tests.gradients.engines import ALL, EXACT, small, snapshot
from tests.gradients.oracle import per_image_loss, trainable


def test_a_norm_put_in_training_mode_by_the_losses_is_refused() -> None:
    model = small()
    engine = LayerwiseEngine(model, trainable(model))

    def losses() -> Tensor:
        model[1].train()
        return per_image_loss(model, torch.randn(2, 3, 8, 8))

    with pytest.raises(ModelError, match="1: batch normalisation by the statistics"):
        engine.per_example_gradients(losses)


@ALL
def test_batch_statistics_are_refused(name: str) -> None:
    model = small()
    engine = make_engine(name, model, {"7.weight": model[7].weight})
    model[1].requires_grad_(False).train()  # frozen, but normalising by the batch
    with pytest.raises(ModelError, match="1: batch normalisation by the statistics of the batch"):
        engine.per_example_gradients(lambda: per_image_loss(model, torch.randn(2, 3, 8, 8)))
    without = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2, track_running_stats=False)).eval()
    with pytest.raises(ModelError, match="batch normalisation"):
        make_engine(name, without, trainable(without)).per_example_gradients(
            lambda: per_image_loss(without, torch.randn(2, 3, 8, 8))
        )


@ALL
def test_running_statistics_of_instances_are_refused(name: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.InstanceNorm2d(2, track_running_stats=True))
    with pytest.raises(ModelError, match="1: running statistics"):
        make_engine(name, model, trainable(model)).per_example_gradients(
            lambda: per_image_loss(model, torch.randn(2, 3, 8, 8))
        )


@ALL
@pytest.mark.parametrize("losses", [torch.zeros(2, 2), torch.tensor(1.0), torch.zeros(2).long()])
def test_anything_but_a_loss_per_image_is_refused(name: str, losses: Tensor) -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(ModelError, match="expected one loss per image"):
        make_engine(name, model, trainable(model)).per_example_gradients(lambda: losses)


@ALL
def test_parameters_of_another_model_are_refused(name: str) -> None:
    with pytest.raises(ModelError, match="weight: not a parameter of this model"):
        make_engine(name, nn.Linear(2, 2), trainable(nn.Linear(2, 2)))


class UsedDirectly(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) @ self.linear.weight


@EXACT
def test_a_parameter_used_outside_its_layer_is_refused(name: str) -> None:
    model = UsedDirectly()
    engine = make_engine(name, model, trainable(model))
    with pytest.raises(UnsupportedLayerError, match=r"linear\.weight"):
        engine.per_example_gradients(lambda: per_image_loss(model, torch.randn(4, 3)))


def test_losses_that_mix_images_are_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 3))
    engine = LayerwiseEngine(model, trainable(model))

    def losses() -> Tensor:
        values = per_image_loss(model, torch.randn(4, 3))
        return values / values.sum()

    with pytest.raises(UnsupportedLayerError, match="0: the loss of one image depends on another"):
        engine.per_example_gradients(losses)


def test_opacus_removes_its_hooks_when_it_refuses_a_model() -> None:
    class Buffered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))
            self.register_buffer("shift", torch.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.scale + self.shift

    model = nn.Sequential(nn.Linear(3, 3), Buffered())
    before = snapshot(model)
    with pytest.raises(UnsupportedLayerError, match="Opacus refuses a layer"):
        OpacusEngine(model, trainable(model)).per_example_gradients(
            lambda: per_image_loss(model, torch.randn(2, 3))
        )
    assert snapshot(model) == before


@ALL
@pytest.mark.parametrize(
    ("index", "message"),
    [
        (torch.tensor([0, 1]), "expected the unit of each of 3 images"),
        (torch.tensor([0.0, 1.0, 1.0]), "int64"),
        (torch.tensor([0, 1, 2]), r"units in 0 … 1, got 0 … 2"),
        (torch.tensor([0, -1, 1]), "got -1 … 1"),
    ],
)
def test_an_index_that_is_no_index_of_units_is_refused(
    name: str, index: Tensor, message: str
) -> None:
    model = nn.Linear(2, 2)
    engine = make_engine(name, model, trainable(model))
    with pytest.raises(ModelError, match=message):
        engine.per_example_gradients(
            lambda: model(torch.ones(3, 2)).sum(1), Units(index=index, count=2)
        )
