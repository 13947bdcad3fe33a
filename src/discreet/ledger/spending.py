"""What was spent: the ε of the most charged image or unit of a data set, over all runs."""

from __future__ import annotations

from dataclasses import dataclass

from discreet.accounting import Event
from discreet.ledger.judging import Judge, Steps, compose, quick_bound
from discreet.ledger.limits import Overlap
from discreet.ledger.rows import Run
from discreet.privacy import NeighboringRelation


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What was spent on the most charged image of a data set.

    Attributes:
        epsilon: ε over all runs, composed at once; ∞ if one of them had no guarantee.
        delta: δ at which it holds.
        runs: Runs that charged the image.
        unprotected_runs: Those of them without a guarantee.
        events: All that ran on it, equal mechanisms together; without the unprotected runs.
        mixed: Whether the runs had different privacy units, so that this is of one image, composed
            under replace-one: see `discreet.ledger.units`.
    """

    epsilon: float
    delta: float
    runs: int
    unprotected_runs: int
    events: tuple[Event, ...]
    mixed: bool = False


def most_spent(overlap: Overlap, steps: Steps, *, delta: float, judge: Judge) -> Spent:
    """What was spent on the most charged image."""
    most: tuple[float, tuple[Run, ...], bool] = (-1.0, (), False)
    quick = judge.relation is NeighboringRelation.ADD_OR_REMOVE_ONE
    for image_class in overlap.classes:
        runs = tuple(run for run in overlap.of(image_class) if steps(run) > 0)
        # A bound that does not reach the largest so far needs no closer look.
        mixed = image_class in overlap.mixed
        quickly = quick and not mixed and most[1]
        if quickly and quick_bound(runs, steps, delta=delta) <= most[0]:
            continue
        epsilon = judge.epsilon(runs, steps, delta=delta, mixed=mixed)
        if epsilon > most[0]:
            most = (epsilon, runs, mixed)
    epsilon, runs, mixed = most
    return Spent(
        epsilon=max(epsilon, 0.0),
        delta=delta,
        runs=len(runs),
        unprotected_runs=sum(not run.private for run in runs),
        events=compose((run for run in runs if run.private), steps),
        mixed=mixed,
    )
