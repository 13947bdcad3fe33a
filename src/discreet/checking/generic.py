"""The check of any torch module and loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from discreet.checking.probes import run_checks
from discreet.checking.report import CheckReport
from discreet.checking.subject import Subject, Unit
from discreet.clipping import FlatClipping, PerExampleGradients
from discreet.errors import ConfigurationError
from discreet.noise import GaussianMechanism
from discreet.randomness import SecureSource

EngineFactory = Callable[
    [nn.Module, Mapping[str, nn.Parameter]],
    Callable[[Callable[[], Tensor]], PerExampleGradients],
]


def check_step(
    model: nn.Module,
    loss_fn: Callable[[nn.Module, Any], Tensor],
    batch_fn: Callable[[Sequence[int]], Any],
    *,
    engine: EngineFactory,
    engines: Mapping[str, EngineFactory] | None = None,
    parameters: Mapping[str, nn.Parameter] | None = None,
    max_grad_norm: float = 1.0,
    noise_multiplier: float = 1.0,
    expected_batch_size: float = 16.0,
    optimizer: torch.optim.Optimizer | None = None,
    units: Sequence[int] = (0, 1, 2, 3),
    terms: Sequence[str] = ("loss",),
    full: bool = False,
    strict: bool = False,
    without: Sequence[str] = (),
) -> CheckReport:
    """Check a model and a loss; see `discreet.check`.

    Args:
        model: Any module, in the mode in which it trains.
        loss_fn: Loss of each unit of a batch, (B,) or by term (B, T).
        batch_fn: The batch of these units, in this order; the same each time it is asked.
        engine: Makes, of a model and what trains, what turns losses into per-unit gradients.
        engines: Others, by name, to compare with in a full check.
        parameters: What trains, by name; all that require gradients if not given.
        max_grad_norm: C.
        noise_multiplier: σ.
        expected_batch_size: The divisor of the noised sum.
        optimizer: The run's; SGD over `parameters` if not given.
        units: At least two numbers that `batch_fn` knows, of different units.
        terms: Names of the loss terms.
        full: Go through all variants.
        strict: Raise on a violation.
        without: Names of probes to leave out.

    Raises:
        CheckError: A probe failed, and `strict` is set.
        ConfigurationError: Fewer than two units.
    """
    numbers = list(dict.fromkeys(units))
    if len(numbers) < 2:
        raise ConfigurationError(
            f"expected at least two different units, got {len(numbers)}",
            where="units",
            do="give the numbers of two or more units that batch_fn knows",
        )
    chosen = dict(parameters) if parameters is not None else _trainable(model)
    if not chosen:
        raise ConfigurationError(
            "no parameter of the model trains", where="parameters", do="give at least one"
        )

    def gradients_from(make: EngineFactory) -> Callable[[Any], PerExampleGradients]:
        running = make(model, chosen)
        return lambda batch: running(lambda: _each(loss_fn(model, batch)))

    mechanism = GaussianMechanism(noise_multiplier=noise_multiplier)

    def batch_of(wanted: Sequence[Unit]) -> Any:
        return batch_fn([unit.number for unit in wanted])

    subject = Subject(
        model=model,
        parameters=chosen,
        batch_of=batch_of,
        losses_of=lambda batch: loss_fn(model, batch),
        gradients_of=gradients_from(engine),
        clipping_of=lambda bound: FlatClipping(max_grad_norm=bound),
        max_grad_norm=max_grad_norm,
        mechanism_of=lambda _: nullcontext(mechanism),
        noise_multiplier=noise_multiplier,
        source=SecureSource(),
        expected_batch_size=expected_batch_size,
        optimizer=optimizer or torch.optim.SGD(list(chosen.values()), lr=1.0),
        units=numbers,
        terms=terms,
        engines={name: gradients_from(make) for name, make in (engines or {}).items()},
    )
    report = run_checks(subject, full=full, without=without)
    if strict:
        report.require()
    return report


def _trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _each(losses: Tensor) -> Tensor:
    return losses.sum(1) if losses.dim() == 2 else losses
