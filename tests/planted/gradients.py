"""Mistakes in norms and clipping: a unit moves the sum by more than is declared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from discreet.clipping import AutomaticClipping, ClippedSum, FlatClipping, PerExampleGradients
from discreet.gradients import records, tape
from discreet.gradients.records import RecordedGradients

from .plant import Plant, Tool, wrap
from .runs import Step, Training

Patch = pytest.MonkeyPatch
SLOW = frozenset({Tool.AUDIT})


def clipping(rule: Any) -> Any:
    def plant(patch: Patch, run: Any) -> None:
        for kind in (FlatClipping, AutomaticClipping):
            patch.setattr(kind, "clip_and_sum", rule)

    return plant


def _summed(gradients: PerExampleGradients, factors: Tensor) -> dict[str, Tensor]:
    return gradients.weighted_sum(dict.fromkeys(gradients.squared_norms, factors))


def _total(gradients: PerExampleGradients) -> Tensor:
    return torch.stack(list(gradients.squared_norms.values())).sum(0)


def not_at_all(self: FlatClipping, gradients: PerExampleGradients) -> ClippedSum:
    ones = torch.ones_like(_total(gradients))
    return ClippedSum(sums=_summed(gradients, ones), sensitivity=self.sensitivity, units=len(ones))


def per_layer(self: FlatClipping, gradients: PerExampleGradients) -> ClippedSum:
    weights = {
        name: (self.max_grad_norm / value.sqrt().clamp_min(1e-30)).clamp(max=1).nan_to_num(0)
        for name, value in gradients.squared_norms.items()
    }
    units = len(_total(gradients))
    sums = gradients.weighted_sum(weights)
    return ClippedSum(sums=sums, sensitivity=self.sensitivity, units=units)


def per_micro_batch(self: FlatClipping, gradients: PerExampleGradients) -> ClippedSum:
    finite = torch.isfinite(_total(gradients)).float()
    sums = _summed(gradients, finite)
    norm = float(torch.cat([s.flatten() for s in sums.values()]).norm())
    factor = min(1.0, self.max_grad_norm * (1 - 2e-6) / max(norm, 1e-30))
    return ClippedSum(
        sums={name: value * factor for name, value in sums.items()},
        sensitivity=self.sensitivity,
        units=len(finite),
    )


def by_half_the_norm(self: FlatClipping, gradients: PerExampleGradients) -> ClippedSum:
    """Norms in bfloat16, as they come out of autocast."""
    norms = _total(gradients).bfloat16().sqrt().float()
    factors = (self.max_grad_norm / norms.clamp_min(1e-30)).clamp(max=1)
    factors = torch.where(torch.isfinite(norms), factors, torch.zeros_like(factors))
    return ClippedSum(
        sums=_summed(gradients, factors), sensitivity=self.sensitivity, units=len(norms)
    )


def nan_and_all(self: FlatClipping, gradients: PerExampleGradients) -> ClippedSum:
    norms = _total(gradients).sqrt()
    bound = self.max_grad_norm * (1 - 2e-6)
    factors = (bound / norms.clamp_min(1e-30)).clamp(max=1)
    return ClippedSum(
        sums=_summed(gradients, factors), sensitivity=self.sensitivity, units=len(norms)
    )


def sensitivity_of_the_mean(patch: Patch, run: Any) -> None:
    """The sum's sensitivity is C; that of its mean over 8 is C / 8, and noise goes on the sum."""
    for kind in (FlatClipping, AutomaticClipping):
        patch.setattr(kind, "sensitivity", property(lambda self: self.max_grad_norm / 8))


def norms_in_half_precision(patch: Patch, run: Any) -> None:
    own = RecordedGradients.squared_norms.fget
    assert own is not None

    def rounded(self: RecordedGradients) -> Mapping[str, Tensor]:
        return {n: v.sqrt().bfloat16().float() ** 2 for n, v in own(self).items()}

    patch.setattr(RecordedGradients, "squared_norms", property(rounded))


