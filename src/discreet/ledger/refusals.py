"""What a run is told that does not fit into a budget."""

from __future__ import annotations

from discreet.errors import BudgetError
from discreet.ledger.judging import Judge, allowed, charged, compose, is_unbounded
from discreet.ledger.limits import Crossing, Overlap, first_crossing, fitting
from discreet.ledger.rows import Run
from discreet.terminal import count, format_delta, format_epsilon

MANY = 20  # different mechanisms, from which on composing them takes a while


class Crossed(Exception):  # noqa: N818  (becomes a BudgetError, outside of the transaction)
    """A run would cross a budget."""

    def __init__(self, crossing: Crossing, overlap: Overlap, run: Run) -> None:
        super().__init__("a budget would be crossed")
        self.crossing, self.overlap, self.run = crossing, overlap, run


def refuse_crossing(overlap: Overlap, run: Run, judge: Judge) -> None:
    """Refuse a run that would cross a budget of its data set, or of one that shares images.

    Raises:
        Crossed: If so.
    """
    crossing = first_crossing(overlap.with_run(run), judge, concerning=run.dataset)
    if crossing is not None:
        raise Crossed(crossing, overlap, run)


def refusal(crossed: Crossed, judge: Judge, *, location: str) -> BudgetError:
    """The error that says which budget is in the way, why, and what would fit.

    Args:
        crossed: What was found.
        judge: Composes.
        location: The ledger.
    """
    crossing, run = crossed.crossing, crossed.run
    many = len(compose(crossing.runs, allowed)) > MANY
    fits = fitting(
        crossed.overlap,
        run,
        judge.rougher() if many else judge,
        low=run.position,
        high=run.allowed,
    )
    budget, dataset = crossing.budget, crossing.dataset
    others = [other for other in crossing.runs if other.number != run.number]
    spent = judge.epsilon(
        crossing.runs,
        charged,
        delta=budget.delta,
        relation=budget.relation,
        mixed=crossing.mixed,
    )
    open_runs = [other for other in others if other.allowed > other.position]
    parts = [
        f"the run would cross the budget of data set {dataset.name} ({dataset.id[:8]}), "
        f"ε = {format_epsilon(budget.epsilon)} at δ = {format_delta(budget.delta)}",
        f"spent so far: ε = {format_epsilon(spent)} by "
        + count(sum(each.position > 0 for each in crossing.runs), "run"),
    ]
    if open_runs:
        reserved = ", ".join(
            f"{other.allowed - other.position} steps by run {other.id}" for other in open_runs[:5]
        )
        more = f" and {len(open_runs) - 5} runs more" if len(open_runs) > 5 else ""
        parts.append(f"reserved: {reserved}{more}")
    if crossing.mixed:
        parts.append(
            "its privacy units are not those of earlier runs on the same images, so that each "
            "image counts as replaced, at about twice the ε"
        )
    if not run.private:
        parts.append("the run has no guarantee, so that its ε is ∞")
        do = "Give it noise from the secure generator, or try it on public images."
    else:
        steps = run.allowed - run.position
        parts.append(f"{fits - run.position} of its {steps} steps would still fit")
        do = "Take fewer steps or more noise (a smaller epsilon=)"
        if open_runs:
            do += ", end runs that are dead with `discreet ledger settle run=ID`"
        do += ", or raise the budget with `discreet ledger set-budget`."
    if is_unbounded(crossing.runs, charged):
        do = "A run without a guarantee has used these images: no budget can be kept any more."
    return BudgetError(
        "; ".join(parts),
        where=location,
        do=f"{do} Nothing was recorded.",
        fitting_steps=fits - run.position,
    )
