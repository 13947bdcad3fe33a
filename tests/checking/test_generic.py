"""`discreet.check` on plain torch models: what it catches, and what it leaves in peace."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import discreet
from discreet.checking import run_checks
from discreet.checking.bench import Bench
from discreet.errors import CheckError, ConfigurationError
from discreet.step import private_step

from ..planted.own_models import InCompany, Softmax
from ..planted.small_step import Net, data, losses_of, subject

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


def test_coupling_that_no_given_unit_shows_is_found_by_altered_ones():
    classes = torch.tensor([2, 0, 2, 2])
    weights = torch.ones(4)

    def of(units: Any) -> Any:
        return IMAGES[units], TARGETS[units], classes[units], weights[units]

    def by_count(model: nn.Module, batch: Any) -> Tensor:
        if float(batch[0].abs().max()) > 50:
            raise ValueError("no such image")  # which must not end all alterations
        return losses_of(model, batch) * (1 + batch[2]) / max(1, int((batch[2] == 1).sum()))

    def by_largest(model: nn.Module, batch: Any) -> Tensor:
        return losses_of(model, batch) * batch[3] / batch[3].max()

    for losses in (by_count, by_largest):
        report = discreet.check(Net(), losses, of, full=True)
        assert "losses" in {f.probe for f in report.violations}, report.to_text()


def test_rows_of_boxes_are_not_taken_for_units():
    boxes = torch.tensor([[1.0], [2.0], [3.0], [4.0]])  # one of each unit

    def of(units: Any) -> Any:
        return IMAGES[units], torch.arange(len(units)), boxes[units]

    def losses(model: nn.Module, batch: Any) -> Tensor:
        images, whose, found = batch
        mine = [found[whose == i].sum() for i in range(len(images))]
        return (model(images) - torch.stack(mine)) ** 2

    report = discreet.check(Net(), losses, of, full=True)
    assert report.passed, report.to_text()


def test_a_model_that_takes_no_altered_unit_raises_no_alarm():
    def losses(model: nn.Module, batch: Any) -> Tensor:
        if float(batch[0].abs().max()) > 50:
            raise ValueError("no such image")
        return losses_of(model, batch)

    report = check(Net(), losses, full=True)
    assert report.passed, report.to_text()


@pytest.mark.parametrize("full", [False, True])
def test_batches_that_are_always_the_same_are_found(full: bool):
    report = discreet.check(Net(), losses_of, lambda units: batch([0] * len(units)), full=full)
    assert "substance" in {f.probe for f in report.violations}, report.to_text()


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


LOG: list[float] = []


def logging_losses(model: nn.Module, batch: Any) -> Tensor:
    found = losses_of(model, batch)
    LOG.append(float(found.detach().mean()))
    return found


def closure() -> Callable[..., Tensor]:
    mean = 1.0

    def losses(model: nn.Module, batch: Any) -> Tensor:
        nonlocal mean
        found = losses_of(model, batch)
        mean = 0.9 * mean + 0.1 * float(found.detach().mean())
        return found

    return losses


@pytest.mark.parametrize(
    ("losses", "where"), [(logging_losses, "loss_fn.LOG"), (closure(), "loss_fn.mean")]
)
def test_what_a_loss_keeps_is_found_and_put_back(losses: Callable[..., Tensor], where: str):
    report = check(Net(), losses)
    assert [f.where for f in report.violations] == [(where,)], report.to_text()
    assert LOG == []


def test_counters_and_clocks_raise_no_alarm():
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls, self.images, self.last = 0, torch.zeros(()), 0.0
            self.history: list[int] = []
            self.cache = {}

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            self.images += len(x)
            self.last = time.perf_counter()
            self.history.append(self.calls)
            self.cache.setdefault(x.shape[1:], torch.ones(x.shape[1:]))
            return x

    model = Net(Counting())
    report = check(model, full=True)
    assert report.passed, report.to_text()
    assert (model.norm.calls, float(model.norm.images), model.norm.history) == (0, 0, [])
    assert model.norm.cache == {}


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


def failing(model: nn.Module, batch: Any) -> Tensor:
    raise ZeroDivisionError("division by zero")


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        (failing, r"units \[0, 1\]: ZeroDivisionError: division by zero"),
        (lambda model, batch: losses_of(model, batch).mean(), r"gives \(\) for a batch of 2"),
        (lambda *_: 1.0, "gives float"),
        (lambda *_: None, "gives NoneType"),
        (lambda model, batch: losses_of(model, batch).long(), "torch.int64"),
        (lambda model, batch: torch.stack([losses_of(model, batch)] * 2, 1), r"gives \(2, 2\)"),
    ],
    ids=["fails", "scalar", "float", "none", "whole numbers", "terms without names"],
)
def test_a_loss_that_is_none_is_refused(losses: Callable[..., Any], message: str):
    with pytest.raises(CheckError, match=message) as raised:
        check(Net(), losses)
    assert raised.value.where == "loss_fn" and raised.value.do
    if losses is failing:
        assert isinstance(raised.value.__cause__, ZeroDivisionError)


def test_units_that_batch_fn_does_not_know_are_told():
    with pytest.raises(CheckError, match=r"units \[100, 101\]: IndexError") as raised:
        check(Net(), units=[100, 101])
    assert raised.value.where == "batch_fn"


@pytest.mark.parametrize(
    "options",
    [
        {"units": "ab"},
        {"units": 3},
        {"units": [0.5, 1]},
        {"max_grad_norm": 0},
        {"max_grad_norm": -1},
        {"max_grad_norm": float("nan")},
        {"noise_multiplier": 0},
        {"noise_multiplier": float("nan")},
        {"expected_batch_size": 0},
        {"without": ["losses", "nonsense"]},
        {"without": "losses"},
        {"engine": "x"},
        {"model": None},
        {"loss_fn": None},
    ],
    ids=str,
)
def test_wrong_arguments_are_refused(options: dict[str, Any]):
    given = {"model": Net(), "loss_fn": losses_of, "batch_fn": batch, **options}
    with pytest.raises(ConfigurationError) as raised:
        discreet.check(**given)
    assert raised.value.where == next(iter(options))


class Coarse(nn.Module):
    """One layer in another precision than the rest."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.layer = nn.Linear(192, 8).to(dtype)
        self.last = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(1).to(self.layer.weight.dtype)
        return self.last(self.layer(rows).relu().to(self.last.weight.dtype)).squeeze(1)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_raise_no_alarm(dtype: torch.dtype, whole: bool, full: bool):
    model = Coarse(dtype).to(dtype) if whole else Coarse(dtype)
    report = check(model, full=full)
    assert report.passed, report.to_text()


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 8, dropout=0.0, batch_first=True)
        self.last = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layer(x.flatten(1, 2)).mean(1)).squeeze(1)


