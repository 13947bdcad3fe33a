"""A run's share of the budget: reserved before it starts, charged step by step, then settled."""

from __future__ import annotations

from typing import Protocol

from sqlalchemy import Connection

from discreet.accounting import Event
from discreet.errors import BudgetError, LedgerError
from discreet.ledger.database import Database, now
from discreet.ledger.limits import with_allowed
from discreet.ledger.rows import Rows, Run, first_steps, steps_between
from discreet.ledger.tables import ENDED


class Reservation:
    """What one run may charge, and has charged.

    Made by `BudgetLedger.reserve` and `BudgetLedger.reopen`.

    Args:
        database: The ledger's database.
        run: The run as it is on record.
    """

    def __init__(self, database: Database, run: Run) -> None:
        self._database, self._run = database, run

    def __repr__(self) -> str:
        return f"Reservation({self.run_id!r}, charged={self.charged}, remaining={self.remaining})"

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._run.id

    @property
    def dataset(self) -> int:
        """Number of the data set that is charged."""
        return self._run.dataset

    @property
    def private(self) -> bool:
        """Whether the run was begun with a guarantee."""
        return self._run.private

    @property
    def planned(self) -> tuple[Event, ...]:
        """The events that were planned, in order."""
        return self._run.plan

    @property
    def charged(self) -> int:
        """Steps charged, as of the last call."""
        return self._run.position

    @property
    def remaining(self) -> int:
        """Steps that may still be charged, as of the last call."""
        return self._run.allowed - self._run.position

    @property
    def events(self) -> tuple[Event, ...]:
        """All that was charged, in order, as of the last call."""
        return self._run.first(self._run.position)

    def charge(self, event: Event, *, steps: int | None = None) -> None:
        """Record steps durably; returns only when the record would survive a power cut.

        Args:
            event: What is about to run; must be what the plan says next.
            steps: How many steps of it; those of the event if not given.

        Raises:
            BudgetError: If the steps are more than the run may go. Nothing was recorded.
            LedgerError: If they are not what the plan says next, the run was settled, or the
                record cannot be made durable. The step must not be applied.
        """
        count = event.steps if steps is None else steps
        if count < 1:
            raise ValueError(f"expected steps >= 1, got {count}")
        with self._database.transaction(write=True) as connection:
            rows = self._rows(connection)
            run = self._current(rows)
            position = run.position + count
            if run.state == ENDED:
                raise self._settled()
            if position > run.allowed:
                raise self._at_the_limit(run)
            if steps_between(run.plan, run.position, position) != (event.with_steps(count),):
                raise LedgerError(
                    f"the step is not what run {run.id} planned as its step {run.position + 1}",
                    where=self._database.location,
                    do="start a new run for another mechanism; nothing was recorded",
                )
            run = run.changed(position=position, updated=now())
            rows.put_run(run)
        self._run = run

    def catch_up(self, steps: int) -> None:
        """Record that the run has charged `steps` steps in all, also beyond what it may go.

        For steps that ran and that this ledger has lost, after an old backup of it was restored.
        They are spent, whatever the budget says. Fewer than on record change nothing.

        Raises:
            LedgerError: If that is more than the run planned, or cannot be made durable.
        """
        with self._database.transaction(write=True) as connection:
            self._database.lock(connection)
            rows = self._rows(connection)
            run = rows.charges_of(self._run)
            if steps > run.steps:
                raise LedgerError(
                    f"run {run.id} is said to have charged {steps} steps, and planned {run.steps}",
                    where=self._database.location,
                    do="compare the run's own ledger; nothing was recorded",
                )
            if steps > run.position:
                run = run.changed(position=steps, updated=now())
                if steps > run.allowed:
                    run = with_allowed(run, steps)
                rows.put_run(run)
        self._run = run

    def refresh(self) -> None:
        """Read again how far the run has gone and may go.

        Raises:
            LedgerError: If the ledger cannot be read.
        """
        with self._database.transaction(write=True) as connection:
            run = self._current(self._rows(connection))
        self._run = run

    def settle(self) -> None:
        """End the run: what it did not charge is free for others. Harmless when repeated.

        Raises:
            LedgerError: If that cannot be made durable.
        """
        with self._database.transaction(write=True) as connection:
            self._database.lock(connection)
            rows = self._rows(connection)
            run = self._current(rows)
            if run.state != ENDED:
                run = with_allowed(run, run.position).changed(state=ENDED, updated=now())
                rows.put_run(run)
        self._run = run

    def cancel(self) -> None:
        """Take the run off the record if it has charged nothing; else settle it.

        Raises:
            LedgerError: If that cannot be made durable.
        """
        with self._database.transaction(write=True) as connection:
            self._database.lock(connection)
            rows = self._rows(connection)
            run = self._current(rows)
            if run.position == 0:
                rows.remove_run(run, rows.datasets()[run.dataset])
                self._run = run.changed(allowed=0, state=ENDED)
                return
        self.settle()

    def _rows(self, connection: Connection) -> Rows:
        return Rows(connection, key=self._database.key, location=self._database.location)

    def _current(self, rows: Rows) -> Run:
        run = rows.charges_of(self._run)
        if run.position < self._run.position:
            raise LedgerError(
                f"run {run.id} had charged {self._run.position} steps, and the ledger now says "
                f"{run.position}: an old copy of it was put in its place",
                where=self._database.location,
                do="Resume the run: its own ledger tells how far it went.",
            )
        return run

    def _at_the_limit(self, run: Run) -> BudgetError:
        if run.allowed < run.steps:
            what = (
                f"run {run.id} is stopped by the budget, after {run.position} of {run.steps} steps"
            )
            do = (
                "What it charged so far stays. To go on, raise the budget with `discreet ledger "
                "set-budget` until the rest of its steps fits, then resume the run."
            )
        else:
            what = f"run {run.id} has charged all {run.steps} steps that it planned"
            do = "Start a new run for more."
        return BudgetError(
            what,
            where=self._database.location,
            do=f"{do} Nothing was recorded.",
            fitting_steps=run.allowed - run.position,
        )

    def _settled(self) -> BudgetError:
        return BudgetError(
            f"run {self.run_id} was settled: what it had not charged is free for others",
            where=self._database.location,
            do="Resume the run, which reserves the rest again if it fits. Nothing was recorded.",
            fitting_steps=0,
        )


