"""The ledger of data sets: what was spent on each image, over all runs, and how far it may go."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Generator, Iterable, Sequence
from hashlib import blake2b
from pathlib import Path

from discreet import _validate
from discreet.accounting import Accountant, Event, make_accountant, merge
from discreet.errors import ConfigurationError, LedgerError
from discreet.ledger import membership
from discreet.ledger.changes import BudgetChange, apply_budget
from discreet.ledger.curves import curve_of, pack
from discreet.ledger.database import Database, now
from discreet.ledger.judging import Judge, allowed, charged
from discreet.ledger.limits import Overlap, fitting, with_allowed
from discreet.ledger.overlaps import find, overlap_of, register
from discreet.ledger.refusals import Crossed, refusal, refuse_crossing
from discreet.ledger.reservation import Reservation
from discreet.ledger.rows import Budget, Dataset, Rows, Run
from discreet.ledger.spending import Spent, most_spent
from discreet.ledger.tables import ENDED, RESERVED
from discreet.ledger.units import classes_of, members_of
from discreet.privacy import NeighboringRelation


class BudgetLedger:
    """A durable ledger of what data sets have spent, shared by all runs and colleagues.

    Open it with `BudgetLedger.open`.

    Args:
        database: Where it lies.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    @classmethod
    def open(cls, where: str | Path | None = None, *, create: bool = True) -> BudgetLedger:
        """Open a ledger.

        Args:
            where: A file (SQLite) or `postgresql://USER@HOST/NAME`; if not given, the environment
                variable `DISCREET_LEDGER`, else `ledger.sqlite` in the user's data directory.
            create: Whether to begin it where there is none.

        Raises:
            LedgerError: If it cannot be opened, or is of an unknown schema.
            ConfigurationError: If the URL is of no use.
        """
        return cls(Database(where, create=create))

    def __repr__(self) -> str:
        return f"BudgetLedger({self.location!r})"

    @property
    def ledger_id(self) -> str:
        """Random name of this ledger, 16 hex digits."""
        return self.database.ledger_id

    @property
    def location(self) -> str:
        """Where it lies, without a password."""
        return self.database.location

    def close(self) -> None:
        """Close the connections of this process."""
        self.database.close()

    def fingerprint(self, digest: bytes) -> bytes:
        """What an image is known by here: a keyed hash of its content digest, 16 bytes."""
        return membership.fingerprint(self.database.key, digest)

    def mac(self, data: bytes) -> bytes:
        """Keyed BLAKE2b of anything, 32 bytes: who has not the ledger cannot make one."""
        return blake2b(data, key=self.database.key, digest_size=32, person=b"discreet mac").digest()

    # ---- runs ----

    def reserve(
        self,
        *,
        run_id: str,
        name: str,
        digests: Sequence[bytes],
        units: Sequence[int] | None = None,
        planned: Sequence[Event],
        accountant: Accountant,
        delta: float,
        private: bool = True,
        label: str = "",
    ) -> Reservation:
        """Set a run's whole plan aside, so that no other run can spend it.

        Args:
            run_id: The run's own id, never used before.
            name: The data set, as the user calls it.
            digests: Content digest of each of its images (`ImageRecord.digest`).
            units: Number of the privacy unit of each; without it, every image is one.
            planned: What the run will do.
            accountant: Composes it with all that was charged and reserved.
            delta: δ of the run, as information: a budget is checked at its own.
            private: Whether the run has a guarantee at all; without one its ε is ∞.
            label: The run as the user knows it, such as its folder.

        Raises:
            BudgetError: If a budget would be crossed, of this data set or of another one that
                shares images. Nothing was recorded.
            LedgerError: If the id was used before, or the ledger cannot be written.
            ConfigurationError: If there are no images or steps, or δ is out of range.
        """
        _validate.open_unit_interval(delta=delta)
        if not digests:
            raise ConfigurationError("a data set without images cannot be charged", where="data")
        plan = merge(planned)
        steps = sum(event.steps for event in plan)
        _validate.positive_int(steps=steps)
        wanted = members_of(self.database.key, digests, units)
        draft = Run(
            number=0,
            id=run_id,
            dataset=0,
            label=label,
            planned=json.dumps([event.to_json() for event in plan], allow_nan=False),
            private=private,
            accountant=accountant.name,
            relation=accountant.relation.value,
            delta=delta,
            started=now(),
            steps=steps,
            position=0,
            allowed=steps,
            state=RESERVED,
            curve=pack(curve_of(plan)),
            updated=now(),
        )

        def book() -> Run:
            with self._writing() as rows:
                known = rows.datasets()
                dataset = register(rows, known, key=self.database.key, name=name, wanted=wanted)
                if rows.run(run_id) is not None:
                    raise LedgerError(
                        f"run {run_id} is on record already",
                        where=self.location,
                        do="resume it, or start a new run",
                    )
                run = draft.changed(number=rows.next_run_number(), dataset=dataset.number)
                known = {**known, dataset.number: dataset}
                overlap = overlap_of(rows, known, dataset, charging=True)
                refuse_crossing(overlap, run, judge)
                rows.add_run(run, dataset)
            return run

        judge = Judge(accountant)
        return Reservation(self.database, self._explained(judge, book))

    def reopen(self, run_id: str, *, accountant: Accountant | None = None) -> Reservation:
        """Go on with a run: a killed one, one that was cut by a budget, or a settled one.

        A settled run reserves the rest of its plan again, and a run that was cut gets as much of
        it as fits by now.

        Args:
            run_id: The run.
            accountant: Composes; the one the run was planned with if not given.

        Raises:
            BudgetError: If the run was settled and the rest no longer fits.
            LedgerError: If the run is not on record, or the ledger cannot be written.
        """
        with self._reading() as rows:
            planned_with = self._known_run(rows, run_id)
        judge = Judge(
            accountant
            or make_accountant(
                planned_with.accountant,  # pyright: ignore[reportArgumentType]
                relation=NeighboringRelation(planned_with.relation),
            )
        )

        def book() -> Run:
            with self._writing() as rows:
                run = self._known_run(rows, run_id, lock=True)
                if run.allowed == run.steps:
                    return run
                known = rows.datasets()
                overlap = overlap_of(rows, known, known[run.dataset])
                if run.state == ENDED:
                    run = with_allowed(run, run.steps).changed(state=RESERVED, updated=now())
                    refuse_crossing(overlap, run, judge)
                else:
                    steps = fitting(overlap, run, judge, low=run.allowed, high=run.steps)
                    run = with_allowed(run, steps)
                rows.put_run(run)
            return run

        return Reservation(self.database, self._explained(judge, book))

    def settle(self, run_id: str) -> Reservation:
        """End a run that is dead: what it did not charge is free for others.

        Raises:
            LedgerError: If the run is not on record, or the ledger cannot be written.
        """
        with self._reading() as rows:
            reservation = Reservation(self.database, self._known_run(rows, run_id))
        reservation.settle()
        return reservation

    def knows(self, run_id: str) -> bool:
        """Whether a run is on record.

        Raises:
            LedgerError: If the ledger cannot be read.
        """
        with self._reading() as rows:
            return rows.run(run_id) is not None

    # ---- data sets ----

    def register(
        self, *, name: str, digests: Sequence[bytes], units: Sequence[int] | None = None
    ) -> Dataset:
        """Put a data set on record, or find it there.

        Raises:
            LedgerError: If the ledger cannot be written.
            ConfigurationError: If there are no images.
        """
        if not digests:
            raise ConfigurationError("a data set without images cannot be charged", where="data")
        wanted = members_of(self.database.key, digests, units)
        with self._writing() as rows:
            known = rows.datasets()
            return register(rows, known, key=self.database.key, name=name, wanted=wanted)

    def set_budget(
        self,
        dataset: str,
        epsilon: float | None,
        delta: float = 1e-5,
        *,
        accountant: Accountant | None = None,
    ) -> BudgetChange:
        """Set, change or take away the budget of a data set.

        A budget that open reservations do not fit into cuts them, the newest first, each to the
        largest part of its plan that fits: a run that is under way stops exactly there. A
        budget that leaves more room gives cut runs back what fits of their plan. Less than what
        is spent already is allowed: then nothing more may run.

        Args:
            dataset: Id of the data set, or its first digits (at least 4), or its name.
            epsilon: Bound on ε; None takes the budget away.
            delta: δ at which it holds.
            accountant: Composes what is charged and reserved; `pld` if not given. Its relation
                becomes that of the budget.

        Raises:
            ConfigurationError: If ε is negative or δ out of range.
            LedgerError: If the data set is not on record, or the ledger cannot be written.
        """
        accountant = accountant or make_accountant("pld")
        if epsilon is not None:
            _validate.non_negative(epsilon=epsilon)
            _validate.open_unit_interval(delta=delta)
        judge = Judge(accountant)

        def change() -> tuple[Dataset, Overlap, dict[str, int]]:
            with self._writing() as rows:
                known = rows.datasets()
                chosen = find(known, dataset, location=self.location)
                budget = (
                    None
                    if epsilon is None
                    else Budget(epsilon=float(epsilon), delta=delta, relation=accountant.relation)
                )
                chosen = dataclasses.replace(chosen, budget=budget)
                rows.put_dataset(chosen)
                known[chosen.number] = chosen
                return chosen, *apply_budget(rows, known, chosen, judge)

        chosen, overlap, limits = judge.attempt(change)
        spent = most_spent(overlap, charged, delta=delta, judge=judge)
        return BudgetChange(dataset=chosen, spent=spent, limits=limits)

    def total(
        self,
        dataset: str | Sequence[bytes],
        *,
        units: Sequence[int] | None = None,
        delta: float,
        accountant: Accountant,
        reserved: bool = False,
    ) -> Spent:
        """What was spent on the most charged image, or unit, of a data set, over all runs.

        Args:
            dataset: Id of the data set, or the content digests of its images. A set of images
                that is not on record counts what was spent on them in others.
            units: Number of the privacy unit of each of these images, as in `reserve`.
            delta: δ at which ε is wanted.
            accountant: Composes.
            reserved: Whether to count what open runs have reserved as well.

        Raises:
            LedgerError: If the data set is not on record, or the ledger cannot be read.
        """
        _validate.open_unit_interval(delta=delta)
        with self._reading() as rows:
            known = rows.datasets()
            if isinstance(dataset, str):
                overlap = overlap_of(rows, known, find(known, dataset, location=self.location))
            else:
                overlap = self._overlap_of_images(rows, known, dataset, units)
        steps = allowed if reserved else charged
        return most_spent(overlap, steps, delta=delta, judge=Judge(accountant))

    def datasets(self) -> tuple[Dataset, ...]:
        """All data sets on record.

        Raises:
            LedgerError: If the ledger cannot be read.
        """
        with self._reading() as rows:
            return tuple(rows.datasets().values())

    def dataset(self, text: str) -> Dataset:
        """The data set of an id, its first digits, or a name.

        Raises:
            LedgerError: If there is none, or more than one.
        """
        with self._reading() as rows:
            return find(rows.datasets(), text, location=self.location)

    def units(self, dataset: Dataset) -> int:
        """How many privacy units a data set has: its images, or groups of them.

        Raises:
            LedgerError: If the ledger cannot be read.
        """
        with self._reading() as rows:
            return rows.members(dataset).count

    def find_images(
        self, digests: Iterable[bytes], units: Sequence[int] | None = None
    ) -> Dataset | None:
        """The data set of exactly these images, in these units, if it is on record.

        Raises:
            LedgerError: If the ledger cannot be read.
        """
        key = self.database.key
        identity = members_of(key, digests, units).identity(key)
        return next((d for d in self.datasets() if d.id == identity), None)

    def runs(self, dataset: Dataset | None = None) -> tuple[Run, ...]:
        """Runs on record that charge images of a data set, of all if not given; oldest first.

        Raises:
            LedgerError: If the ledger cannot be read.
        """
        with self._reading() as rows:
            known = rows.datasets()
            if dataset is None:
                return tuple(rows.runs_of(known.values()))
            return overlap_of(rows, known, known[dataset.number]).runs

    def runs_on(self, digests: Sequence[bytes]) -> tuple[Run, ...]:
        """Runs on record that charge some of these images, in whichever data set.

        Args:
            digests: Content digest of each image (`ImageRecord.digest`).

        Raises:
            LedgerError: If the ledger cannot be read.
        """
        with self._reading() as rows:
            return self._overlap_of_images(rows, rows.datasets(), digests, None).runs

    # ---- within ----

    @contextlib.contextmanager
    def _writing(self) -> Generator[Rows]:
        with self.database.transaction(write=True) as connection:
            self.database.lock(connection)
            yield Rows(connection, key=self.database.key, location=self.location)

    @contextlib.contextmanager
    def _reading(self) -> Generator[Rows]:
        with self.database.transaction() as connection:
            yield Rows(connection, key=self.database.key, location=self.location)

    def _known_run(self, rows: Rows, run_id: str, *, lock: bool = False) -> Run:
        run = rows.run(run_id, lock=lock)
        if run is None:
            raise LedgerError(
                f"run {run_id} is not on record",
                where=self.location,
                do="Name the ledger it was started with (ledger=), or restore a newer backup.",
            )
        return run

    def _overlap_of_images(
        self,
        rows: Rows,
        known: dict[int, Dataset],
        digests: Sequence[bytes],
        units: Sequence[int] | None,
    ) -> Overlap:
        wanted = members_of(self.database.key, digests, units)
        identity = wanted.identity(self.database.key)
        for dataset in known.values():
            if dataset.id == identity:
                return overlap_of(rows, known, dataset)
        everything = {0: wanted, **{n: rows.members(other) for n, other in known.items()}}
        drawn = {number for number, other in known.items() if other.runs}
        classes = classes_of(0, everything, charged=drawn)
        touched = frozenset[int]().union(*classes.all) - {0}
        runs = rows.runs_of([known[number] for number in touched])
        return Overlap(classes=classes.all, mixed=classes.mixed, datasets=known, runs=tuple(runs))

    def _explained(self, judge: Judge, book: Callable[[], Run]) -> Run:
        """Book; if a budget is in the way, work out what would fit, with nothing held."""
        try:
            return judge.attempt(book)
        except Crossed as crossed:
            raise refusal(crossed, judge, location=self.location) from None
