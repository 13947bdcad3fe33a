"""A correct step of a small torch model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from discreet import step
from discreet.checking import Subject, Unit
from discreet.clipping import FlatClipping
from discreet.gradients import make_engine
from discreet.noise import GaussianMechanism
from discreet.randomness import SecureSource
from discreet.step import StepReport

UNITS = 4
BATCH = 16.0
MAX_GRAD_NORM = 0.7


class Net(nn.Module):
    """A convolution, a norm, a branch that no batch touches, and a linear layer."""

    def __init__(self, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = norm or nn.GroupNorm(2, 8)
        self.last = nn.Linear(8, 1)
        self.idle = nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.conv(x)).relu().mean((2, 3))).squeeze(1)


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return (
        torch.randn(UNITS, 3, 8, 8, generator=generator),
        torch.randn(UNITS, generator=generator),
    )


def batch_of(units: Sequence[Unit]) -> tuple[Tensor, Tensor]:
    images, targets = data()
    numbers = [unit.number for unit in units]
    return images[numbers], targets[numbers]


def losses_of(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return (model(batch[0]) - batch[1]) ** 2


def _late(*args: Any, **kwargs: Any) -> StepReport:
    return step.private_step(*args, **kwargs)  # as the module knows it when the step runs


class Rows:
    """Per-unit gradients as they are, by parameter (B, …)."""

    def __init__(self, rows: Mapping[str, Tensor]) -> None:
        self.rows = rows

    @property
    def squared_norms(self) -> dict[str, Tensor]:
        return {name: rows.flatten(1).square().sum(1) for name, rows in self.rows.items()}

    def weighted_sum(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {n: torch.einsum("b,b...->...", weights[n], r) for n, r in self.rows.items()}


def subject(model: nn.Module | Callable[[], nn.Module] = Net, **changes: Any) -> Subject:
    """The step under test.

    Args:
        model: The model, or what makes it.
        **changes: `engine`, `losses(model, batch)`, or fields of the subject.
    """
    torch.manual_seed(0)
    model = model if isinstance(model, nn.Module) else model()
    own = {n: p for n, p in model.named_parameters() if p.requires_grad}
    parameters = changes.pop("parameters", lambda found: found)(own)
    engine = make_engine(changes.pop("engine", "discreet"), model, parameters)
    losses: Callable[..., Tensor] = changes.pop("losses", losses_of)
    mechanism = GaussianMechanism(noise_multiplier=1.0)
    made = Subject(
        model=model,
        parameters=parameters,
        batch_of=batch_of,
        losses_of=lambda batch: losses(model, batch),
        gradients_of=lambda batch: engine.per_example_gradients(lambda: losses(model, batch)),
        clipping_of=lambda bound: FlatClipping(max_grad_norm=bound),
        max_grad_norm=MAX_GRAD_NORM,
        mechanism_of=lambda _: nullcontext(mechanism),
        noise_multiplier=1.0,
        source=SecureSource(),
        expected_batch_size=BATCH,
        step=_late,
        optimizer=torch.optim.SGD(parameters.values(), lr=0.1),
        units=range(UNITS),
        holders={"loss_fn": losses},
    )
    return replace(made, **changes)
