"""What is checked: a model and its step, given as the callables that training itself uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from discreet.clipping import Clipping, PerExampleGradients
from discreet.noise import Mechanism
from discreet.randomness import RandomSource
from discreet.step import StepReport, private_step


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One privacy unit of a probe's batch.

    Attributes:
        number: Which unit.
        alteration: What was done to it, one of the subject's `alterations`; None for nothing.
    """

    number: int
    alteration: str | None = None


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A step under test.

    Attributes:
        model: The model.
        parameters: What trains, by name.
        batch_of: A batch of these units in this order; each call makes a new one.
        losses_of: Loss of each unit of a batch, (B,), or its terms, (B, T).
        gradients_of: Per-unit gradients of a batch, from the run's engine.
        clipping_of: The run's clipping rule at another max grad norm C.
        max_grad_norm: The run's C.
        mechanism_of: The run's noise, drawing from a source.
        noise_multiplier: σ, as accounted.
        source: The run's random source.
        expected_batch_size: The public divisor of the noised sum.
        optimizer: The run's optimizer.
        units: Numbers of the units to use, at least two.
        alterations: Ways to change a unit that `batch_of` knows.
        terms: Names of the loss terms.
        exactly: Full precision, where the run computes in half.
        engines: Other engines, by name, to compare the run's with in a full check.
        holders: Functions or objects beside the model that may keep something of what they see,
            by name.
        step: The step of the run; called as `private_step`.
    """

    model: nn.Module
    parameters: Mapping[str, nn.Parameter]
    batch_of: Callable[[Sequence[Unit]], Any]
    losses_of: Callable[[Any], Tensor]
    gradients_of: Callable[[Any], PerExampleGradients]
    clipping_of: Callable[[float], Clipping]
    max_grad_norm: float
    mechanism_of: Callable[[RandomSource], AbstractContextManager[Mechanism]]
    noise_multiplier: float
    source: RandomSource
    expected_batch_size: float
    optimizer: Any
    units: Sequence[int]
    alterations: Sequence[str] = ()
    terms: Sequence[str] = ("loss",)
    exactly: Callable[[], AbstractContextManager[None]] | None = None
    engines: Mapping[str, Callable[[Any], PerExampleGradients]] = field(
        default_factory=dict[str, Callable[[Any], PerExampleGradients]]
    )
    holders: Mapping[str, Any] = field(default_factory=dict[str, Any])
    step: Callable[..., StepReport] = private_step
