"""Which images are in which data sets, and so charged by which runs.

A data set is a set of fingerprints: keyed hashes of the images' contents, so that a copy, a
renamed folder or a version that shares images is known again, and nobody without the ledger's key
can look an image up.

Shape legend: n is the number of images, r the number of other data sets that share some.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

FINGERPRINT_BYTES = 16
_DTYPE = f"S{FINGERPRINT_BYTES}"

Fingerprints = NDArray[np.bytes_]  # (n,), sorted, each once
ImageClass = frozenset[int]  # numbers of the data sets that hold all images of the class


def fingerprint(key: bytes, digest: bytes) -> bytes:
    """Keyed BLAKE2b of an image's content digest, 16 bytes."""
    return blake2b(
        digest, key=key, digest_size=FINGERPRINT_BYTES, person=b"discreet image"
    ).digest()


def dataset_id(key: bytes, joined: bytes) -> str:
    """What a data set is known by: a keyed digest of its sorted fingerprints, 32 hex digits."""
    return blake2b(joined, key=key, digest_size=16, person=b"discreet set").hexdigest()


def unpack(joined: bytes) -> Fingerprints:
    """Fingerprints from their bytes, joined; (n,)."""
    return np.frombuffer(joined, dtype=_DTYPE)


def members(fingerprints: Fingerprints, of: Fingerprints) -> NDArray[np.bool_]:
    """Which of `fingerprints` are in `of`; (n,). Both are sorted."""
    if not of.size:
        return np.zeros(fingerprints.shape, dtype=np.bool_)
    found = np.minimum(np.searchsorted(of, fingerprints), of.size - 1)
    return of[found] == fingerprints


def image_classes(
    dataset: int, fingerprints: Fingerprints, others: Mapping[int, Fingerprints]
) -> tuple[ImageClass, ...]:
    """The sets of data sets that some image of `dataset` is in, without those inside another.

    An image in more data sets is charged by all runs of them: classes inside another one have
    spent no more than it, and are left out.

    Args:
        dataset: Number of the data set.
        fingerprints: Its images; (n,).
        others: Images of the data sets that share some, by number; r of them.
    """
    if not others:
        return (frozenset({dataset}),)
    inside = np.stack([members(fingerprints, of) for of in others.values()], axis=1)  # (n, r)
    patterns = np.unique(np.packbits(inside, axis=1), axis=0)
    numbers = list(others)
    classes = [
        frozenset({dataset, *(numbers[i] for i in np.flatnonzero(row))})
        for row in np.unpackbits(patterns, axis=1, count=len(numbers))
    ]
    return maximal(classes)


def maximal(classes: Sequence[ImageClass]) -> tuple[ImageClass, ...]:
    """Classes that are not inside another one, largest first."""
    kept: list[ImageClass] = []
    for candidate in sorted(set(classes), key=lambda c: (-len(c), sorted(c))):
        if not any(candidate <= other for other in kept):
            kept.append(candidate)
    return tuple(kept)
