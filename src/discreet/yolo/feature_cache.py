"""What the frozen front gives for an image, kept for as long as the process lives.

An entry is a function of one image in one of its states, and is found by that image's content and
that state: never by a place or a draw, so that nothing of one image can come back as another's.
Entries are private, like the images: they are in this process's memory and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psutil
import torch
from torch import Tensor

from discreet.yolo.batches import images_of, joined
from discreet.yolo.dataset import Key
from discreet.yolo.frozen import Features, FrozenFront
from discreet.yolo.images import TaskImages

_MOST = 2 << 30  # bytes
_SHARE_OF_MEMORY = 0.25
_GIB = 1 << 30


def cache_for(front: FrozenFront, dataset: TaskImages, *, gib: float | None) -> FeatureCache | None:
    """A cache for a run; None where there is nothing to keep.

    Args:
        front: The frozen front; without layers there are no features.
        dataset: The training images; those that do more than flip are new in every step.
        gib: Most GiB of features; None chooses by the free memory.
    """
    limit = automatic_limit(front.device) if gib is None else int(gib * _GIB)
    if not front.layers or dataset.flips is None or not limit:
        return None
    return FeatureCache(limit=limit, entries=len(dataset) * dataset.flips.count)


def automatic_limit(device: torch.device) -> int:
    """Bytes that a cache may take where nothing is asked for: 2 GiB, or a quarter of what is free.

    Args:
        device: Where features are computed, and kept.
    """
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    else:
        free = psutil.virtual_memory().available
    return min(_MOST, int(free * _SHARE_OF_MEMORY))


def features_of(
    batch: dict[str, Any], front: FrozenFront, cache: FeatureCache | None = None
) -> Features:
    """Features of a part's images: those that it brings, or computed now and kept.

    Args:
        batch: The part, ready for the model; gets its `features`.
        front: Computes them.
        cache: Keeps them, if the part has `keys`.
    """
    if "features" not in batch:
        batch["features"] = front(batch["img"])
        if cache is not None and "keys" in batch:
            cache.keep(batch["keys"], batch["features"], batch)
    return batch["features"]


class FeatureCache:
    """Features and labels by image and state; once full, it stays as it is.

    Args:
        limit: Most bytes of features.
        entries: Most entries that there can be.
    """

    def __init__(self, *, limit: int, entries: int) -> None:
        self._limit, self._entries = limit, entries
        self._slots: dict[Key, int] = {}
        self._labels: list[dict[str, Any]] = []
        self._memory: list[Tensor] | None = None  # of each feature, (entries, H, W, C)

    def __contains__(self, key: Key) -> bool:
        """Whether features of this image in this state are known."""
        return key in self._slots

    def __len__(self) -> int:
        """How many are known."""
        return len(self._slots)

    def keep(self, keys: Sequence[Key], features: Features, batch: dict[str, Any]) -> None:
        """Keep what is new and fits.

        Args:
            keys: Of the images, in their order.
            features: Of the images, (B, C, H, W) each.
            batch: Their labels, as the loader gives them.
        """
        if self._memory is None:
            self._memory = self._reserved(features)
        new = {key: row for row, key in enumerate(keys) if key not in self._slots}
        room = len(self._memory[0]) - len(self._slots)
        for key, row in list(new.items())[:room]:
            slot = self._slots[key] = len(self._slots)
            for memory, feature in zip(self._memory, features, strict=True):
                memory[slot] = feature[row].permute(1, 2, 0)
            labels = images_of(batch, row, row + 1)
            labels.pop("img", None)
            self._labels.append(labels)

    def _reserved(self, features: Features) -> list[Tensor]:
        size = sum(feature[0].numel() * feature.element_size() for feature in features)
        entries = min(self._entries, self._limit // size)
        # With channels last, as convolutions like it. The system gives memory as it is filled.
        return [
            torch.empty(
                (entries, *feature.shape[2:], feature.shape[1]),
                dtype=feature.dtype,
                device=feature.device,
            )
            for feature in features
        ]

    def part(self, keys: Sequence[Key]) -> dict[str, Any]:
        """A part of a step, of images that are known: `features`, and labels as from the loader."""
        assert self._memory is not None
        slots = torch.tensor([self._slots[key] for key in keys])
        labels = joined([self._labels[slot] for slot in slots.tolist()], [1] * len(keys))
        return labels | {
            "features": tuple(
                memory.index_select(0, slots.to(memory.device)).permute(0, 3, 1, 2)
                for memory in self._memory
            ),
        }
