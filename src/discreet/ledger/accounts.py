"""The two records of a run: its own, and that of its data set, charged before it.

The data set's ledger may refuse a step, so it goes first. A crash between the two leaves the run's
own record behind; going on, both are brought to the larger count.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from discreet.accounting import Event
from discreet.config import MechanismConfig
from discreet.errors import LedgerError
from discreet.ledger.budget import BudgetLedger
from discreet.ledger.reservation import Reservation, reconcile
from discreet.ledger.run import RunLedger
from discreet.ledger.spending import Spent

OWN_RECORD = "ledger.jsonl"


class RunAccounts:
    """Where the steps of one run are charged.

    Use `begin` for a new run and `go_on` for an interrupted one.

    Args:
        ledger: The ledger of the data set.
        reservation: What the run may spend by it.
        own: The run's own record.
    """

    def __init__(self, ledger: BudgetLedger, reservation: Reservation, own: RunLedger) -> None:
        self._ledger, self._reservation, self._own = ledger, reservation, own

    @staticmethod
    def exist(folder: Path, *, ledger: BudgetLedger, run_id: str) -> bool:
        """Whether either record of a run is there: a run killed before has none to go on with.

        Raises:
            LedgerError: The ledger cannot be read.
        """
        return (folder / OWN_RECORD).exists() or ledger.knows(run_id)

    @classmethod
    def begin(
        cls,
        folder: Path,
        *,
        ledger: BudgetLedger,
        run_id: str,
        label: str,
        name: str,
        digests: Sequence[bytes],
        units: Sequence[int] | None = None,
        mechanism: MechanismConfig,
        private: bool,
    ) -> RunAccounts:
        """Reserve the whole plan and begin the run's own record.

        Args:
            folder: The run's internal folder.
            ledger: The ledger of the data set.
            run_id: Under which the run is charged.
            label: What people call the run.
            name: What people call the data set.
            digests: Content digest of each training image.
            units: Number of the privacy unit of each; without it, every image is one.
            mechanism: What is planned.
            private: Whether the run's noise protects at all.

        Raises:
            BudgetError: A budget would be crossed; nothing is reserved or written.
            LedgerError: A record cannot be written.
        """
        reservation = ledger.reserve(
            run_id=run_id,
            label=label,
            name=name,
            digests=digests,
            units=units,
            planned=mechanism.planned_events(),
            accountant=mechanism.make_accountant(),
            delta=mechanism.delta,
            private=private,
        )
        try:
            own = RunLedger(folder / OWN_RECORD, new=True)
        except BaseException:
            reservation.cancel()
            raise
        return cls(ledger, reservation, own)

    @classmethod
    def go_on(
        cls,
        folder: Path,
        *,
        ledger: BudgetLedger,
        run_id: str,
        digests: Sequence[bytes],
        units: Sequence[int] | None = None,
        mechanism: MechanismConfig,
        private: bool,
    ) -> RunAccounts:
        """Take up both records of an interrupted run, brought to the larger count.

        Args:
            folder: See `begin`.
            ledger: See `begin`.
            run_id: See `begin`.
            digests: See `begin`; must be those that the run was begun with.
            units: See `digests`.
            mechanism: See `begin`; must be the one that was planned.
            private: See `begin`; what was begun without a guarantee has none.

        Raises:
            LedgerError: A record is missing, unreadable, or of another mechanism; or the
                ledger is not the one that the run was charged in.
        """
        reservation = ledger.reopen(run_id)
        # Killed before its first charge, the run may not have begun its own record yet.
        begun = reservation.charged > 0 or (folder / OWN_RECORD).exists()
        own = RunLedger(folder / OWN_RECORD, new=not begun, first=mechanism.step_event(1))
        if reservation.planned != mechanism.planned_events():
            raise LedgerError(
                "the ledger holds charges of another mechanism than the run's",
                where=ledger.location,
                do="resume the run with the arguments and images that it began with",
            )
        charged = ledger.find_images(digests, units)
        if charged is None or charged.number != reservation.dataset:
            raise LedgerError(
                "the run was charged to other images than these",
                where=ledger.location,
                do="resume the run with the images that it began with",
            )
        if private and not reservation.private:
            raise LedgerError(
                "the run was begun without a guarantee, and cannot have one now",
                where=ledger.location,
                do="resume the run as it was begun, or start a new one",
            )
        reconcile(reservation, own)
        return cls(ledger, reservation, own)

    @property
    def events(self) -> tuple[Event, ...]:
        """All that was charged, in order."""
        return self._own.events

    @property
    def charged(self) -> int:
        """Number of steps charged."""
        return _steps(self.events)

    def charge(self, event: Event) -> None:
        """Charge one step in both records; returns only when it would survive a power cut.

        Raises:
            BudgetError: The budget is used up; the step must not be applied.
            LedgerError: A record cannot be written; the step must not be applied.
        """
        self._reservation.charge(event)
        self._own.charge(event)

    def total(
        self,
        digests: Sequence[bytes],
        *,
        units: Sequence[int] | None = None,
        mechanism: MechanismConfig,
    ) -> Spent:
        """What all runs together have spent of the most charged image, or unit, of the data set.

        Args:
            digests: Content digest of each training image.
            units: Number of the privacy unit of each; without it, every image is one.
            mechanism: Says at which δ, and by which accountant.
        """
        return self._ledger.total(
            digests, units=units, delta=mechanism.delta, accountant=mechanism.make_accountant()
        )

    def seal(self, digest: bytes) -> bytes:
        """Seal a digest as this run's, with the ledger's key; see `discreet.storage.Seal`."""
        return self._ledger.mac(self._reservation.run_id.encode() + digest)

    def settle(self) -> None:
        """The run has ended: what it reserved and did not use is free for others."""
        self._reservation.settle()

    def withdraw(self) -> None:
        """The run ended before its first charge: as if it had never been."""
        self._reservation.cancel()


def _steps(events: Sequence[Event]) -> int:
    return sum(event.steps for event in events)