def under_autocast(model: nn.Module, batch: Any) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        found = model(batch[0])
    return (found.float() - batch[1]) ** 2


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("model", [Net, Attending])
def test_autocast_raises_no_alarm(model: Callable[[], nn.Module], full: bool):
    torch.manual_seed(1)
    report = check(model(), under_autocast, full=full)
    assert report.passed, report.to_text()


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(8), Softmax()])
def test_coupling_is_seen_under_autocast(norm: nn.Module):
    report = check(Net(norm), under_autocast)
    assert "norm" in report.violations[0].where[0], report.to_text()


@pytest.mark.parametrize("rounding", [1e-6, 1.0])
def test_a_wrong_engine_is_seen_under_autocast(rounding: float, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Bench, "rounding", lambda *_: rounding)
    made = subject(Net(), losses=under_autocast)

    def other(batch: Any) -> Any:
        found = made.gradients_of(batch)
        weighted = found.weighted_sum

        def without_a_bias(weights: Any) -> Any:
            return {n: 0 * v if n == "conv.bias" else v for n, v in weighted(weights).items()}

        return SimpleNamespace(squared_norms=found.squared_norms, weighted_sum=without_a_bias)

    report = run_checks(replace(made, engines={"other": other}), full=True)
    assert [f.probe for f in report.violations] == ["engines"], report.to_text()


def test_what_fails_in_every_probe_is_told_once():
    report = check(Recurrent(nn.GRU), engine="opacus")
    (told,) = report.violations
    assert told.probe == "engine" and "engine='reference'" in told.do, report.to_text()


class Unregistered(Net):
    """Keeps a layer where neither optimizer nor noise finds it."""

    def __init__(self) -> None:
        super().__init__()
        self.more = [nn.Linear(1, 1)]

    def forward(self, x: Tensor) -> Tensor:
        return self.more[0](super().forward(x)[:, None]).squeeze(1)


def test_parameters_outside_the_model_are_found():
    weight = nn.Parameter(torch.zeros(1))

    def weighted(model: nn.Module, batch: Any) -> Tensor:
        return losses_of(model, batch) * weight.exp() - weight

    for report in (check(Net(), weighted), check(Unregistered())):
        first = report.violations[0]
        assert first.probe == "parameters" and "does not register" in first.where[0]
    weight.requires_grad_(False)
    assert check(Net(), weighted).passed


def test_a_wrong_divisor_is_seen_in_any_precision():
    model = Coarse(torch.bfloat16).bfloat16()
    made = subject(model)

    def halved(*args: Any, expected_batch_size: float, **kwargs: Any) -> Any:
        return private_step(*args, expected_batch_size=expected_batch_size * 1.05, **kwargs)

    report = run_checks(replace(made, step=halved))
    assert "normaliser" in {f.probe for f in report.violations}, report.to_text()


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.cells, self.last = kind(8, 4, batch_first=True), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.cells(x.flatten(1, 2))[0][:, -1]).squeeze(1)


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_recurrent_layers_are_sent_to_the_reference_engine(kind: type[nn.Module]):
    (refused,) = check(Recurrent(kind)).violations
    assert refused.where == ("cells",) and "engine=reference" in refused.do
    report = check(Recurrent(kind), engine="reference", full=True)
    assert report.passed, report.to_text()


def test_a_penalty_on_gradients_is_sent_to_the_reference_engine():
    def losses(model: nn.Module, batch: Any) -> Tensor:
        images = batch[0].detach().requires_grad_()
        (slopes,) = torch.autograd.grad(model(images).sum(), images, create_graph=True)
        return losses_of(model, batch) + slopes.square().flatten(1).sum(1)

    model = nn.Sequential(
        nn.Flatten(), nn.Linear(192, 4), nn.Tanh(), nn.Linear(4, 1), nn.Flatten(0)
    )
    (refused,) = check(model, losses).violations
    assert "engine=reference" in refused.do
    assert check(model, losses, engine="reference").passed


def test_one_unit_cannot_be_checked():
    with pytest.raises(ConfigurationError, match="two"):
        check(Net(), units=[0, 0])
