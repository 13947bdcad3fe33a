"""A new budget: which open runs it cuts, and which get back what was cut from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from discreet.ledger.judging import Judge, allowed
from discreet.ledger.limits import Overlap, fitting, largest, with_allowed
from discreet.ledger.membership import ImageClass
from discreet.ledger.overlaps import overlap_of
from discreet.ledger.rows import Dataset, Rows, Run
from discreet.ledger.spending import Spent
from discreet.ledger.tables import ENDED, RESERVED


@dataclass(frozen=True, kw_only=True)
class BudgetChange:
    """What a new budget came to.

    Attributes:
        dataset: The data set, with its budget.
        spent: What was spent already.
        limits: Runs whose limit it changed: id to steps they may now go.
    """

    dataset: Dataset
    spent: Spent
    limits: dict[str, int]

    @property
    def is_overspent(self) -> bool:
        """Whether more was spent already than the budget allows."""
        budget = self.dataset.budget
        return budget is not None and self.spent.epsilon > budget.epsilon


def apply_budget(
    rows: Rows, known: Mapping[int, Dataset], chosen: Dataset, judge: Judge
) -> tuple[Overlap, dict[str, int]]:
    """Move the limits of open runs to where a data set's new budget puts them.

    Args:
        rows: The ledger, with the new budget on record.
        known: All data sets by number, `chosen` with its new budget among them.
        chosen: The data set.
        judge: Composes what is charged and reserved.

    Returns:
        What the data set has to do with, and the new limits: id of the run to its steps.
    """
    overlap = overlap_of(rows, known, chosen, lock=True)
    changed = _cut(_only_budget_of(overlap, chosen), judge)
    for run in changed:
        rows.put_run(run)
    numbers = {run.number for run in changed}
    for run in overlap.runs:
        if run.state == RESERVED and run.allowed < run.steps and run.number not in numbers:
            around = overlap_of(rows, known, known[run.dataset], lock=True)
            steps = fitting(around, run, judge, low=run.allowed, high=run.steps)
            if steps > run.allowed:
                changed.append(with_allowed(run, steps))
                rows.put_run(changed[-1])
    for run in changed:
        overlap = overlap.with_run(run)
    return overlap, {run.id: run.allowed for run in changed}


def _only_budget_of(overlap: Overlap, dataset: Dataset) -> Overlap:
    """The same without the budgets of other data sets."""
    datasets = {
        number: other if number == dataset.number else dataclasses.replace(other, budget=None)
        for number, other in overlap.datasets.items()
    }
    return dataclasses.replace(overlap, datasets=datasets)


def _cut(overlap: Overlap, judge: Judge) -> list[Run]:
    """Open runs with the limits that keep the budgets, the newest cut first."""
    changed: dict[int, Run] = {}
    for image_class in overlap.classes:
        for run in reversed(overlap.of(image_class)):
            if run.state == ENDED or run.allowed == run.position:
                continue
            if _keeps(overlap, image_class, judge):
                break
            changed[run.number] = _largest_that_keeps(overlap, image_class, run, judge)
            overlap = overlap.with_run(changed[run.number])
    return list(changed.values())


def _keeps(overlap: Overlap, image_class: ImageClass, judge: Judge) -> bool:
    runs = overlap.of(image_class)
    mixed = image_class in overlap.mixed
    budgets = [overlap.datasets[number].budget for number in image_class]
    return all(judge.is_within(budget, runs, allowed, mixed=mixed) for budget in budgets if budget)


def _largest_that_keeps(overlap: Overlap, image_class: ImageClass, run: Run, judge: Judge) -> Run:
    def fits(steps: int) -> bool:
        return _keeps(overlap.with_run(with_allowed(run, steps)), image_class, judge)

    return with_allowed(run, largest(run.position, run.allowed, fits))
