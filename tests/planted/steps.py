"""Mistakes in the order and the number of things that a step does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from discreet import step
from discreet.clipping import ClippedSum
from discreet.step import StepReport, private_step
from discreet.yolo import loop

from .plant import Plant, Tool
from .runs import Step, Training

Patch = pytest.MonkeyPatch
BadStep = Callable[..., StepReport]


def stepping(bad: BadStep) -> Any:
    def plant(patch: Patch, run: Any) -> None:
        patch.setattr(step, "private_step", bad)
        patch.setattr(loop, "private_step", bad)

    return plant


class Mechanism:
    """Another noise, made of the run's own."""

    def __init__(self, privatise: Callable[[ClippedSum, Any], dict[str, Tensor]]) -> None:
        self.privatise = privatise


def _sums(gradients: Any, factors: Tensor) -> dict[str, Tensor]:
    return gradients.weighted_sum(dict.fromkeys(gradients.squared_norms, factors))


def _total(gradients: Any) -> Tensor:
    return torch.stack(list(gradients.squared_norms.values())).sum(0)


def _replayed(parts: Any, arguments: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Gradients of all parts, and arguments that take them for the parts."""
    held = [arguments["gradients_of"](part) for part in parts]
    return held, {**arguments, "gradients_of": lambda found: found}


def clipped_after_averaging(parts: Any, **arguments: Any) -> StepReport:
    held, arguments = _replayed(parts, arguments)
    clipping = arguments["clipping"]

    class Whole:
        """All units' sum as if it were one unit's gradient."""

        def __init__(self) -> None:
            each = [_sums(g, torch.isfinite(_total(g)).float()) for g in held]
            self.sum = {n: sum(s[n] for s in each) for n in each[0]}

        @property
        def squared_norms(self) -> dict[str, Tensor]:
            return {n: v.square().sum().view(1) for n, v in self.sum.items()}

        def weighted_sum(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {n: v * weights[n][0] for n, v in self.sum.items()}

    whole = [Whole()] if held else []
    return private_step(whole, **{**arguments, "clipping": clipping})


def noise_for_each_part(parts: Any, **arguments: Any) -> StepReport:
    parts = list(parts)
    inner = arguments["mechanism"]

    def privatise(clipped: ClippedSum, source: Any) -> dict[str, Tensor]:
        sums = inner.privatise(clipped, source)
        for _ in parts[1:]:
            sums = inner.privatise(replace(clipped, sums=sums), source)
        return sums

    return private_step(parts, **{**arguments, "mechanism": Mechanism(privatise)})


def noise_shared_out(parts: Any, **arguments: Any) -> StepReport:
    parts = list(parts)
    inner = arguments["mechanism"]

    def privatise(clipped: ClippedSum, source: Any) -> dict[str, Tensor]:
        noised = inner.privatise(clipped, source)
        share = max(len(parts), 1) ** -0.5
        return {n: v + (noised[n] - v) * share for n, v in clipped.sums.items()}

    return private_step(parts, **{**arguments, "mechanism": Mechanism(privatise)})


def divided_by_the_drawn(parts: Any, **arguments: Any) -> StepReport:
    """A mean over the drawn; the noise keeps its scale."""
    held, arguments = _replayed(parts, arguments)
    drawn = sum(int(torch.isfinite(_total(g)).sum()) for g in held)
    scale = arguments["expected_batch_size"] / drawn if drawn > 1 else 1.0
    inner = arguments["mechanism"]

    def privatise(clipped: ClippedSum, source: Any) -> dict[str, Tensor]:
        noised = inner.privatise(clipped, source)
        return {n: v + (scale - 1) * clipped.sums[n] for n, v in noised.items()}

    return private_step(held, **{**arguments, "mechanism": Mechanism(privatise)})


def noise_divided_by_the_drawn(parts: Any, **arguments: Any) -> StepReport:
    """`loss.mean()` divides the whole noised sum, noise and all."""
    held, arguments = _replayed(parts, arguments)
    drawn = sum(len(_total(gradients)) for gradients in held)
    return private_step(held, **{**arguments, "expected_batch_size": max(drawn, 1)})


def empty_steps_skipped(parts: Any, **arguments: Any) -> StepReport:
    parts = list(parts)
    if not parts:
        arguments["charge"]()
        return StepReport(units=0, clipped=0, non_finite=0)
    return private_step(parts, **arguments)


def skipped_where_not_finite(parts: Any, **arguments: Any) -> StepReport:
    """What a gradient scaler does: no update where anything overflowed."""
    held, arguments = _replayed(parts, arguments)
    if all(bool(torch.isfinite(_total(gradients)).all()) for gradients in held):
        return private_step(held, **arguments)
    arguments["charge"]()
    return StepReport(units=len(held), clipped=0, non_finite=1)


def second_optimizer(parts: Any, **arguments: Any) -> StepReport:
    plain: dict[str, Tensor] = {}
    inner = arguments["mechanism"]

    def privatise(clipped: ClippedSum, source: Any) -> dict[str, Tensor]:
        plain.update(clipped.sums)
        return inner.privatise(clipped, source)

    report = private_step(parts, **{**arguments, "mechanism": Mechanism(privatise)})
    parameters = arguments["parameters"]
    second = torch.optim.SGD(parameters.values(), lr=1e-3)
    for name, parameter in parameters.items():
        parameter.grad = plain[name]
    second.step()
    second.zero_grad()
    return report


def not_charged(parts: Any, **arguments: Any) -> StepReport:
    return private_step(parts, **{**arguments, "charge": lambda: None})


def charged_afterwards(parts: Any, **arguments: Any) -> StepReport:
    report = private_step(parts, **{**arguments, "charge": lambda: None})
    arguments["charge"]()
    return report


def empty_steps_not_charged(parts: Any, **arguments: Any) -> StepReport:
    parts = list(parts)
    return private_step(parts, **arguments) if parts else not_charged(parts, **arguments)


PLANTS = (
    Plant(
        name="clip after averaging",
        why="The batch's gradient is clipped, not each unit's: one unit can replace it.",
        runs=(Step, Training),
        plant=stepping(clipped_after_averaging),
        found_by={Tool.CHECK: r"normaliser: the step"},
        probes=frozenset({"normaliser"}),
    ),
    Plant(
        name="noise per micro-batch",
        why="Noise is added once for each micro-batch, and depends on the memory of the machine.",
        runs=(Step, Training),
        plant=stepping(noise_for_each_part),
        found_by={Tool.CHECK: r"once: the step"},
        probes=frozenset({"once"}),
    ),
    Plant(
        name="noise of one micro-batch missing",
        why="Each of k micro-batches gets a k-th of the noise: they add up to 1 / √k of it.",
        runs=(Step, Training),
        plant=stepping(noise_shared_out),
        found_by={Tool.CHECK: r"once: the step"},
        probes=frozenset({"once"}),
    ),
    Plant(
        name="sum divided by the drawn batch",
        why="The number that was drawn is private, and moves the update.",
        runs=(Step, Training),
        plant=stepping(divided_by_the_drawn),
        found_by={Tool.CHECK: r"normaliser: the step"},
        probes=frozenset({"normaliser"}),
    ),
    Plant(
        name="noise divided by the drawn batch",
        why="The scale of the noise tells how many units were drawn.",
        runs=(Step, Training),
        plant=stepping(noise_divided_by_the_drawn),
        found_by={Tool.CHECK: r"(noise|normaliser): the (step|mechanism)"},
        probes=frozenset({"noise", "non-finite", "normaliser"}),
    ),
    Plant(
        name="steps without units skipped",
        why="That nobody was drawn is told by weights that do not move.",
        runs=(Step, Training),
        plant=stepping(empty_steps_skipped),
        found_by={Tool.CHECK: r"empty draw: the step"},
        probes=frozenset({"empty draw"}),
    ),
    Plant(
        name="gradient scaler that skips steps",
        why="A step is left out where one unit overflows: a test of private data without noise.",
        runs=(Step, Training),
        plant=stepping(skipped_where_not_finite),
        found_by={Tool.CHECK: r"non-finite: the step"},
        probes=frozenset({"non-finite"}),
    ),
    Plant(
        name="second optimizer without noise",
        why="Another optimizer moves the same parameters by their plain gradients.",
        runs=(Step, Training),
        plant=stepping(second_optimizer),
        found_by={Tool.CHECK: r"state: .*(bias|weight)"},
        probes=frozenset({"state"}),
    ),
    Plant(
        name="step not charged",
        why="The update is applied, and nothing is on record.",
        runs=(Step, Training),
        plant=stepping(not_charged),
        found_by={Tool.CHECK: r"charge: the step.*0 times", Tool.LEDGER: r"step 1 ran"},
        probes=frozenset({"charge"}),
    ),
    Plant(
        name="step charged after its update",
        why="A crash between the two leaves an update that is not on record.",
        runs=(Step, Training),
        plant=stepping(charged_afterwards),
        found_by={Tool.CHECK: r"charge: the step.*refused"},
        probes=frozenset({"charge"}),
    ),
    Plant(
        name="steps without units not charged",
        why="Whether a step is charged depends on the draw.",
        runs=(Step,),
        plant=stepping(empty_steps_not_charged),
        found_by={Tool.CHECK: r"charge: the step.*0 or 1 times"},
        probes=frozenset({"charge"}),
    ),
)
