"""How far runs may go: what an image has spent, and which budgets a step would cross.

All that was charged to an image composes in one accountant call; ε are never added. What counts
for a data set is its most charged image.

The composition takes the settings of all runs as if they had been fixed beforehand, as accounting
over several runs usually does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from discreet.accounting import Accountant, Event, make_accountant
from discreet.ledger.curves import curve_of, epsilon_bound, pack, total_of
from discreet.ledger.membership import ImageClass
from discreet.ledger.rows import Budget, Dataset, Run
from discreet.privacy import NeighboringRelation

Steps = Callable[[Run], int]  # how many steps of a run are counted


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """A budget that would be crossed.

    Attributes:
        dataset: The data set whose budget it is.
        budget: The budget.
        runs: The runs that charge the image in question.
    """

    dataset: Dataset
    budget: Budget
    runs: tuple[Run, ...]


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """The data sets and runs that a data set has to do with.

    Attributes:
        classes: Sets of data sets (numbers) that some of its images are in.
        datasets: Those data sets by number.
        runs: All runs on them, oldest first.
    """

    classes: tuple[ImageClass, ...]
    datasets: Mapping[int, Dataset]
    runs: tuple[Run, ...]

    def with_run(self, run: Run) -> Overlap:
        """The same with a run added, or put in place of the one of its number."""
        others = [other for other in self.runs if other.number != run.number]
        ordered = sorted([*others, run], key=lambda r: r.number)
        return Overlap(classes=self.classes, datasets=self.datasets, runs=tuple(ordered))

    def of(self, image_class: ImageClass) -> tuple[Run, ...]:
        """Runs that charge the images of a class."""
        return tuple(run for run in self.runs if run.dataset in image_class)


def charged(run: Run) -> int:
    """Steps that a run has charged."""
    return run.position


def allowed(run: Run) -> int:
    """Steps that a run has charged or reserved."""
    return run.allowed


def compose(runs: Iterable[Run], steps: Steps) -> tuple[Event, ...]:
    """What ran on an image: equal mechanisms of all runs taken together."""
    totals: dict[Event, int] = {}
    for run in runs:
        for event in run.first(steps(run)):
            one = event.with_steps(1)
            totals[one] = totals.get(one, 0) + event.steps
    return tuple(event.with_steps(count) for event, count in totals.items())


def is_unbounded(runs: Iterable[Run], steps: Steps) -> bool:
    """Whether a run without a guarantee is among them."""
    return any(not run.private and steps(run) > 0 for run in runs)


def epsilon_of(runs: Sequence[Run], steps: Steps, *, delta: float, accountant: Accountant) -> float:
    """ε of what some runs did to one image; ∞ if one of them has no guarantee."""
    if is_unbounded(runs, steps):
        return math.inf
    return accountant.epsilon(compose(runs, steps), delta=delta)


def quick_bound(runs: Sequence[Run], steps: Steps, *, delta: float) -> float:
    """Upper bound on the same, for add-or-remove neighbours, from the curves on record."""
    if is_unbounded(runs, steps):
        return math.inf
    curves = (
        run.curve if steps(run) == run.allowed else pack(curve_of(run.first(steps(run))))
        for run in runs
    )
    return epsilon_bound(total_of(curves), delta=delta)


def accountant_for(budget: Budget, accountant: Accountant) -> Accountant:
    """The given accountant if it speaks of the budget's relation, else the default one."""
    if accountant.relation is budget.relation:
        return accountant
    return make_accountant("pld", relation=budget.relation)


def is_within(budget: Budget, runs: Sequence[Run], steps: Steps, accountant: Accountant) -> bool:
    """Whether runs on one image keep a budget."""
    if is_unbounded(runs, steps):
        return False
    if (
        budget.relation is NeighboringRelation.ADD_OR_REMOVE_ONE
        and quick_bound(runs, steps, delta=budget.delta) <= budget.epsilon
    ):
        return True
    judge = accountant_for(budget, accountant)
    spent = epsilon_of(runs, steps, delta=budget.delta, accountant=judge)
    return spent <= budget.epsilon


def first_crossing(
    overlap: Overlap, accountant: Accountant, *, concerning: int | None = None
) -> Crossing | None:
    """A budget that all that is charged and reserved would cross; None if there is none.

    Args:
        overlap: The data sets and runs.
        accountant: Composes them.
        concerning: Look only at images of this data set; all if not given.
    """
    for image_class in overlap.classes:
        if concerning is not None and concerning not in image_class:
            continue
        runs = overlap.of(image_class)
        for number in sorted(image_class):
            dataset = overlap.datasets[number]
            if dataset.budget is not None and not is_within(
                dataset.budget, runs, allowed, accountant
            ):
                return Crossing(dataset=dataset, budget=dataset.budget, runs=runs)
    return None


def largest(low: int, high: int, fits: Callable[[int], bool]) -> int:
    """Largest number in [low, high] that fits, by bisection; `low` is taken to fit."""
    if low >= high or fits(high):
        return high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def with_allowed(run: Run, steps: int) -> Run:
    """The run with another limit, and the curve of it."""
    return run.changed(allowed=steps, curve=pack(curve_of(run.first(steps))))


def fitting(overlap: Overlap, run: Run, accountant: Accountant, *, low: int, high: int) -> int:
    """How many steps of a run fit into all budgets, between `low` and `high`.

    `low` itself is not checked: it is what the run has charged or was promised.
    """

    def fits(steps: int) -> bool:
        changed = overlap.with_run(with_allowed(run, steps))
        return first_crossing(changed, accountant, concerning=run.dataset) is None

    return largest(low, high, fits)
