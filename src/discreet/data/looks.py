"""Which images look alike: a hash of how brightness changes, and pairs with nearly the same.

Shape legend: n is the number of images.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import compress
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from discreet.data.records import ImageRecord

LOOK_BYTES = 16
_SIDE = 8
_ALIKE = 6  # of 128 bits; measured on blood smears: 48 of 49 known pairs, 1 other
_BANDS = 8  # two looks within 7 bits have one of these in common
_NEIGHBOURS = 16  # compared in each band: what bounds the time
_FLATTEST = 8  # bits; a look with fewer is of an image that shows nothing
_CHUNK = 256  # images that are compared with all others at once


def look_of(image: Image.Image) -> bytes:
    """128 bits of how an image looks: whether it gets brighter to the right, and downwards.

    The difference hash of N. Krawetz ("Kind of Like That", 2013), in both directions. Empty for
    samples of more than 8 bits.
    """
    if image.mode.startswith(("I", "F")):
        return b""
    small = image.convert("L").resize(
        (_SIDE + 1, _SIDE + 1), Image.Resampling.BILINEAR, reducing_gap=3.0
    )
    level = np.asarray(small, dtype=np.int16)
    right = level[:_SIDE, 1:] > level[:_SIDE, :-1]
    down = level[1:, :_SIDE] > level[:-1, :_SIDE]
    return np.packbits(np.concatenate([right.ravel(), down.ravel()])).tobytes()


def known_looks(
    records: Iterable[ImageRecord],
) -> tuple[list[ImageRecord], NDArray[np.uint8]]:
    """The images whose look is known, and their looks, (n, 16)."""
    known = [record for record in records if len(record.look) == LOOK_BYTES]
    joined = b"".join(record.look for record in known)
    return known, np.frombuffer(joined, dtype=np.uint8).reshape(-1, LOOK_BYTES)


def near_pairs(looks: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Pairs of images that look alike.

    Sorts by each band of the bits in turn, and compares each image with those next to it: time
    grows as n log n, whatever the images are. Of very many that are all alike, some pairs are
    left out, but hardly an image.

    Args:
        looks: uint8 (n, 16).

    Returns:
        Numbers of two images in each row, the smaller first; int64 (m, 2), each pair once.
    """
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(1, dtype=np.uint8)
    kept = np.flatnonzero(_tell(looks))
    looks = looks[kept]
    found: list[NDArray[np.int64]] = []
    width = LOOK_BYTES // _BANDS
    for band in range(_BANDS):
        turned = np.roll(looks, -band * width, axis=1)
        order = np.lexsort(turned.T[::-1])
        ordered, bands = looks[order], turned[order, :width]
        for step in range(1, min(_NEIGHBOURS, len(order) - 1) + 1):
            near = bits[ordered[step:] ^ ordered[:-step]].sum(1) <= _ALIKE
            near &= (bands[step:] == bands[:-step]).all(1)
            places = np.flatnonzero(near)
            found.append(np.stack([order[places], order[places + step]], axis=1))
    if not found:
        return np.empty((0, 2), dtype=np.int64)
    pairs = np.sort(kept[np.concatenate(found)], axis=1)
    return np.unique(pairs, axis=0)


def that_look_like(looks: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which images look like one of some others.

    Each is compared with each: 10,000 with 10,000 take about a second.

    Args:
        looks: uint8 (n, 16).
        others: uint8 (m, 16).

    Returns:
        Whether there is one, for each; bool (n,). Images that show nothing are like no other.
    """
    looking, shown = np.flatnonzero(_tell(looks)), others[_tell(others)]
    signs = _signs(shown).T
    found = np.zeros(len(looks), dtype=np.bool_)
    for start in range(0, len(looking), _CHUNK):
        part = looking[start : start + _CHUNK]
        # Signs that agree less those that do not: all bits, less two for each that differs.
        alike = _signs(looks[part]) @ signs >= 8 * LOOK_BYTES - 2 * _ALIKE
        found[part] = alike.any(1)
    return found


def records_like(
    records: Sequence[ImageRecord], others: Sequence[ImageRecord]
) -> list[ImageRecord]:
    """The images that look nearly as one of some others: perhaps the same, saved again."""
    shown, looks = known_looks(records)
    return list(compress(shown, that_look_like(looks, known_looks(others)[1]).tolist()))


def _tell(looks: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether each image shows something, (n,)."""
    told = np.unpackbits(looks, axis=1).sum(1)
    return (told >= _FLATTEST) & (told <= 8 * LOOK_BYTES - _FLATTEST)


def _signs(looks: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The bits as 1 and -1, (n, 128)."""
    return np.unpackbits(looks, axis=1).astype(np.float32) * 2 - 1
