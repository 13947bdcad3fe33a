"""Probe of whether there is anything to compare: comparisons of nothing pass, and prove nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import torch

from discreet.checking.bench import Bench, Units, plain
from discreet.checking.coupling import batches
from discreet.checking.report import Finding
from discreet.errors import DiscreetError


def substance(bench: Bench, *, full: bool) -> Finding:
    """Batches repeat and hold the units asked for; losses and gradients are numbers, not zero."""
    finding = Finding(
        probe="substance",
        compared="a batch with the same made again; losses and gradients of different units, and "
        "whether there are any",
        verdict="passed",
    )
    for where, what, do in _faults(bench, full=full):
        return replace(finding, verdict="failed", where=(where,), what=what, do=do)
    return finding


def _faults(bench: Bench, *, full: bool) -> Iterator[tuple[str, str, str]]:
    """Where, what, and what to do; the first is told."""
    pairs = list(batches(bench, full=full))
    other = [pair for pair in pairs if not any(unit.alteration for unit in pair[1])]
    if not bench.repeats(plain(bench.subject.units[:2])):
        yield (
            "the batches",
            "another batch comes each time the same units are asked for",
            "give the same batch for the same units: draw augmentation from a seed of the unit",
        )
    if not any(torch.isfinite(bench.losses(batch)).any() for pair in pairs for batch in pair):
        yield (
            "the loss",
            "is not finite for any unit",
            "let the loss be a number for the units that are given",
        )
    if not any(_altered(bench, *pair) for pair in other or pairs):
        yield (
            "the batches",
            "nothing changes when other units are asked for",
            "give the units that are asked for, in their order, and use them in the loss",
        )
    with suppress(DiscreetError):  # told by the engine's probe
        if not any(_has_gradient(bench, batch) for pair in pairs for batch in pair):
            yield (
                "the loss",
                "no unit has a gradient that is finite and not zero",
                "compute the loss from the parameters that train, without detaching it",
            )


def _altered(bench: Bench, before: Units, after: Units) -> bool:
    """Whether the loss, or else the gradient, of a unit that was altered is another."""
    places = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    one, other = bench.losses(before), bench.losses(after)
    if one.shape != other.shape or not torch.equal(
        one[places].nan_to_num(), other[places].nan_to_num()
    ):
        return True
    with suppress(DiscreetError):
        held = bench.gradients(before).held, bench.gradients(after).held
        return any(not torch.equal(held[0].flat(i), held[1].flat(i)) for i in places)
    return False


def _has_gradient(bench: Bench, units: Units) -> bool:
    held = bench.gradients(units).held
    return any(0 < held.norm(i) < math.inf for i in range(len(units)))
