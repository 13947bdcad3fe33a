"""Finds a data set again, puts a new one on record, and says which others share its images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from discreet.errors import LedgerError
from discreet.ledger import membership
from discreet.ledger.database import now
from discreet.ledger.limits import Overlap
from discreet.ledger.rows import Dataset, Rows
from discreet.ledger.units import Classes, Members, classes_of


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
    rows: Rows, known: Mapping[int, Dataset], *, key: bytes, name: str, wanted: Members
) -> Dataset:
    """The data set of these images in these units, put on record if it is new."""
    identity, images = wanted.identity(key), wanted.images
    for dataset in known.values():
        if dataset.id == identity:
            return dataset
    shared = {
        other.number: int(membership.members(images, rows.members(other).images).sum())
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
    rows.add_dataset(dataset, wanted)
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
    rows: Rows,
    known: Mapping[int, Dataset],
    dataset: Dataset,
    *,
    lock: bool = False,
    charging: bool = False,
) -> Overlap:
    """What the images of a data set have to do with: classes, data sets, runs.

    Args:
        rows: The ledger.
        known: All data sets, `dataset` among them or not.
        dataset: The data set.
        lock: Whether to keep the runs from being charged until the transaction ends.
        charging: Whether a run on it is about to be put on record.
    """
    shared = shared_with(dataset, known)
    related = {dataset.number: dataset} | _telling(shared, known)
    drawn = {number for number in related if related[number].runs}
    if charging:
        drawn.add(dataset.number)
    if len(drawn) < 2 and all(shared.get(n, dataset.images) == dataset.images for n in related):
        # Every image is in all of them: one class, and no image needs to be looked at.
        classes = Classes(all=(frozenset(related),))
    else:
        members = {number: rows.members(other) for number, other in related.items()}
        while any(m.units is not None for m in members.values()) and (
            further := _further(related, known)
        ):
            # A unit of one data set may hang together with images that only others have.
            related |= further
            drawn |= {number for number, other in further.items() if other.runs}
            members |= {number: rows.members(other) for number, other in further.items()}
        classes = classes_of(dataset.number, members, charged=drawn)
    runs = rows.runs_of(related.values(), lock=lock)
    return Overlap(classes=classes.all, mixed=classes.mixed, datasets=related, runs=tuple(runs))


def _telling(numbers: Iterable[int], known: Mapping[int, Dataset]) -> dict[int, Dataset]:
    """Without a run and a budget, another data set changes nothing."""
    return {n: known[n] for n in numbers if known[n].runs or known[n].budget}


def _further(related: Mapping[int, Dataset], known: Mapping[int, Dataset]) -> dict[int, Dataset]:
    """Data sets that share images with these, and are not among them."""
    around = {n for dataset in related.values() for n in shared_with(dataset, known)}
    return _telling(around - related.keys(), known)
