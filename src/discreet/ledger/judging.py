"""What runs did to one image, as an ε, and whether a budget is kept by it.

All that was charged to an image composes in one accountant call; ε are never added. Privacy loss
distributions of many different mechanisms take seconds, and other runs must be able to charge
their steps meanwhile: so nothing slow is worked out while the ledger is held. A judge that would
have to raises `Unproven`; the transaction is undone, the figure worked out, and the whole begun
again, with what is on record by then.

The composition takes the settings of all runs as if they had been fixed beforehand, as accounting
over several runs usually does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from discreet.accounting import Accountant, Event, epsilon_of_runs, make_accountant
from discreet.ledger.curves import curve_of, epsilon_bound, pack, total_of
from discreet.ledger.rows import Budget, Run
from discreet.privacy import NeighboringRelation

Steps = Callable[[Run], int]  # how many steps of a run are counted
T = TypeVar("T")

MOST_ATTEMPTS = 200


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
        for event in (event.ended() for event in run.first(steps(run))):
            one = event.with_steps(1)
            totals[one] = totals.get(one, 0) + event.steps
    return tuple(event.with_steps(count) for event, count in totals.items())


def is_unbounded(runs: Iterable[Run], steps: Steps) -> bool:
    """Whether a run without a guarantee is among them."""
    return any(not run.private and steps(run) > 0 for run in runs)


def quick_bound(runs: Sequence[Run], steps: Steps, *, delta: float) -> float:
    """Upper bound on ε for add-or-remove neighbours, from the curves on record; ∞ if none."""
    if is_unbounded(runs, steps):
        return math.inf
    curves = (
        run.curve if steps(run) == run.allowed else pack(curve_of(run.first(steps(run))))
        for run in runs
    )
    return epsilon_bound(total_of(curves), delta=delta)


class Unproven(Exception):  # noqa: N818  (not an error: a request)
    """A figure is wanted that has to be worked out first, outside of the transaction."""

    def __init__(self, events: tuple[Event, ...], delta: float, accountant: Accountant) -> None:
        super().__init__("to be worked out")
        self.events, self.delta, self.accountant = events, delta, accountant


class Judge:
    """Composes what ran on an image, and remembers the figures.

    Args:
        accountant: Composes.
    """

    def __init__(self, accountant: Accountant) -> None:
        self._accountant = accountant
        self._known: dict[object, float] = {}
        self._works = True

    @property
    def relation(self) -> NeighboringRelation:
        """The neighbouring relation of its accountant."""
        return self._accountant.relation

    def rougher(self) -> Judge:
        """One that is faster and about 1 % stricter."""
        return Judge(self._accountant.coarse())

    def attempt(self, action: Callable[[], T]) -> T:
        """Run `action` until it needs no figure that is not worked out yet.

        Args:
            action: Undoes itself if it raises: a transaction.
        """
        for number in range(MOST_ATTEMPTS):
            # If others change the ledger all the time, they have to wait for once.
            self._works = number == MOST_ATTEMPTS - 1
            try:
                return action()
            except Unproven as wanted:
                self._works = True
                self._epsilon(wanted.events, wanted.delta, wanted.accountant)
            finally:
                self._works = True
        raise AssertionError  # the last attempt works everything out itself

    def epsilon(
        self,
        runs: Sequence[Run],
        steps: Steps,
        *,
        delta: float,
        relation: NeighboringRelation | None = None,
        mixed: bool = False,
    ) -> float:
        """ε of what some runs did to one image; ∞ if one of them has no guarantee.

        Args:
            runs: The runs.
            steps: How many steps of each are counted.
            delta: δ.
            relation: The neighbouring relation; that of the accountant if not given. For another
                one than that, the default accountant composes.
            mixed: Whether the runs' units differ, so that they compose under replace-one: see
                `discreet.ledger.units`.
        """
        if is_unbounded(runs, steps):
            return math.inf
        accountant = self._accountant
        if mixed:
            relation = NeighboringRelation.REPLACE_ONE
        if relation is not None and accountant.relation is not relation:
            accountant = make_accountant("pld", relation=relation)
        return self._epsilon(compose(runs, steps), delta, accountant)

    def is_within(
        self, budget: Budget, runs: Sequence[Run], steps: Steps, *, mixed: bool = False
    ) -> bool:
        """Whether what some runs did to one image, or one unit, keeps a budget."""
        if is_unbounded(runs, steps):
            return False
        if (
            budget.relation is NeighboringRelation.ADD_OR_REMOVE_ONE
            and not mixed
            and quick_bound(runs, steps, delta=budget.delta) <= budget.epsilon
        ):
            return True
        spent = self.epsilon(runs, steps, delta=budget.delta, relation=budget.relation, mixed=mixed)
        return spent <= budget.epsilon

    def _epsilon(self, events: tuple[Event, ...], delta: float, accountant: Accountant) -> float:
        wanted = (frozenset(events), delta, accountant.relation)
        if wanted not in self._known:
            if not self._works:
                raise Unproven(events, delta, accountant)
            self._known[wanted] = epsilon_of_runs(events, delta=delta, accountant=accountant)
        return self._known[wanted]
