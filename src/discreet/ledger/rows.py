"""Rows of the ledger as values: read with their checksum verified, written with it."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, Table, func, insert, select, update

from discreet.accounting import Event, event_from_json
from discreet.errors import AccountingError, LedgerError
from discreet.ledger.faults import damaged
from discreet.ledger.tables import SCHEMA, charges, datasets, membership, meta, runs, seal
from discreet.ledger.units import Members
from discreet.privacy import NeighboringRelation


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What may be spent on any one unit of a data set, over all runs: see `ledger.units`.

    Attributes:
        epsilon: Bound on ε.
        delta: δ at which it holds.
        relation: The neighbouring relation.
    """

    epsilon: float
    delta: float
    relation: NeighboringRelation = NeighboringRelation.ADD_OR_REMOVE_ONE


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A data set on record.

    Attributes:
        number: Its place in the ledger.
        id: What it is known by, 32 hex digits.
        name: As the user calls it.
        images: How many it has, equal ones counted once.
        overlaps: Earlier data sets that share images: number to how many.
        runs: How many runs are on record.
        created: When, as information.
        budget: Its budget, if it has one.
    """

    number: int
    id: str
    name: str
    images: int
    overlaps: Mapping[int, int]
    runs: int
    created: str
    budget: Budget | None = None


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run on record.

    Attributes:
        number: Its place in the ledger: later runs have larger ones.
        id: The caller's name for it.
        dataset: Number of its data set.
        label: As the user knows it, such as its folder.
        planned: JSON of the events it planned, in order.
        private: Whether it has a guarantee at all (noise, from a source that cannot be repeated).
        accountant: The accountant it was planned with.
        relation: Its neighbouring relation.
        delta: Its δ.
        started: When, as information.
        steps: Steps of the plan.
        position: Steps charged.
        allowed: Steps it may go; what it has not charged of them is reserved.
        state: `reserved` or `ended`.
        curve: Rényi bound of the first `allowed` steps; see `discreet.ledger.curves`.
        updated: When it was charged last, as information.
    """

    number: int
    id: str
    dataset: int
    label: str
    planned: str
    private: bool
    accountant: str
    relation: str
    delta: float
    started: str
    steps: int
    position: int
    allowed: int
    state: str
    curve: bytes
    updated: str

    @functools.cached_property
    def plan(self) -> tuple[Event, ...]:
        """The events it planned, in order.

        Raises:
            LedgerError: If an event is not known to this version.
        """
        try:
            return tuple(event_from_json(part) for part in json.loads(self.planned))
        except (AccountingError, ValueError, TypeError) as error:
            raise LedgerError(
                f"the plan of run {self.id} cannot be read ({error})",
                do="use the version of discreet that wrote it",
            ) from error

    def first(self, steps: int) -> tuple[Event, ...]:
        """The events of the plan's first `steps` steps."""
        return first_steps(self.plan, steps)

    def changed(self, **changes: Any) -> Run:
        """A copy with other values."""
        return dataclasses.replace(self, **changes)


def first_steps(events: Iterable[Event], steps: int) -> tuple[Event, ...]:
    """The events that the first `steps` steps are."""
    return steps_between(events, 0, steps)


def steps_between(events: Iterable[Event], start: int, end: int) -> tuple[Event, ...]:
    """The events that the steps from number `start` up to before `end` are, counted from 0."""
    taken: list[Event] = []
    before = 0
    for event in events:
        count = min(end, before + event.steps) - max(start, before)
        if count > 0:
            taken.append(event.with_steps(count))
        before += event.steps
    return tuple(taken)


