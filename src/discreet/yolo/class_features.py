"""Inputs of the last class convolution at mean 0 and variance 1 while it trains.

A channel z of these inputs is SiLU(γ·x + β), x being what a BatchNorm with public statistics has
normalised: close to N(0, 1) on the public images. So the mean m and the standard deviation s of
z follow from γ and β alone. With w' = w·s and b' = b + w·m the convolution says the same of
(z - m) / s, and Gaussian noise of one size suits all of its weights. At release w' and b' are
folded back: stock layers, nothing to add at inference.
"""

from __future__ import annotations

import copy
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from discreet.yolo.parts import CLASS_BRANCHES

_NODES = 64
# A channel that hardly moves says nothing; divided by its own deviation it would be noise.
_FLOOR = 0.05


class Standardise(nn.Module):
    """(z - mean) / scale per channel, with constants."""

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean[:, None, None])
        self.register_buffer("scale", scale[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """Standardised features, of the shape of `x`, (B, C, H, W)."""
        factor = 1 / self.scale
        return torch.addcmul(-self.mean * factor, x, factor)  # one pass over x


def silu_moments(gamma: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of SiLU(γ·x + β) for x from N(0, 1), by Gauss–Hermite.

    Args:
        gamma: γ, (C,).
        beta: β, (C,).
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    x = torch.as_tensor(nodes, dtype=torch.float64)
    w = torch.as_tensor(weights / weights.sum(), dtype=torch.float64)
    z = nn.functional.silu(gamma.detach().double()[:, None] * x + beta.detach().double()[:, None])
    mean = z @ w
    return mean.float(), ((z - mean[:, None]).square() @ w).sqrt().float()


def standardise_classes(model: nn.Module) -> None:
    """Let every last class convolution see standardised inputs, in place; its output stays.

    A branch whose last convolution does not follow a block with BatchNorm and SiLU is left alone.
    """
    head = cast(Any, model).model[-1]
    for branch in CLASS_BRANCHES:
        for row in getattr(head, branch, None) or ():
            block, conv = row[-2], row[-1]
            block = block[-1] if isinstance(block, nn.Sequential) else block
            norm, act = getattr(block, "bn", None), getattr(block, "act", None)
            if not isinstance(conv, nn.Conv2d) or not isinstance(act, nn.SiLU):
                continue
            if not isinstance(norm, nn.BatchNorm2d):
                continue
            mean, scale = silu_moments(norm.weight, norm.bias)
            mean, scale = mean.to(conv.weight.device), scale.to(conv.weight.device)
            scale = scale.clamp_min(_FLOOR * float(scale.mean()))
            _substitute(conv, multiplied=scale, added=mean)
            row[-1] = nn.Sequential(Standardise(mean, scale), conv)


def fold_classes(model: nn.Module) -> None:
    """Undo `standardise_classes`, in place: the weights of a plain convolution, same output."""
    head = cast(Any, model).model[-1]
    for branch in CLASS_BRANCHES:
        for row in getattr(head, branch, None) or ():
            last: Any = row[-1]
            if not isinstance(last, nn.Sequential) or not isinstance(last[0], Standardise):
                continue
            conv = copy.deepcopy(cast(nn.Conv2d, last[1]))
            standard = cast(Standardise, last[0])
            mean, scale = standard.mean.flatten(), standard.scale.flatten()
            _substitute(conv, multiplied=1 / scale, added=-mean / scale)
            row[-1] = conv


def _substitute(conv: nn.Conv2d, *, multiplied: Tensor, added: Tensor) -> None:
    """The 1×1 convolution of z = multiplied · z' + added, as one of z'."""
    assert conv.bias is not None
    with torch.no_grad():
        weight = conv.weight[:, :, 0, 0].double()
        conv.bias.add_((weight @ added.double()).to(conv.bias.dtype))
        conv.weight.copy_((weight * multiplied.double())[:, :, None, None])
