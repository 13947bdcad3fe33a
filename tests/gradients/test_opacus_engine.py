"""What Opacus gets wrong by itself; agreement on other layers is tested beside their rules."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from opacus.grad_sample import GradSampleModule
from torch import Tensor, nn

from discreet.errors import UnsupportedLayerError
from discreet.gradients import OpacusEngine
from discreet.gradients import opacus_engine as module
from tests.gradients.oracle import Relayout, check_engines, one_by_one, per_image_loss, trainable
from tests.gradients.rules.test_norms import randomise


def engine_of(model: nn.Module) -> OpacusEngine:
    return OpacusEngine(model, trainable(model))


def opacus_alone(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    wrapped = GradSampleModule(model.train(), loss_reduction="sum")
    per_image_loss(wrapped, x).sum().backward()
    return {name: p.grad_sample for name, p in model.named_parameters()}  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize(
    ("layout", "mode"), [("channels_last", "zeros"), ("transposed", "zeros"), ("plain", "reflect")]
)
def test_layouts_and_padding_modes_that_opacus_gets_wrong(layout: str, mode: str) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 3, 1),
        Relayout(layout),
        nn.Conv2d(3, 2, 3, padding=int(mode != "zeros"), padding_mode=mode),
    )
    x = torch.randn(4, 3, 6, 6)
    check_engines(model, x, engines=("opacus",))
    expected = one_by_one(model, x).per_example("2.weight")
    alone = opacus_alone(model, x)["2.weight"]
    # If this fails, Opacus was mended, and so can the engine be.
    assert (alone - expected).norm() > 0.05 * expected.norm()


def test_one_channels_last_image_before_a_frozen_norm() -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 2, 1), Relayout("channels_last"), randomise(nn.BatchNorm2d(2)).eval()
    )
    check_engines(model, torch.randn(1, 2, 3, 3))


def test_in_place_activations_come_back_in_place() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(inplace=True), nn.Conv2d(2, 1, 1))
    check_engines(model, torch.randn(2, 3, 4, 4))
    assert model[1].inplace


class Called(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.scale = Scaled()

    def forward(self, x: Tensor) -> Tensor:
        return self.scale(x=x) if self.how == "keyword" else self.scale(x, x.tanh())


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
        return x * self.weight if shift is None else (x + shift) * self.weight


@pytest.mark.parametrize("how", ["keyword", "two inputs"])
def test_calls_that_opacus_would_recompute_wrongly_are_refused(how: str) -> None:
    model = Called(how)
    with pytest.raises(UnsupportedLayerError, match="scale: Opacus knows only layers called with"):
        engine_of(model).per_example_gradients(lambda: per_image_loss(model, torch.randn(2, 3)))
    check_engines(model, torch.randn(2, 3), engines=("discreet",))


def test_rows_that_are_not_images_are_refused() -> None:
    model = nn.Sequential(nn.Flatten(0, 1), nn.Linear(4, 3), nn.Unflatten(0, (3, 2)))
    with pytest.raises(UnsupportedLayerError, match=r"1\.weight: Opacus found no gradient per"):
        engine_of(model).per_example_gradients(lambda: per_image_loss(model, torch.randn(3, 2, 4)))


def test_samplers_are_checked_against_autograd(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(layer: nn.Linear, activations: list[Tensor], backprops: Tensor) -> Any:
        return {layer.weight: torch.einsum("ni,nj->nij", backprops, activations[0]) * 1.01}

    monkeypatch.setitem(module._Hooks.GRAD_SAMPLERS, nn.Linear, wrong)
    model = nn.Sequential(nn.Linear(3, 3, bias=False))
    with pytest.raises(UnsupportedLayerError, match=r"0\.weight: the sum of Opacus' gradients"):
        engine_of(model).per_example_gradients(lambda: per_image_loss(model, torch.randn(2, 3)))


def test_own_samplers_stay_out_of_opacus() -> None:
    from opacus.grad_sample import GradSampleHooks

    assert nn.BatchNorm2d not in GradSampleHooks.GRAD_SAMPLERS
