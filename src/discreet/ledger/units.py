"""Whose total the ledger tells, where runs on the same images had different privacy units.

A run's events bound what it tells of one of its units: an image, or all images of a group. Runs
compose for somebody whose removal changes at most one unit of each of them, by adding or removing
it. So units are followed from data set to data set, over the images that they share:

- Where every run has at most one unit of what hangs together (the same grouping again, or a
  version with more images of the same patients), the total is that of the whole unit, composed
  from the events as they are.
- Where one run drew a group as a unit and another its images one by one, or in other groups, no
  such somebody is there: the total is that of one image. In the run with the group, taking one
  image away changes the group's gradient and does not remove it: that is a unit *replaced* by
  another, at about twice the ε. So all events compose under replace-one, which bounds adding and
  removing as well. Of a whole group there is then no bound worth telling.

A budget is kept by the total that is told.

Shape legend: n is the number of images of a data set, N of all images together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from discreet.errors import ConfigurationError
from discreet.ledger.membership import (
    FINGERPRINT_BYTES,
    Fingerprints,
    ImageClass,
    dataset_id,
    fingerprint,
    image_classes,
    maximal,
    unpack,
)

UnitNumbers = NDArray[np.uint32]  # (n,): the unit of each image, in the order of fingerprints


@dataclass(frozen=True, kw_only=True, eq=False)
class Members:
    """The images of a data set, and its units.

    Attributes:
        images: Fingerprints; (n,), sorted.
        units: Unit of each image; None where each is its own.
    """

    images: Fingerprints
    units: UnitNumbers | None

    @property
    def count(self) -> int:
        """How many units there are."""
        return len(self.images if self.units is None else np.unique(self.units))

    @property
    def joined(self) -> bytes:
        """Both as they are stored: fingerprints, then units as 4-byte numbers, if there are any."""
        units = b"" if self.units is None else self.units.astype("<u4").tobytes()
        return self.images.tobytes() + units

    @classmethod
    def split(cls, joined: bytes, *, count: int) -> Self:
        """The same from what is stored.

        Raises:
            ValueError: If it is not that of so many images.
        """
        images, units = joined[: count * FINGERPRINT_BYTES], joined[count * FINGERPRINT_BYTES :]
        if len(images) != count * FINGERPRINT_BYTES or len(units) not in (0, 4 * count):
            raise ValueError("not the images of this data set")
        numbers = np.frombuffer(units, dtype="<u4").astype(np.uint32) if units else None
        return cls(images=unpack(images), units=numbers)

    def identity(self, key: bytes) -> str:
        """What the data set is known by: the same images in other groups are another one."""
        return dataset_id(key, self.joined)


def members_of(key: bytes, digests: Iterable[bytes], units: Iterable[int] | None = None) -> Members:
    """The images of a data set, and its units.

    Args:
        key: The ledger's key.
        digests: Content digest of each image.
        units: Number of each image's unit; without it, every image is a unit.

    Raises:
        ConfigurationError: An image is in two units: what it is charged would not be known.
    """
    digests = list(digests)
    unit_of: dict[bytes, int] = {}
    for digest, unit in zip(digests, range(len(digests)) if units is None else units, strict=True):
        if unit_of.setdefault(fingerprint(key, digest), unit) != unit and units is not None:
            raise ConfigurationError("the same image is in two groups", where="groups")
    ordered = sorted(unit_of)
    images = unpack(b"".join(ordered))
    return Members(images=images, units=numbered([unit_of[image] for image in ordered]))


@dataclass(frozen=True, kw_only=True)
class Classes:
    """Who is charged by which data sets' runs.

    Attributes:
        all: Sets of data sets that charge one unit, or one image; those inside another are left
            out.
        mixed: Those of them that are of an image, in runs of different units.
    """

    all: tuple[ImageClass, ...]
    mixed: frozenset[ImageClass] = frozenset()


def numbered(units: Sequence[int]) -> UnitNumbers | None:
    """Units numbered as they first appear; None where every image is its own unit."""
    numbers: dict[int, int] = {}
    found = [numbers.setdefault(unit, len(numbers)) for unit in units]
    return None if len(numbers) == len(found) else np.array(found, dtype=np.uint32)


def classes_of(
    dataset: int, members: Mapping[int, Members], *, charged: Collection[int]
) -> Classes:
    """The classes that images of a data set are in.

    Args:
        dataset: Number of the data set.
        members: It and all that hang together with it, by number.
        charged: Numbers of those with runs: only these have units that were drawn.
    """
    drawn = [number for number in members if number in charged]
    images = members[dataset].images
    if len(drawn) < 2 or all(members[number].units is None for number in drawn):
        others = {number: m.images for number, m in members.items() if number != dataset}
        return Classes(all=image_classes(dataset, images, others))
    numbers = list(members)
    everyone, place = np.unique(
        np.concatenate([members[number].images for number in numbers]), return_inverse=True
    )  # (N,)
    places = np.split(place.ravel(), np.cumsum([len(members[n].images) for n in numbers])[:-1])
    where = dict(zip(numbers, places, strict=True))
    part = _hanging_together(len(everyone), [(where[n], members[n].units) for n in drawn])
    several = {
        unit for number in drawn for unit in _repeated(part[where[number]], members[number].units)
    }
    inside = np.zeros((len(everyone), len(numbers)), dtype=np.bool_)
    for column, number in enumerate(numbers):
        inside[where[number], column] = True
    own = np.zeros(part.max() + 1, dtype=np.bool_)
    own[part[where[dataset]]] = True
    is_mixed = np.isin(part, list(several))
    touched = np.zeros((len(own), len(numbers)), dtype=np.bool_)
    np.logical_or.at(touched, part, inside)
    whole = own.copy()
    whole[list(several)] = False
    single = np.zeros(len(everyone), dtype=np.bool_)
    single[where[dataset]] = True
    return _most(_patterns(touched[whole], numbers), _patterns(inside[is_mixed & single], numbers))


def _hanging_together(
    count: int, drawn: Iterable[tuple[NDArray[np.intp], UnitNumbers | None]]
) -> NDArray[np.int32]:
    """The part of each image: images that are in one unit of any run are in one part; (N,)."""
    first: list[NDArray[np.intp]] = []
    second: list[NDArray[np.intp]] = []
    for where, units in drawn:
        if units is not None:
            head = np.zeros(int(units.max()) + 1, dtype=np.intp)
            head[units] = where  # any image of the unit
            first.append(where)
            second.append(head[units])
    rows, columns = np.concatenate(first), np.concatenate(second)
    graph = coo_matrix((np.ones(len(rows), dtype=np.bool_), (rows, columns)), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def _repeated(part: NDArray[np.int32], units: UnitNumbers | None) -> list[int]:
    """Parts of which a data set has more than one unit.

    Args:
        part: The part of each of its images; (n,).
        units: Their units.
    """
    numbers = np.arange(len(part)) if units is None else units
    pairs = np.unique(np.stack([part, numbers], axis=1), axis=0)
    found, counts = np.unique(pairs[:, 0], return_counts=True)
    return found[counts > 1].tolist()


def _patterns(inside: NDArray[np.bool_], numbers: Sequence[int]) -> list[ImageClass]:
    rows = np.unique(inside, axis=0)
    return [frozenset(numbers[i] for i in np.flatnonzero(row).tolist()) for row in rows]


def _most(whole: Sequence[ImageClass], mixed: Sequence[ImageClass]) -> Classes:
    """Without classes that have spent no more than another.

    A mixed class spends more than one of the same runs that is not.
    """
    most = maximal(mixed)
    rest = [c for c in maximal(whole) if not any(c <= other for other in most)]
    return Classes(all=(*most, *rest), mixed=frozenset(most))
