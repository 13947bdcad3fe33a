"""Probes of what one unit can do to another unit's contribution."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from torch import Tensor

from discreet.checking.bench import (
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
from discreet.errors import CheckError, DiscreetError

# Units of a large batch: one that seldom is exceeded, of which no layer can say that it is few.
_CROWD, _COMPANY = 32, 4
# Operations (two per multiplication with addition) that one large batch may take: forward passes
# and gradients of the short check, and either of the full one.
_FORWARD, _BACKWARD, _FULL = 4e10, 4e9, 2e11
_FEW, _REPLACEMENTS = 3, 8
_NOT_ALONE = "not with other batch sizes: the model draws random numbers that depend on them"
_DO = (
    "let every layer and loss term use its own unit only: frozen or group normalisation, "
    "a loss per unit that is divided by the unit's own numbers"
)


def batches(bench: Bench, *, full: bool) -> Iterator[tuple[Units, Units]]:
    """Small batches, and the same with their last unit altered: others are untouched."""
    numbers = list(bench.subject.units)
    first = plain(numbers[:2])
    for alteration in bench.subject.alterations if full else bench.subject.alterations[:1]:
        yield first, (*first[:-1], Unit(number=first[-1].number, alteration=alteration))
    if full or not bench.subject.alterations:
        for number in numbers[2 : 2 + _REPLACEMENTS] if full else numbers[2:3]:
            yield first, plain([numbers[0], number])
    if full and len(numbers) > 3:
        wide = plain(numbers[:4])
        yield wide[:3], (*wide[:2], wide[3])
    if full and len(numbers) > 2:
        yield from _altered_twice(bench)


def _altered_twice(bench: Bench) -> Iterator[tuple[Units, Units]]:
    """A second unit altered beside the first: a count of at least one moves with the second."""
    first, second, last = plain(list(bench.subject.units)[:3])
    ways = list(bench.subject.alterations)
    for way, following in zip(ways, [*ways[1:], *ways[:1]], strict=True):
        beside = first, replace(second, alteration=way)
        for other in dict.fromkeys((way, following)):
            yield (*beside, last), (*beside, replace(last, alteration=other))


def crowds(bench: Bench, *, full: bool, most: float) -> Iterator[tuple[Units, Units]]:
    """The same with as many units as a step may draw: a layer may wait for company.

    Args:
        bench: The subject; its units are repeated where there are too few.
        full: All given units too, and several alterations.
        most: How many operations a batch may take, if more than four units take that many.
    """
    subject, numbers = bench.subject, list(bench.subject.units)
    expected = subject.expected_batch_size
    drawn = min(math.ceil(expected + 2 * math.sqrt(expected)), _CROWD)  # seldom more
    each = max(bench.operations(), 1.0)
    affordable = max(int(min(most / each, len(numbers) + _CROWD)), _COMPANY)
    sizes = {min(max(drawn, len(numbers)), affordable)}
    sizes |= {min(len(numbers), affordable)} if full and len(numbers) > 2 else set()
    for size in sorted(max(size, _COMPANY) for size in sizes):
        before = plain([numbers[i % len(numbers)] for i in range(size)])
        last = before[-1].number
        alterations = [Unit(number=last, alteration=how) for how in subject.alterations[:1]]
        others = [Unit(number=number) for number in numbers if number != last]
        several = _REPLACEMENTS if full else _FEW
        for unit in [*others, *alterations][: max(1, min(several, int(most / each / size)))]:
            yield before, (*before[:-1], unit)


def compared(bench: Bench, *, full: bool) -> Iterator[tuple[Units, Units]]:
    """All pairs whose losses are compared."""
    yield from batches(bench, full=full)
    yield from crowds(bench, full=full, most=_FULL if full else _FORWARD)


def losses(bench: Bench, *, full: bool) -> Finding:
    """Losses of untouched units, with one other unit altered, added or removed."""
    worst, where = 0.0, ()
    for before, after in compared(bench, full=full):
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
    if moved <= bench.largest:
        return finding
    changed = replace(finding, deviation=moved, limit=bench.largest)
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
    for before, after in _crowds_with_gradients(bench, full=full):
        moved, refused = _crowd_change(bench, before, after)
        if moved > max(worst, SAME_SIZE):
            where = culprits(bench, before, after) or refused
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


def _crowds_with_gradients(bench: Bench, *, full: bool) -> Iterator[tuple[Units, Units]]:
    """In a short check only of models that are quick; the engine refuses couplings of the rest."""
    if full:
        return crowds(bench, full=True, most=_FULL)
    quick = bench.operations() * _COMPANY <= _BACKWARD
    return crowds(bench, full=False, most=_BACKWARD) if quick else iter(())


def _crowd_change(bench: Bench, before: Units, after: Units) -> tuple[float, tuple[str, ...]]:
    """How far norms of the untouched units, and one sum of their gradients, move.

    Returns:
        The largest relative change; infinite where the engine refuses so many units, though it
        took few, and then also the module that it names.
    """
    try:
        one = bench.crowd(before)
        other = bench.crowd(after, one.weights)
    except CheckError:
        raise
    except DiscreetError as error:
        return math.inf, (error.where,) if error.where else ()
    same = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a == b]
    norms = max(relative(one.norms[:, i], other.norms[:, i]) for i in same)
    return max(norms, relative(one.mixed, other.mixed)), ()


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
