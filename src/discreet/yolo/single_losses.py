"""Losses of masks, key points and angles: Ultralytics' own, of one image after the other.

Their terms are divided by sums over the whole batch (target scores, positives, visible points), in
a dozen places. So each image is a batch of its own here: nothing of another image is in reach, and
a batch of one is what Ultralytics computes by construction. The forward and backward passes of the
model, which take nearly all of the time, run on all images together.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from ultralytics.utils.loss import (
    PoseLoss26,
    SegmentLoss26,
    v8OBBLoss,
    v8PoseLoss,
    v8SegmentationLoss,
)

from discreet.yolo.batches import images_of
from discreet.yolo.class_balance import class_weights

Batch = dict[str, Any]
_KNOWN = (v8SegmentationLoss, SegmentLoss26, v8PoseLoss, PoseLoss26, v8OBBLoss)


class SingleImageLoss:
    """Runs a criterion of Ultralytics on each image alone.

    Args:
        stock: The model's own criterion, or one branch of it.
        balance: See `discreet.yolo.loss.PerImageDetectionLoss`.
    """

    def __init__(self, stock: Any, *, balance: float = 0.0) -> None:
        self._stock = stock
        if balance:
            stock.bce = _Balanced(balance)

    @staticmethod
    def takes(stock: object) -> bool:
        """Whether the criterion is one that is known to be right for a single image."""
        return type(stock) in _KNOWN

    def per_image(self, predictions: Any, batch: Batch) -> Tensor:
        """Gain-scaled loss terms, (B, T).

        Args:
            predictions: The head's training output, images in dimension 0 of every tensor.
            batch: Labels as the loader gives them.
        """
        count = _count(predictions)
        rows = [
            self._stock.loss(_row(predictions, i), images_of(batch, i, i + 1)) for i in range(count)
        ]
        return torch.stack([terms for terms, _ in rows])


class _Balanced:
    """Entropy of class scores, weighted by `class_weights`."""

    def __init__(self, balance: float) -> None:
        self._balance = balance

    def __call__(self, scores: Tensor, targets: Tensor) -> Tensor:
        entropy = F.binary_cross_entropy_with_logits(scores, targets, reduction="none")
        return entropy * class_weights(targets, self._balance)


def _count(tree: Any) -> int:
    """How many images there are in tensors in lists, tuples and dictionaries."""
    if isinstance(tree, Tensor):
        return len(tree)
    return _count(next(iter(tree.values() if isinstance(tree, dict) else tree)))


def _row(tree: Any, image: int) -> Any:
    """One image's part of tensors in lists, tuples and dictionaries, as a batch of one."""
    if isinstance(tree, Tensor):
        return tree[image : image + 1]
    if isinstance(tree, dict):
        return {key: _row(value, image) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(_row(value, image) for value in tree)
    return tree
