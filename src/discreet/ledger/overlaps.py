"""Finds a data set again, puts a new one on record, and says which others share its images."""

from __future__ import annotations

from collections.abc import Mapping

from discreet.errors import LedgerError
from discreet.ledger.database import now
from discreet.ledger.limits import Overlap
from discreet.ledger.membership import Fingerprints, dataset_id, image_classes, members
from discreet.ledger.rows import Dataset, Rows


def find(datasets: Mapping[int, Dataset], text: str, *, location: str) -> Dataset:
    """The data set whose id begins with `text`, or whose name it is.

    Raises:
        LedgerError: If there is none, or more than one.
    """
    wanted = text.strip().lower()
    found = [d for d in datasets.values() if len(wanted) >= 4 and d.id.startswith(wanted)]
    found = found or [d for d in datasets.values() if d.name == text]
    if len(found) == 1:
        return found[0]
    known = ", ".join(f"{d.id[:8]} ({d.name})" for d in datasets.values()) or "none"
    what = "no data set of this id" if not found else "several data sets of this id"
    raise LedgerError(
        f"{what}: {text}; on record are: {known}",
        where=location,
        do="`discreet ledger list` shows the ids.",
    )


def register(
    rows: Rows, known: Mapping[int, Dataset], *, key: bytes, name: str, images: Fingerprints
) -> Dataset:
    """The data set of these images, put on record if it is new; (n,) fingerprints."""
    identity = dataset_id(key, images)
    for dataset in known.values():
        if dataset.id == identity:
            return dataset
    shared = {
        other.number: int(members(images, rows.fingerprints(other)).sum())
        for other in known.values()
    }
    dataset = Dataset(
        number=len(known) + 1,
        id=identity,
        name=name,
        images=int(images.size),
        overlaps={number: count for number, count in shared.items() if count},
        runs=0,
        created=now(),
    )
    rows.add_dataset(dataset, images)
    return dataset


def shared_with(dataset: Dataset, known: Mapping[int, Dataset]) -> dict[int, int]:
    """Numbers of the other data sets that share images with one, and how many."""
    later = {
        other.number: other.overlaps[dataset.number]
        for other in known.values()
        if dataset.number in other.overlaps
    }
    return {**dataset.overlaps, **later}


def overlap_of(
    rows: Rows, known: Mapping[int, Dataset], dataset: Dataset, *, lock: bool = False
) -> Overlap:
    """What the images of a data set have to do with: classes, data sets, runs.

    Args:
        rows: The ledger.
        known: All data sets, `dataset` among them or not.
        dataset: The data set.
        lock: Whether to keep the runs from being charged until the transaction ends.
    """
    shared = shared_with(dataset, known)
    # Without a run and a budget, another data set changes nothing.
    telling = {
        number: known[number] for number in shared if known[number].runs or known[number].budget
    }
    related = {dataset.number: dataset, **telling}
    if all(shared[number] == dataset.images for number in telling):
        # Every image is in all of them: one class, and no image needs to be looked at.
        classes = (frozenset(related),)
    else:
        classes = image_classes(
            dataset.number,
            rows.fingerprints(dataset),
            {number: rows.fingerprints(other) for number, other in telling.items()},
        )
    runs = rows.runs_of(related.values(), lock=lock)
    return Overlap(classes=classes, datasets=related, runs=tuple(runs))
