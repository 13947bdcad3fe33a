"""What a run keeps outside its process, to be accounted for and to go on: charges, checkpoint."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from discreet.errors import LedgerError
from discreet.ledger import OWN_RECORD, BudgetLedger, RunAccounts
from discreet.storage import check_space
from discreet.yolo.checkpoint import CHECKPOINT, Checkpoint

if TYPE_CHECKING:
    from discreet.yolo.train import PrivateDetectionTrainer

# The optimizer's state is still empty in the first one, and a new one is written beside the old.
_CHECKPOINTS_OF_SPACE = 8
_SAVING_SHARE = 100  # training time between checkpoints, over the time that one takes


def open_accounts(trainer: PrivateDetectionTrainer) -> RunAccounts:
    """Reserve what the plan will spend, or take up the charges of an interrupted run.

    Args:
        trainer: The trainer, in the process that leads.

    Raises:
        BudgetError: A budget would be crossed; nothing is reserved or written.
        LedgerError: A record is missing, unreadable, of another run, or cannot be written.
    """
    prepared, internal = trainer.prepared, trainer.internal
    run_id, mechanism = prepared.state.run_id, trainer.plan.mechanism
    private = not prepared.reasons_against
    # An interrupted run that has charged has a ledger: another place is a mistake.
    create = not (internal / OWN_RECORD).exists()
    ledger = BudgetLedger.open(prepared.privacy.ledger, create=create)
    if prepared.teacher is not None:
        prepared.teacher.check_ledger(ledger, trainer.dataset)
    if RunAccounts.exist(internal, ledger=ledger, run_id=run_id):
        return RunAccounts.go_on(
            internal,
            ledger=ledger,
            run_id=run_id,
            digests=trainer.digests,
            units=trainer.units.of_images,
            mechanism=mechanism,
            private=private,
        )
    return RunAccounts.begin(
        internal,
        ledger=ledger,
        run_id=run_id,
        label=str(trainer.run_dir),
        name=trainer.dataset.yaml.parent.name,
        digests=trainer.digests,
        units=trainer.units.of_images,
        mechanism=mechanism,
        private=private,
    )


class Keeper:
    """Keeps a trainer's checkpoint, and begins from it.

    Args:
        trainer: The trainer, in the process that leads.
    """

    def __init__(self, trainer: PrivateDetectionTrainer) -> None:
        self._trainer = trainer
        self._saved_at = self._saving_takes = 0.0

    def restore(self) -> None:
        """Go on from the last checkpoint; prove that the disk takes one before the first step.

        Raises:
            LedgerError: The weights hold steps that are not charged, or the checkpoint is not
                the run's own.
            StorageError: The disk is too small.
        """
        trainer = self._trainer
        assert trainer.accounts is not None
        checkpoint = Checkpoint.load(trainer.internal, seal=trainer.accounts.seal)
        if checkpoint is not None:
            checkpoint.restore(trainer.model, trainer.optimizer)
            trainer.executed = checkpoint.executed
            trainer.clipping = trainer.make_clipping(checkpoint.max_grad_norm)
        if trainer.executed > trainer.charged:
            raise LedgerError(
                f"the weights hold {trainer.executed} steps, the ledger only {trainer.charged}",
                where=str(trainer.internal),
                do="restore the ledger from a backup; without it the run cannot go on",
            )
        self.save()
        size = (trainer.internal / CHECKPOINT).stat().st_size
        check_space(trainer.internal, needed=_CHECKPOINTS_OF_SPACE * size)

    def save(self) -> None:
        """Write the checkpoint of the steps that are in the weights.

        Raises:
            StorageError: The disk refuses; the checkpoint before it is still whole.
        """
        trainer = self._trainer
        assert trainer.accounts is not None
        began = time.monotonic()
        Checkpoint(
            executed=trainer.executed,
            model=trainer.model.state_dict(),
            optimizer=trainer.optimizer.state_dict(),
            max_grad_norm=trainer.clipping.sensitivity,
        ).save(trainer.internal, seal=trainer.accounts.seal)
        self._saved_at = time.monotonic()
        self._saving_takes = self._saved_at - began

    def save_where_cheap(self) -> None:
        """Keep what a crash may lose small, for a hundredth of the time."""
        if time.monotonic() - self._saved_at > _SAVING_SHARE * self._saving_takes:
            self.save()