class ChargedElsewhere(Protocol):
    """A run's own record of what it charged: `RunLedger`."""

    def charge(self, event: Event) -> None:
        """Record `event` durably."""
        ...

    @property
    def events(self) -> tuple[Event, ...]:
        """All that was charged, in order."""
        ...


def reconcile(reservation: Reservation, run_ledger: ChargedElsewhere) -> int:
    """Bring a run's own ledger and its data set's to the larger of both counts.

    They differ by a step after a crash between the two writes, and by more after a backup of one
    of them was restored. The larger count is the safe one: a step is never applied before both
    have it.

    Args:
        reservation: The run in its data set's ledger.
        run_ledger: The run's own.

    Returns:
        Steps charged, by both.

    Raises:
        LedgerError: If the run's own ledger holds something else than the plan's first steps, or
            one of the two cannot be written.
    """
    theirs = sum(event.steps for event in run_ledger.events)
    if first_steps(reservation.planned, theirs) != tuple(run_ledger.events):
        raise LedgerError(
            f"run {reservation.run_id} charged something else than it planned",
            do="restore its ledger from a backup; without it the run cannot be continued",
        )
    if theirs > reservation.charged:
        reservation.catch_up(theirs)
    ours = reservation.charged
    for event in steps_between(reservation.planned, theirs, ours):
        run_ledger.charge(event)
    return max(ours, theirs)