class Rows:
    """Reads and writes rows of one ledger, within a transaction of the caller.

    Args:
        connection: The transaction.
        key: The ledger's key.
        location: The ledger, for errors.
    """

    def __init__(self, connection: Connection, *, key: bytes, location: str) -> None:
        self.connection, self._key, self._location = connection, key, location

    # ---- data sets ----

    def datasets(self) -> dict[int, Dataset]:
        """All data sets by number."""
        rows = self.connection.execute(select(datasets).order_by(datasets.c.number)).mappings()
        found = {row["number"]: self._dataset(row) for row in rows}
        counted = self.connection.execute(
            select(meta.c.value).where(meta.c.key == "datasets")
        ).scalar()
        if counted != str(len(found)):
            raise damaged(self._location, f"{len(found)} of {counted} data sets are there")
        return found

    def add_dataset(self, dataset: Dataset, members: Members) -> None:
        """Put a data set on record."""
        values = {"number": dataset.number, "fingerprints": members.joined}
        if members.units is not None:  # from now on, versions that know no units have to keep off
            newest = update(meta).where(meta.c.key == "schema").values(value=str(SCHEMA))
            self.connection.execute(newest)
        self._insert(datasets, _dataset_values(dataset))
        self._insert(membership, values)
        self.connection.execute(
            update(meta).where(meta.c.key == "datasets").values(value=str(dataset.number))
        )

    def put_dataset(self, dataset: Dataset) -> None:
        """Write a data set's row anew."""
        self._update(datasets, _dataset_values(dataset))

    def members(self, dataset: Dataset) -> Members:
        """Images of a data set, and its units."""
        row = (
            self.connection.execute(select(membership).where(membership.c.number == dataset.number))
            .mappings()
            .one_or_none()
        )
        if row is None:
            raise damaged(self._location, f"the images of data set {dataset.id[:8]} are gone")
        self._verify(membership, row)
        try:
            return Members.split(row["fingerprints"], count=dataset.images)
        except ValueError as error:
            raise damaged(self._location, f"{dataset.id[:8]}: {error}") from None

    def _dataset(self, row: RowMapping) -> Dataset:
        self._verify(datasets, row)
        budget = None
        if row["epsilon"] is not None:
            relation = NeighboringRelation(row["relation"])
            budget = Budget(epsilon=row["epsilon"], delta=row["delta"], relation=relation)
        return Dataset(
            number=row["number"],
            id=row["id"],
            name=row["name"],
            images=row["images"],
            overlaps={int(number): n for number, n in json.loads(row["overlaps"]).items()},
            runs=row["runs"],
            created=row["created"],
            budget=budget,
        )

    # ---- runs ----

    def runs_of(self, chosen: Iterable[Dataset], *, lock: bool = False) -> list[Run]:
        """Runs on any of some data sets, oldest first.

        Args:
            chosen: The data sets.
            lock: Whether to keep them from being charged until the transaction ends.
        """
        expected = {dataset.number: dataset.runs for dataset in chosen}
        query = _RUNS.where(runs.c.dataset.in_(list(expected))).order_by(runs.c.number)
        found = self._runs(query.with_for_update() if lock else query)
        for number, count in expected.items():
            there = sum(run.dataset == number for run in found)
            if there != count:
                raise damaged(
                    self._location, f"{there} of {count} runs on data set {number} are there"
                )
        return found

    def run(self, run_id: str, *, lock: bool = False) -> Run | None:
        """A run by its id; with `lock`, kept from being charged until the transaction ends."""
        query = _RUNS.where(runs.c.id == run_id)
        found = self._runs(query.with_for_update() if lock else query)
        return found[0] if found else None

    def next_run_number(self) -> int:
        """Number of a new run."""
        return (self.connection.execute(select(func.max(runs.c.number))).scalar() or 0) + 1

    def add_run(self, run: Run, dataset: Dataset) -> None:
        """Put a run on record."""
        self._insert(runs, _values(run, runs))
        self._insert(charges, _values(run, charges))
        self.put_dataset(dataclasses.replace(dataset, runs=dataset.runs + 1))

    def remove_run(self, run: Run, dataset: Dataset) -> None:
        """Take a run off the record."""
        for table in (runs, charges):
            self.connection.execute(table.delete().where(table.c.number == run.number))
        self.put_dataset(dataclasses.replace(dataset, runs=dataset.runs - 1))

    def put_run(self, run: Run) -> None:
        """Write what is charged and allowed anew."""
        self._update(charges, _values(run, charges))

    def charges_of(self, run: Run) -> Run:
        """The run as it is now, kept from others until the transaction ends."""
        query = select(charges).where(charges.c.number == run.number).with_for_update()
        row = self.connection.execute(query).mappings().one_or_none()
        if row is None:
            raise damaged(self._location, f"the charges of run {run.id} are gone")
        self._verify(charges, row)
        return run.changed(**{name: row[name] for name in _CHARGED})

    def _runs(self, query: Any) -> list[Run]:
        found: list[Run] = []
        for values in self.connection.execute(query):
            row = dict(zip(_RUN_COLUMNS, values, strict=True))
            self._verify(runs, row)
            self._verify(charges, row, checksum=row.pop("charges_checksum"))
            del row["checksum"]
            found.append(Run(**row))
        return found

    # ---- checksums ----

    def _insert(self, table: Table, values: Mapping[str, Any]) -> None:
        self.connection.execute(insert(table), self._sealed(table, values))

    def _update(self, table: Table, values: Mapping[str, Any]) -> None:
        statement = update(table).where(table.c.number == values["number"])
        changed = self.connection.execute(statement.values(self._sealed(table, values))).rowcount
        if changed != 1:
            raise damaged(self._location, f"a row of {table.name} is gone")

    def _sealed(self, table: Table, values: Mapping[str, Any]) -> dict[str, Any]:
        return {**values, "checksum": self._seal(table, values)}

    def _seal(self, table: Table, values: RowMapping | Mapping[str, Any]) -> bytes:
        return seal(self._key, table.name, *(values[name] for name in _SEALED[table.name]))

    def _verify(
        self, table: Table, row: RowMapping | Mapping[str, Any], *, checksum: bytes | None = None
    ) -> None:
        try:
            whole = self._seal(table, row) == (row["checksum"] if checksum is None else checksum)
        except TypeError:
            whole = False
        if not whole:
            raise damaged(
                self._location, f"row {row['number']} of {table.name} is not what was written"
            )


_SEALED: Mapping[str, Sequence[str]] = {
    table.name: [column.name for column in table.columns if column.name != "checksum"]
    for table in (datasets, membership, runs, charges)
}
_CHARGED = [name for name in _SEALED[charges.name] if name != "number"]
_RUN_COLUMNS = [*_SEALED[runs.name], "checksum", *_CHARGED, "charges_checksum"]
_RUNS = select(
    runs,
    *(column for column in charges.columns if column.name not in ("number", "checksum")),
    charges.c.checksum.label("charges_checksum"),
).join_from(runs, charges, runs.c.number == charges.c.number)


def _values(run: Run, table: Table) -> dict[str, Any]:
    return {name: getattr(run, name) for name in _SEALED[table.name]}


def _dataset_values(dataset: Dataset) -> dict[str, Any]:
    budget = dataset.budget
    return {
        "number": dataset.number,
        "id": dataset.id,
        "name": dataset.name,
        "images": dataset.images,
        "overlaps": json.dumps({str(k): v for k, v in dataset.overlaps.items()}),
        "runs": dataset.runs,
        "created": dataset.created,
        "epsilon": None if budget is None else float(budget.epsilon),
        "delta": None if budget is None else budget.delta,
        "relation": None if budget is None else budget.relation.value,
    }
