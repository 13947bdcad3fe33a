"""Probes of what one unit can do to another unit's contribution."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from torch import Tensor

from discreet.checking.bench import (
    LARGEST,
    OTHER_SIZE,
    SAME_SIZE,
    Bench,
    Pass,
    Units,
    plain,
)
from discreet.checking.held import relative
from discreet.checking.locating import changed_terms, culprits
from discreet.checking.report import Finding
from discreet.checking.subject import Unit

_NOT_ALONE = "not with other batch sizes: the model draws random numbers that depend on them"
_DO = (
    "let every layer and loss term use its own unit only: frozen or group normalisation, "
    "a loss per unit that is divided by the unit's own numbers"
)


def batches(bench: Bench, *, full: bool) -> Iterator[tuple[Units, Units]]:
    """Pairs of a batch and the same batch with its last unit altered: others are untouched."""
    numbers = list(bench.subject.units)
    first = plain(numbers[:2])
    for alteration in bench.subject.alterations if full else bench.subject.alterations[:1]:
        yield first, (*first[:-1], Unit(number=first[-1].number, alteration=alteration))
    if len(numbers) > 2 and (full or not bench.subject.alterations):
        yield first, plain([numbers[0], numbers[2]])
    if full and len(numbers) > 3:
        wide = plain(numbers[:4])
        yield wide[:3], (*wide[:2], wide[3])


def losses(bench: Bench, *, full: bool) -> Finding:
    """Losses of untouched units, with one other unit altered, added or removed."""
    worst, where = 0.0, ()
    for before, after in batches(bench, full=full):
        one, other = bench.losses(before), bench.losses(after)
        moved = _untouched_change(one, other, before, after)
        if moved > max(worst, SAME_SIZE):
            where = culprits(bench, before, after) or changed_terms(bench, before, after)
        worst = max(worst, moved)
    finding = Finding(
        probe="losses",
        compared="the loss of every other unit, one unit altered, added or removed",
        verdict="passed",
        deviation=worst,
        limit=SAME_SIZE,
    )
    if worst > SAME_SIZE:
        return _coupled(finding, where, "the loss of a unit changes with the units beside it")
    return _losses_alone(bench, finding)


def _losses_alone(bench: Bench, finding: Finding) -> Finding:
    """The same with the unit alone: losses that know how many units there are."""
    first, second = plain(bench.subject.units[:1]), plain(bench.subject.units[:2])
    quiet = bench.comparable(first, second)
    if quiet is None:
        return replace(finding, what=_NOT_ALONE)
    moved = min(
        _alone(bench, number, other, quiet) for number, other in _pairs(bench)
    )  # a tie that rounding decides shows once, a coupling each time
    if moved <= LARGEST:
        return finding
    changed = replace(finding, deviation=moved, limit=LARGEST)
    return _coupled(changed, ("the loss",), "the loss of a unit depends on how many there are")


def _alone(bench: Bench, number: int, other: int, quiet: bool) -> float:
    alone = bench.losses(plain([number]), quiet=quiet)
    beside = bench.losses(plain([number, other]), quiet=quiet)
    return relative(alone[0], beside[0])


def _pairs(bench: Bench) -> list[tuple[int, int]]:
    a, b = bench.subject.units[:2]
    return [(a, b), (b, a)]


def _untouched_change(one: Tensor, other: Tensor, before: Units, after: Units) -> float:
    if one.shape != other.shape:
        return float("inf")
    same = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a == b]
    return max(
        (relative(one[i, t], other[i, t]) for i in same for t in range(one.shape[1])), default=0.0
    )


def contributions(bench: Bench, *, full: bool) -> Finding:
    """Gradients of untouched units, with one other unit altered, added or removed."""
    worst, limit, where = 0.0, SAME_SIZE, ()
    for before, after in batches(bench, full=full):
        one, other = bench.gradients(before), bench.gradients(after)
        moved = max(
            relative(one.held.flat(i), other.held.flat(i))
            for i, (a, b) in enumerate(zip(before, after, strict=True))
            if a == b
        )
        if moved > max(worst, SAME_SIZE):
            where = culprits(bench, before, after) or _changed_parameters(one, other, before, after)
        worst = max(worst, moved)
    alone = _contributions_alone(bench, full=full) if worst <= SAME_SIZE else None
    if alone is not None and alone[0] / alone[1] > worst / limit:
        worst, limit = alone
    finding = Finding(
        probe="contributions",
        compared="the gradient of every other unit, one unit altered, added or removed",
        verdict="passed",
        deviation=worst,
        limit=limit,
        what=_NOT_ALONE if alone is None else "",
    )
    if worst <= limit:
        return finding
    return _coupled(finding, where, "the gradient of a unit changes with the units beside it")


def _contributions_alone(bench: Bench, *, full: bool) -> tuple[float, float] | None:
    """Deviation and limit of a unit alone from the same beside another; None if random."""
    first, second = plain(bench.subject.units[:1]), plain(bench.subject.units[:2])
    quiet = bench.comparable(first, second)
    if quiet is None:
        return None
    moved, limit = float("inf"), OTHER_SIZE
    for number, other in _pairs(bench):
        alone = bench.gradients(plain([number]), quiet=quiet).held
        beside = bench.gradients(plain([number, other]), quiet=quiet).held
        moved = min(moved, relative(alone.flat(0), beside.flat(0)))
        limit = bench.limit(first[0], moved)
        if moved <= limit and not full:
            break
    return moved, limit


def _changed_parameters(one: Pass, other: Pass, before: Units, after: Units) -> tuple[str, ...]:
    same = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a == b]
    rows = one.held.rows.items()
    return tuple(
        name
        for name, row in rows
        if max(relative(row[i], other.held.rows[name][i]) for i in same) > SAME_SIZE
    )


def _coupled(finding: Finding, where: tuple[str, ...], what: str) -> Finding:
    return replace(finding, verdict="failed", where=where, what=what, do=_DO)
