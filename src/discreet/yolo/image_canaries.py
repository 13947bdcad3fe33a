"""Image canaries: crafted images with made-up labels, for an attack that sees only the weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np

from discreet.data import ImageRecord
from discreet.errors import StorageError

_PATCHES = 8
_MOST_BOXES = 3


def make_image_canaries(
    folder: Path, *, count: int, classes: int, side: int, stream: np.random.Generator
) -> tuple[ImageRecord, ...]:
    """Write images of random coloured patches, each with one to three boxes at random places.

    Nothing but memory explains such labels: a model that finds them was trained on them.

    Args:
        folder: An empty folder.
        count: Number of canaries.
        classes: Number of classes of the data set.
        side: Side of the square images in pixels.
        stream: Draws patches and labels.

    Raises:
        StorageError: An image cannot be written.
    """
    records: list[ImageRecord] = []
    for number in range(count):
        patches = stream.integers(0, 256, size=(_PATCHES, _PATCHES, 3), dtype=np.uint8)
        image = cv2.resize(patches, (side, side), interpolation=cv2.INTER_NEAREST)
        path = folder / f"canary-{number:06}.png"
        if not cv2.imwrite(str(path), image):
            raise StorageError("an image cannot be written", where=str(path))
        boxes = int(stream.integers(1, _MOST_BOXES + 1))
        centre = stream.uniform(0.25, 0.75, size=(boxes, 2))
        size = stream.uniform(0.15, 0.45, size=(boxes, 2))
        records.append(
            ImageRecord(
                image=path,
                label=None,
                width=side,
                height=side,
                classes=stream.integers(0, classes, size=boxes, dtype=np.int64),
                boxes=np.concatenate([centre, size], 1).astype(np.float32),
                digest=hashlib.blake2b(path.read_bytes(), digest_size=16).digest(),
            )
        )
    return tuple(records)