class Tied(nn.Module):
    """Two layers share their weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(192, 192)
        self.second = nn.Linear(192, 192)
        self.second.weight = self.first.weight
        self.idle = nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x.flatten(1)).relu()).mean(1)


class FirstUse(records.Held):
    """The gradient of all uses, the norm of one."""

    def __init__(self, gradients: Tensor, first: records.Record) -> None:
        super().__init__(gradients)
        self._first = first

    def squared_norms(self) -> Tensor:
        return self._first.squared_norms()


def shared_weights_counted_once(patch: Patch, run: Step) -> None:
    run.changes["model"] = Tied

    def add(own: Any, self: tape.Tape, parameter: Tensor, *args: Any, **kwargs: Any) -> None:
        name = self._names[id(parameter)]
        earlier = self._records.get(name)
        own(self, parameter, *args, **kwargs)
        if earlier is not None:
            self._records[name] = FirstUse(self._records[name].per_example(), earlier)

    wrap(patch, tape.Tape, "add", add)


PLANTS = (
    Plant(
        name="no clipping",
        why="Gradients are summed as they are: one unit may move the sum as far as it likes.",
        runs=(Step, Training),
        plant=clipping(not_at_all),
        found_by={Tool.CHECK: r"sensitivity: the clipping", Tool.AUDIT: "REFUTED"},
        slow=SLOW,
        probes=frozenset({"non-finite", "sensitivity"}),
    ),
    Plant(
        name="clip per layer, accounted as flat",
        why="Each layer is clipped to C, so a unit moves the sum by √layers · C.",
        runs=(Step, Training),
        plant=clipping(per_layer),
        found_by={Tool.CHECK: r"sensitivity: the clipping"},
        probes=frozenset({"non-finite", "sensitivity"}),
    ),
    Plant(
        name="clip per micro-batch",
        why="The sum of a micro-batch is clipped, not its units: one unit drowns the others.",
        runs=(Step, Training),
        plant=clipping(per_micro_batch),
        found_by={Tool.CHECK: r"additivity: the clipping"},
        probes=frozenset({"additivity", "once"}),
    ),
    Plant(
        name="norm in bfloat16 by the clipping",
        why="Rounded norms fall short by up to 0.4 %: units pass above C.",
        runs=(Step, Training),
        plant=clipping(by_half_the_norm),
        found_by={Tool.CHECK: r"sensitivity: the clipping"},
        probes=frozenset({"sensitivity"}),
    ),
    Plant(
        name="norm in bfloat16 by the engine",
        why="The engine's norms are not the norms of what it sums.",
        runs=(Step, Training),
        plant=norms_in_half_precision,
        found_by={Tool.CHECK: r"norms: .*(idle|cv2|last|norm).*not the norms"},
        probes=frozenset({"norms"}),
    ),
    Plant(
        name="shared weights counted once",
        why="A weight that is used twice has the gradient of both uses, and the norm of one.",
        runs=(Step,),
        plant=shared_weights_counted_once,
        found_by={Tool.CHECK: r"norms: first\.weight"},
        probes=frozenset({"norms"}),
    ),
    Plant(
        name="NaN gradient passing through",
        why="One unit's NaN reaches every weight: whoever sees the model sees that it was there.",
        runs=(Step, Training),
        plant=clipping(nan_and_all),
        found_by={Tool.CHECK: r"non-finite: the step"},
        probes=frozenset({"non-finite"}),
    ),
    Plant(
        name="sensitivity of the mean on the sum",
        why="The noise is scaled to C / B and added to a sum that one unit moves by C.",
        runs=(Step, Training),
        plant=sensitivity_of_the_mean,
        found_by={Tool.CHECK: r"sensitivity: the clipping"},
        probes=frozenset({"noise", "sensitivity"}),
    ),
)
