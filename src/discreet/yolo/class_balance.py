"""Weights by which an image's rare classes count more beside its common ones."""

from __future__ import annotations

import torch
from torch import Tensor

_LARGEST_WEIGHT = 10.0


def class_weights(targets: Tensor, balance: float) -> Tensor:
    """Weights of the class terms, (B, A, nc): those of `balance` on positive targets, 1 elsewhere.

    Args:
        targets: Target scores, (B, A, nc).
        balance: Exponent p of the weight (total of the image / (its classes · total of the
            class)) ^ p, at most 10. Totals are of one image's target scores.
    """
    of_class = targets.sum(1)  # (B, nc)
    present = (of_class > 0).sum(1, keepdim=True)
    share = of_class.sum(1, keepdim=True) / (present * of_class).clamp_min(1e-9)
    weight = share.pow(balance).clamp(max=_LARGEST_WEIGHT)
    return torch.where(targets > 0, weight[:, None, :], torch.ones_like(targets))
