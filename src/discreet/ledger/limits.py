"""How far runs may go: which budgets a step would cross, and the most that crosses none."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from discreet.ledger.curves import curve_of, pack
from discreet.ledger.judging import Judge, allowed
from discreet.ledger.membership import ImageClass
from discreet.ledger.rows import Budget, Dataset, Run


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """A budget that would be crossed.

    Attributes:
        dataset: The data set whose budget it is.
        budget: The budget.
        runs: The runs that charge the image in question.
        mixed: Whether their units differ: see `discreet.ledger.units`.
    """

    dataset: Dataset
    budget: Budget
    runs: tuple[Run, ...]
    mixed: bool


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """The data sets and runs that a data set has to do with.

    Attributes:
        classes: Sets of data sets (numbers) that some of its images are in.
        datasets: Those data sets by number.
        runs: All runs on them, oldest first.
        mixed: Those of the classes that are of one image, in runs of different units.
    """

    classes: tuple[ImageClass, ...]
    datasets: Mapping[int, Dataset]
    runs: tuple[Run, ...]
    mixed: frozenset[ImageClass] = frozenset()

    def with_run(self, run: Run) -> Overlap:
        """The same with a run added, or put in place of the one of its number."""
        others = [other for other in self.runs if other.number != run.number]
        ordered = sorted([*others, run], key=lambda r: r.number)
        return dataclasses.replace(self, runs=tuple(ordered))

    def of(self, image_class: ImageClass) -> tuple[Run, ...]:
        """Runs that charge the images of a class."""
        return tuple(run for run in self.runs if run.dataset in image_class)


def first_crossing(
    overlap: Overlap, judge: Judge, *, concerning: int | None = None
) -> Crossing | None:
    """A budget that all that is charged and reserved would cross; None if there is none.

    Args:
        overlap: The data sets and runs.
        judge: Composes them.
        concerning: Look only at images of this data set; all if not given.
    """
    for image_class in overlap.classes:
        if concerning is not None and concerning not in image_class:
            continue
        runs, mixed = overlap.of(image_class), image_class in overlap.mixed
        for number in sorted(image_class):
            dataset = overlap.datasets[number]
            if dataset.budget is not None and not judge.is_within(
                dataset.budget, runs, allowed, mixed=mixed
            ):
                return Crossing(dataset=dataset, budget=dataset.budget, runs=runs, mixed=mixed)
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


def fitting(overlap: Overlap, run: Run, judge: Judge, *, low: int, high: int) -> int:
    """How many steps of a run fit into all budgets, between `low` and `high`.

    `low` itself is not checked: it is what the run has charged or was promised.
    """

    def fits(steps: int) -> bool:
        changed = overlap.with_run(with_allowed(run, steps))
        return first_crossing(changed, judge, concerning=run.dataset) is None

    return largest(low, high, fits)
