"""The images of a split, for any task, and whether others are public."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from discreet.data import DetectionDataset, ImageRecord
from discreet.errors import UnsafeArgumentError
from discreet.ledger import BudgetLedger
from discreet.ledger.rows import Run
from discreet.terminal import count
from discreet.yolo.dataset import ImageSettings, RecordDataset
from discreet.yolo.folders import FolderDataset
from discreet.yolo.tasks import CLASSIFY, Task

TaskImages = RecordDataset | FolderDataset


def open_images(task: Task, records: Sequence[ImageRecord], settings: ImageSettings) -> TaskImages:
    """The images of a split.

    Args:
        task: What the labels are for.
        records: The images.
        settings: What is done to them; `rect` where the task's model takes such images.
    """
    if task is CLASSIFY:
        return FolderDataset(records, settings)
    return RecordDataset(records, replace(settings, rect=settings.rect and task.rectangular))


def runs_on(
    records: Sequence[ImageRecord], *, ledger: str | Path | None, create: bool = True
) -> list[Run]:
    """The runs that were charged for some of the images.

    Args:
        records: The images.
        ledger: The ledger of private runs; as `BudgetLedger.open` takes it.
        create: Whether to begin a ledger where there is none.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    book = BudgetLedger.open(ledger, create=create)
    try:
        runs = book.runs_on([record.digest for record in records])
    finally:
        book.close()
    return [run for run in runs if run.position]


def require_public(public: DetectionDataset, *, ledger: str | Path | None, where: str) -> None:
    """Refuse images that are on record as private ones.

    Args:
        public: What is said to be public.
        ledger: The ledger of private runs; as `BudgetLedger.open` takes it.
        where: The argument that says so.

    Raises:
        UnsafeArgumentError: A run on some of them was charged.
        LedgerError: The ledger cannot be read.
    """
    if charged := runs_on((*public.train, *public.val), ledger=ledger):
        raise UnsafeArgumentError(
            f"some of its images are on record as private: {count(len(charged), 'run')} on them "
            "charged in the ledger",
            where=where,
            do="use public images; if these are, keep runs on them in a ledger of their own "
            "(ledger=FILE)",
        )
