"""`discreet.check` on plain torch models: what it catches, and what it leaves in peace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import discreet
from discreet.errors import CheckError, ConfigurationError

from ..planted.models import InCompany, Softmax
from ..planted.small_step import Net, data, losses_of

IMAGES, TARGETS = data()


def batch(units):
    return IMAGES[units], TARGETS[units]


def check(model: nn.Module, losses: Callable[..., Tensor] = losses_of, **options: Any):
    return discreet.check(model, losses, batch, **options)


class Attention(nn.Module):
    """Lets the images of a batch attend to each other."""

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(1)[None]
        mixed = nn.functional.scaled_dot_product_attention(rows, rows, rows)[0]
        return mixed.view(x.shape)


class Unnoticed(nn.Module):
    """A batch normalisation that no class name gives away."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(0)) / (x.var(0, unbiased=False) + 1).sqrt()


class Own(Net):
    """Subtracts the batch's mean in its own forward pass, between two layers."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.last((x - x.mean(0)).relu().mean((2, 3))).squeeze(1)


@pytest.mark.parametrize(
    ("model", "where"),
    [
        (lambda: Net(nn.BatchNorm2d(8)), "norm (BatchNorm2d)"),
        (lambda: Net(nn.BatchNorm2d(8, affine=False)), "norm (BatchNorm2d)"),
        (lambda: Net(Softmax()), "norm (Softmax)"),
        (lambda: Net(Attention()), "norm (Attention)"),
        (lambda: Net(Unnoticed()), "norm (Unnoticed)"),
        (Own, "the model (Own), before last"),
    ],
    ids=["batchnorm", "batchnorm without affine", "softmax", "attention", "unnoticed", "own"],
)
def test_a_module_that_couples_is_named(model: Callable[[], nn.Module], where: str):
    report = check(model())
    assert not report.passed
    named = {place for finding in report.violations for place in finding.where}
    assert where in named, report.to_text()


def divided_by_the_total(model: nn.Module, batch: Any) -> Tensor:
    return losses_of(model, batch) / batch[1].abs().sum()


def mean_for_all(model: nn.Module, batch: Any) -> Tensor:
    return losses_of(model, batch).mean().expand(len(batch[1]))


def divided_by_the_number(model: nn.Module, batch: Any) -> Tensor:
    return losses_of(model, batch) / len(batch[1])


@pytest.mark.parametrize("losses", [divided_by_the_total, mean_for_all, divided_by_the_number])
def test_a_loss_that_couples_is_found(losses: Callable[..., Tensor]):
    report = check(Net(), losses)
    found = {f.probe: f for f in report.violations}
    assert "losses" in found, report.to_text()
    assert found["losses"].where == ("the loss",)


def test_the_term_that_couples_is_named():
    def losses(model: nn.Module, batch: Any) -> Tensor:
        own = losses_of(model, batch)
        return torch.stack([own, own / own.sum()], 1)

    report = check(Net(), losses, terms=("own", "shared"))
    assert report.violations[0].where == ("loss term shared",)


@pytest.mark.parametrize("least", [3, 4, 5, 12, 20])
@pytest.mark.parametrize("full", [False, True])
def test_a_module_that_waits_for_company_is_named(least: int, full: bool):
    report = check(Net(InCompany(least, lambda x: x - x.mean(0))), full=full)
    assert ("norm (InCompany)",) in [f.where for f in report.violations], report.to_text()


def test_all_given_units_meet():
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(40, 3, 8, 8, generator=generator)

    def of(units: Any) -> Any:
        return images[units], torch.zeros(len(units))

    model = Net(InCompany(36, lambda x: x - x.mean(0)))
    assert check(model).passed  # neither the units nor the expected batch size ask for so many
    assert not discreet.check(model, losses_of, of, units=range(40)).passed


def test_a_batch_that_couples_before_the_model_is_named():
    def mixed(units: Any) -> Any:
        return IMAGES[units] + 0.3 * IMAGES[units].flip(0), TARGETS[units]

    model = nn.Sequential(Net())  # a container as the outermost module
    report = discreet.check(model, losses_of, mixed)
    assert report.violations[0].where == ("the model's input",), report.to_text()


def test_running_buffers_and_forgotten_parameters_are_found():
    frozen = Net(nn.BatchNorm2d(8))
    frozen.norm.eval()
    assert check(frozen).passed
    counting = Net(nn.InstanceNorm2d(8, affine=True, track_running_stats=True))
    assert any("norm.running_mean" in f.where for f in check(counting).violations)
    model = Net()
    some = {n: p for n, p in model.named_parameters() if not n.startswith("idle")}
    found = check(model, parameters=some).violations
    assert [f.where for f in found] == [("idle.weight", "idle.bias")]
    everything = torch.optim.SGD(model.parameters(), lr=0.1)
    model.idle.requires_grad_(False)
    found = check(model, parameters=some, optimizer=everything).violations
    assert "optimizer" in found[0].what


@pytest.mark.parametrize("engine", ["opacus", "reference"])
def test_other_engines_serve(engine: str):
    assert check(Net(), engine=engine, full=True).passed


def test_random_coupling_is_seen_too():
    assert not check(nn.Sequential(nn.Dropout(0.2), Net(Softmax()))).passed


def test_a_model_that_needs_company_is_refused():
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.last = nn.BatchNorm1d(192), nn.Linear(192, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.norm(x.flatten(1))).squeeze(1)

    told = [finding.what for finding in check(Flat()).violations]
    assert any("batch of 1" in what for what in told)


def test_strict_raises_and_names_the_module():
    with pytest.raises(CheckError, match="Softmax") as raised:
        check(Net(Softmax()), strict=True)
    assert raised.value.problems


def test_one_unit_cannot_be_checked():
    with pytest.raises(ConfigurationError, match="two"):
        check(Net(), units=[0, 0])
