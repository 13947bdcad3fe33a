"""The check of any torch module and loss."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from discreet import _validate
from discreet.checking.altering import ALTERATIONS, Altering
from discreet.checking.bench import Bench, Units, plain
from discreet.checking.freezing import Snapshot
from discreet.checking.probes import run_checks
from discreet.checking.report import CheckReport
from discreet.checking.subject import Subject, Unit
from discreet.clipping import FlatClipping, PerExampleGradients
from discreet.errors import CheckError, ConfigurationError, DiscreetError
from discreet.noise import GaussianMechanism
from discreet.randomness import SecureSource

EngineFactory = Callable[
    [nn.Module, Mapping[str, nn.Parameter]],
    Callable[[Callable[[], Tensor]], PerExampleGradients],
]
_Batch = tuple[list[int], Any]
"""Numbers of the units, and what the user's function made of them."""


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
        batch_fn: The batch of these units, in this order; the same each time it is asked. Units
            are repeated where a step draws more than are given.
        engine: Makes, of a model and what trains, what turns losses into per-unit gradients.
        engines: Others, by name, to compare with in a full check.
        parameters: What trains, by name; all that require gradients if not given.
        max_grad_norm: C, > 0.
        noise_multiplier: σ, > 0.
        expected_batch_size: The divisor of the noised sum, > 0; batches of about this size are
            tried, up to 32 units.
        optimizer: The run's; SGD over `parameters` if not given.
        units: At least two numbers that `batch_fn` knows, of different units; more show more.
        terms: Names of the loss terms.
        full: Go through all variants, also with rows of the batch's tensors altered. A coupling
            that waits for data which neither the units nor these have is not seen.
        strict: Raise on a violation.
        without: Names of probes to leave out.

    Raises:
        CheckError: `loss_fn` or `batch_fn` fails or gives no loss per unit; or a probe failed, and
            `strict` is set.
        ConfigurationError: An argument is wrong: fewer than two units, nothing that trains.
    """
    if not isinstance(cast(object, model), nn.Module):
        raise ConfigurationError(
            f"expected a torch.nn.Module, got {type(model).__name__}", where="model"
        )
    for name, function in (("loss_fn", loss_fn), ("batch_fn", batch_fn)):
        if not callable(function):
            raise ConfigurationError(
                f"expected a function, got {type(function).__name__}", where=name
            )
    _validate.positive(
        max_grad_norm=max_grad_norm,
        noise_multiplier=noise_multiplier,
        expected_batch_size=expected_batch_size,
    )
    known = _numbers(units)
    chosen = dict(parameters) if parameters is not None else _trainable(model)
    if not chosen:
        raise ConfigurationError(
            "no parameter of the model trains", where="parameters", do="give at least one"
        )

    altering = Altering(lambda _: (), known)

    def batch_of(wanted: Sequence[Unit]) -> _Batch:
        numbers = [unit.number for unit in wanted]
        with _told("batch_fn", numbers, "give the batch of any of the units, repeated ones too"):
            made = batch_fn(list(numbers))
        for position, unit in enumerate(wanted):
            if unit.alteration is not None:
                made = altering(made, position, unit.alteration)
        return numbers, made

    def untold_losses_of(batch: _Batch) -> Tensor:
        numbers, content = batch
        return _one_each(loss_fn(model, content), count=len(numbers), terms=terms)

    def losses_of(batch: _Batch) -> Tensor:
        with _told("loss_fn", batch[0], "let model and loss run on any number of units, from one"):
            return untold_losses_of(batch)

    def gradients_from(make: EngineFactory) -> Callable[[_Batch], PerExampleGradients]:
        running = make(model, chosen)

        def compute(batch: _Batch) -> PerExampleGradients:
            # Its own failures, though inside loss_fn: that alone has run on these units.
            with _told("the engine", batch[0], "try engine='reference', which takes any model"):
                return running(lambda: _each(untold_losses_of(batch)))

        return compute

    mechanism = GaussianMechanism(noise_multiplier=noise_multiplier)
    subject = Subject(
        model=model,
        parameters=chosen,
        batch_of=batch_of,
        losses_of=losses_of,
        gradients_of=gradients_from(engine),
        clipping_of=lambda bound: FlatClipping(max_grad_norm=bound),
        max_grad_norm=max_grad_norm,
        mechanism_of=lambda _: nullcontext(mechanism),
        noise_multiplier=noise_multiplier,
        source=SecureSource(),
        expected_batch_size=expected_batch_size,
        optimizer=optimizer or torch.optim.SGD(list(chosen.values()), lr=1.0),
        units=known,
        holders={"loss_fn": loss_fn},
        terms=terms,
        engines={name: gradients_from(make) for name, make in (engines or {}).items()},
    )
    _try_once(subject, plain(subject.units[:2]))
    if full:
        with suppress(Exception):  # no single units, no alterations; the probes tell of it
            altering = Altering(batch_fn, known)
            subject = replace(subject, alterations=_usable(subject))
    report = run_checks(subject, full=full, without=without)
    if strict:
        report.require()
    return report


def _numbers(units: Any) -> list[int]:
    usable = isinstance(units, Iterable) and not isinstance(units, str | bytes)
    found: list[Any] = list(dict.fromkeys(units)) if usable else []
    if len(found) < 2 or not all(isinstance(n, numbers.Integral) for n in found):
        raise ConfigurationError(
            f"expected at least two different whole numbers, got {units!r:.80}",
            where="units",
            do="give the numbers of two or more units that batch_fn knows",
        )
    return [int(n) for n in found]


@contextmanager
def _told(what: str, units: Sequence[int], do: str) -> Generator[None]:
    """Say which function failed on which units."""
    try:
        yield
    except DiscreetError:
        raise
    except Exception as error:
        raise CheckError(
            f"fails on a batch of {len(units)}, units {list(units)}: "
            f"{type(error).__name__}: {error}",
            where=what,
            do=do,
        ) from error


def _one_each(found: Any, *, count: int, terms: Sequence[str]) -> Tensor:
    """The losses.

    Raises:
        CheckError: There is not one number per unit and term.
    """
    if not isinstance(found, Tensor):
        told = type(found).__name__
    elif not found.is_floating_point():
        told = f"{tuple(found.shape)} of {found.dtype}"
    elif found.shape not in ((count,), (count, len(terms))):
        told = str(tuple(found.shape))
    else:
        return found
    raise CheckError(
        f"gives {told} for a batch of {count}",
        where="loss_fn",
        do=f"return the loss of each unit as a tensor of numbers, ({count},), or ({count}, "
        f"{len(terms)}) for the {len(terms)} names in terms; no sum or mean over units",
    )


def _try_once(subject: Subject, units: Units) -> Tensor:
    """Losses of a batch, before any probe.

    Raises:
        CheckError: One of the user's functions fails.
    """
    snapshot = Snapshot(subject.model, subject.optimizer, subject.holders)
    try:
        return Bench(subject, snapshot).losses(units)
    finally:
        snapshot.restore()


def _usable(subject: Subject) -> list[str]:
    """Alterations that change a unit's loss into another number: others show nothing."""
    usable: list[str] = []
    first, second = plain(subject.units[:2])
    before = _try_once(subject, (first, second))[1]
    for alteration in ALTERATIONS:
        with suppress(CheckError):  # the model need not take everything
            altered = replace(second, alteration=alteration)
            after = _try_once(subject, (first, altered))[1]
            if bool(after.isfinite().all()) and not torch.equal(before, after):
                usable.append(alteration)
    return usable


def _trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _each(losses: Tensor) -> Tensor:
    return losses.sum(1) if losses.dim() == 2 else losses
