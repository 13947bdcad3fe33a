"""Batches as the loader gives them: which tensors have a row per image, which per object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

Batch = dict[str, Any]

OF_IMAGES = ("img", "masks", "sem_masks")
"""Tensors with a row per image; masks are one picture per image, of object numbers."""
OF_OBJECTS = ("cls", "bboxes", "keypoints")
"""Tensors with a row per object, whose image is in `batch_idx`."""


def images_of(batch: Mapping[str, Any], start: int, stop: int) -> Batch:
    """The images from `start` to before `stop`, numbered from 0, with all their labels."""
    inside = (batch["batch_idx"] >= start) & (batch["batch_idx"] < stop)
    return {
        **{key: batch[key][start:stop] for key in OF_IMAGES if key in batch},
        "batch_idx": batch["batch_idx"][inside] - start,
        **{key: batch[key][inside] for key in OF_OBJECTS if key in batch},
    }


def with_image(batch: Mapping[str, Any], place: int, image: Mapping[str, Any]) -> Batch:
    """The batch with one image, and its labels, in the place of another.

    Args:
        batch: Images and labels.
        place: Which image goes.
        image: A batch of one image.
    """
    count = len(batch["img"])
    parts = [images_of(batch, 0, place), dict(image), images_of(batch, place + 1, count)]
    return joined([part for part in parts if len(part["img"])])


def joined(parts: Sequence[Mapping[str, Any]], counts: Sequence[int] | None = None) -> Batch:
    """Several batches as one.

    Args:
        parts: The batches.
        counts: How many images each has; that of their pixels if not given.
    """
    counts = [len(part["img"]) for part in parts] if counts is None else counts
    starts = [sum(counts[:i]) for i in range(len(parts))]
    found: Batch = {
        key: torch.cat([part[key] for part in parts])
        for key in (*OF_IMAGES, *OF_OBJECTS)
        if key in parts[0]
    }
    numbers = [part["batch_idx"] + start for part, start in zip(parts, starts, strict=True)]
    return {**found, "batch_idx": torch.cat(numbers)}
