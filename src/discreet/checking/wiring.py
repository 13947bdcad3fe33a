"""Probes of what a step touches, and of shapes."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

import torch

from discreet.checking.attributes import different
from discreet.checking.bench import Bench, Units, plain
from discreet.checking.coupling import batches, compared
from discreet.checking.locating import culprits
from discreet.checking.report import Finding
from discreet.errors import DiscreetError

_PARAMETERS = "the model's trainable parameters with those that get noise, and the optimizer's"


def parameters(bench: Bench, *, full: bool) -> Finding:
    """Everything that trains is declared, once; the optimizer holds nothing else."""
    del full
    subject = bench.subject
    declared = {id(p): name for name, p in subject.parameters.items()}
    named = {id(p): name for name, p in subject.model.named_parameters()}
    groups = cast("list[dict[str, Any]]", subject.optimizer.param_groups)
    held = [id(p) for group in groups for p in group["params"]]
    left_out = [n for i, n in named.items() if i not in declared and _trains(bench, n)]
    foreign = [named.get(i, "a tensor of the optimizer") for i in held if i not in declared]
    idle = [name for i, name in declared.items() if i not in held]
    outside = [p for p in bench.reached() if id(p) not in declared and id(p) not in named]
    twice = Counter(id(p) for p in subject.parameters.values())
    doubled = [name for name, p in subject.parameters.items() if twice[id(p)] > 1]
    for where, what, do in (
        (left_out, "is trainable, but gets no noise", "declare it, or freeze it"),
        (
            [f"a parameter {tuple(p.shape)} that the model does not register" for p in outside],
            "has a gradient, but gets no noise",
            "register it in the model and declare it, or freeze it",
        ),
        (foreign, "is in the optimizer, but gets no noise", "take it out, or declare it"),
        (doubled, "is declared twice: it would be counted twice", "give each tensor one name"),
        (idle, "gets noise, but is not in the optimizer", "give it to the optimizer"),
    ):
        if where:
            return Finding(
                probe="parameters",
                compared=_PARAMETERS,
                verdict="failed",
                where=tuple(dict.fromkeys(where)),
                what=what,
                do=do,
            )
    return Finding(probe="parameters", compared=_PARAMETERS, verdict="passed")


def _trains(bench: Bench, name: str) -> bool:
    return bench.subject.model.get_parameter(name).requires_grad


def engine(bench: Bench, *, full: bool) -> Finding:
    """Whether the engine takes the model and the loss; it refuses what it sees to mix units."""
    finding = Finding(
        probe="engine", compared="the engine takes the model and the loss", verdict="passed"
    )
    try:
        bench.gradients(plain(bench.subject.units[:2]))
    except DiscreetError as error:
        places = (culprits(bench, *pair) for pair in batches(bench, full=full))
        named = next((place for place in places if place), ())
        where = named or ((error.where,) if error.where else ())
        return replace(finding, verdict="failed", where=where, what=error.what, do=error.do or "")
    return finding


def state(bench: Bench, *, full: bool) -> Finding:
    """What a pass, and a whole step beside the optimizer's update, leave changed."""
    subject = bench.subject
    units = plain(subject.units[:2])
    told = "parameters, buffers and attributes before and after a pass and a step"
    declared = set(subject.parameters) | {
        name
        for name, p in subject.model.named_parameters(remove_duplicate=False)
        if any(p is other for other in subject.parameters.values())
    }
    try:
        written = set(bench.gradients(units).touched)
        update = bench.live_step(units[:1])
        written |= (set(update.changed) - declared) | set(update.elsewhere)
    except DiscreetError:  # the engine refuses the model: see what the forward pass writes
        written = _written_by_losses(bench, units)
    kept = _kept(bench, full=full) - written
    if not written | kept:
        return Finding(probe="state", compared=told, verdict="passed")
    return Finding(
        probe="state",
        compared=told,
        verdict="failed",
        where=(*sorted(written), *sorted(kept)),
        what="changes in a step without noise"
        if written
        else "keeps something of the units after the step, without noise",
        do="freeze running statistics (evaluation mode); change declared parameters only; keep "
        "queues, averages and logs of private units out of model and loss",
    )


def _kept(bench: Bench, *, full: bool) -> set[str]:
    """Attributes that hold something else after other units; a counter of calls does not."""
    for before, after in compared(bench, full=full):
        suspicious = different(bench.left(before), bench.left(after))
        if len(before) == 2:  # backward passes, which run for other probes anyway
            with suppress(DiscreetError):
                one, other = bench.gradients(before), bench.gradients(after)
                suspicious |= different(one.left, other.left)
        if suspicious:
            one, again, other = map(bench.left_by_losses, (before, before, after))
            by_chance = different(one, again)  # a clock, a random number
            kept = {name for name, place in different(one, other) if (name, place) not in by_chance}
            if kept:
                return kept
    return set()


def _written_by_losses(bench: Bench, units: Units) -> set[str]:
    with bench.calm(), torch.enable_grad():
        bench.subject.losses_of(bench.subject.batch_of(units))
        return set(bench.snapshot.changed())


def shapes(bench: Bench, *, full: bool) -> Finding:
    """Shapes of inputs, losses and gradients, whatever the units are."""
    subject = bench.subject
    pairs = list(batches(bench, full=full))
    seen = [plain(subject.units[:1]), *(batch for pair in pairs for batch in pair)]
    wrong: dict[str, str] = {}
    first: dict[int, tuple[int, ...]] = {}
    for units in dict.fromkeys(seen):
        losses = bench.losses(units)
        for place, shape in enumerate(bench.input_shapes(units)):
            if first.setdefault(place, shape) != shape:
                wrong["the model's input"] = "has a shape that depends on the units drawn"
        if losses.shape != (len(units), len(subject.terms)):
            wrong["the loss"] = "is not one number per unit"
    units = plain(subject.units[:2])
    with suppress(DiscreetError):  # told by the engine's probe
        sums = bench.clipped(units, (0, 1), subject.max_grad_norm).sums
        for name, parameter in subject.parameters.items():
            if name not in sums or sums[name].shape != parameter.shape:
                wrong[name] = "has a clipped sum of another shape"
    compared = "shapes of model input, loss and gradients over all batches"
    if not wrong:
        return Finding(probe="shapes", compared=compared, verdict="passed")
    return Finding(
        probe="shapes",
        compared=compared,
        verdict="failed",
        where=tuple(wrong),
        what=next(iter(wrong.values())),
        do="use one public size for all inputs, and a loss of shape (B,)",
    )
