"""Inputs of the last class convolution at mean 0 and nearly without correlation while it trains.

A channel z of these inputs is SiLU(γ·x + β), x being what a BatchNorm with public statistics has
normalised: close to N(0, 1) on the public images. So the mean m and the standard deviation s of
z follow from γ and β alone. How channels go together does not: of 80 of them, five directions
hold half of the variance. Their covariance Σ comes from two public photographs, of no relation to
the private images. With A = (Σ + λI)^(-1/2) · diag(1/s), w' = w·A⁻¹ and b' = b + w·m, the
convolution says the same of A·(z - m). Gaussian noise of one size then moves the class scores
about evenly whichever weights it falls on, and Adam, which scales each coordinate alone, has
coordinates that can be moved alone. At release w' and b' are folded back: stock layers, nothing to
add at inference.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, cast

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from ultralytics.utils import ASSETS

from discreet.yolo.parts import CLASS_BRANCHES

_NODES = 64
# A channel that hardly moves says nothing; divided by its own deviation it would be noise.
_FLOOR = 0.05
# λ, over the mean variance: a direction that hardly varies is not stretched to the others' size.
_SHRINKAGE = 0.1
_PHOTOGRAPHS = ("bus.jpg", "zidane.jpg")  # part of every installation of Ultralytics
_SCALES = (1, 2, 4)  # of the image size: objects near and far


class Standardise(nn.Module):
    """mixing · (z - mean) over channels, with constants.

    Args:
        mean: (C,).
        mixing: (C, C), invertible.
    """

    mixing: Tensor
    shift: Tensor

    def __init__(self, mean: Tensor, mixing: Tensor) -> None:
        super().__init__()
        self.register_buffer("mixing", mixing[:, :, None, None])
        self.register_buffer("shift", -mixing @ mean)

    def forward(self, x: Tensor) -> Tensor:
        """Standardised features, of the shape of `x`, (B, C, H, W)."""
        return nn.functional.conv2d(x, self.mixing, self.shift)  # one pass over x


def public_photographs(imgsz: int) -> Iterator[Tensor]:
    """The photographs that Ultralytics installs, at several scales.

    Args:
        imgsz: Longest side of the smallest in pixels.

    Yields:
        (1, 3, H, W) in [0, 1], sides a multiple of 32.
    """
    for name in _PHOTOGRAPHS:
        photograph = cv2.imread(str(ASSETS / name))
        if photograph is None:
            continue  # an installation without them: diagonal as without photographs
        height, width = photograph.shape[:2]
        for scale in _SCALES:
            ratio = scale * imgsz / max(height, width)
            size = [max(32, int(side * ratio) // 32 * 32) for side in (width, height)]
            small = cv2.resize(photograph, size, interpolation=cv2.INTER_AREA)
            rgb = np.ascontiguousarray(small[..., ::-1].transpose(2, 0, 1))
            yield torch.from_numpy(rgb)[None].float() / 255


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


def standardise_classes(model: nn.Module, photographs: Iterable[Tensor] = ()) -> None:
    """Let every last class convolution see standardised inputs, in place; its output stays.

    A branch whose last convolution does not follow a block with BatchNorm and SiLU is left alone.

    Args:
        model: A detection model.
        photographs: Public images, (1, 3, H, W) in [0, 1]. Without any, or for a model of other
            channels, correlations stay.
    """
    rows = list(_standard_rows(model))
    features = _features([row[-2] for row in rows], model, photographs)
    for row, seen in zip(rows, features, strict=True):
        conv = cast(nn.Conv2d, row[-1])
        norm = cast(Any, _last_block(row)).bn
        mean, scale = (
            moment.double().cpu() for moment in silu_moments(norm.weight.cpu(), norm.bias.cpu())
        )
        scale = scale.clamp_min(_FLOOR * float(scale.mean()))
        mixing, inverse = torch.diag(1 / scale), torch.diag(scale)
        if len(seen):
            whitening, colouring = _whitening(seen / scale)
            mixing, inverse = whitening @ mixing, inverse @ colouring
        _substitute(conv, inverse, added=mean)
        standard = Standardise(mean, mixing).float().to(conv.weight.device)
        row[-1] = nn.Sequential(standard, conv)


def _standard_rows(model: nn.Module) -> Iterator[Any]:
    head = cast(Any, model).model[-1]
    for branch in CLASS_BRANCHES:
        for row in getattr(head, branch, None) or ():
            block = _last_block(row)
            if (
                isinstance(row[-1], nn.Conv2d)
                and isinstance(getattr(block, "bn", None), nn.BatchNorm2d)
                and isinstance(getattr(block, "act", None), nn.SiLU)
            ):
                yield row


def _last_block(row: Any) -> nn.Module:
    block = row[-2]
    return block[-1] if isinstance(block, nn.Sequential) else block


@torch.no_grad()
def _features(
    blocks: list[nn.Module], model: nn.Module, photographs: Iterable[Tensor]
) -> list[Tensor]:
    """Outputs of blocks over the photographs, (positions, C) in double precision; maybe none."""
    seen: list[list[Tensor]] = [[] for _ in blocks]
    hooks = [
        block.register_forward_hook(partial(_keep, into))
        for block, into in zip(blocks, seen, strict=True)
    ]
    weight = next(model.parameters())
    channels = next(m for m in model.modules() if isinstance(m, nn.Conv2d)).in_channels
    try:
        for photograph in photographs:
            if photograph.shape[1] == channels:
                model(photograph.to(weight))
    finally:
        for hook in hooks:
            hook.remove()
    return [torch.cat(each) if each else torch.empty(0) for each in seen]


def _keep(into: list[Tensor], _block: nn.Module, _inputs: Any, output: Any) -> None:
    into.append(output.permute(0, 2, 3, 1).flatten(0, 2).double().cpu())


def _whitening(features: Tensor) -> tuple[Tensor, Tensor]:
    """(Σ + λI)^(-1/2) of these features, scaled so that λ alone leaves them alone; its inverse."""
    variances, directions = torch.linalg.eigh(torch.cov(features.T))
    shrinkage = _SHRINKAGE * variances.mean()
    root = ((variances.clamp_min(0) + shrinkage) / (1 + _SHRINKAGE)).sqrt()
    return (directions / root) @ directions.T, (directions * root) @ directions.T


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
            mixing, shift = standard.mixing[:, :, 0, 0].double(), standard.shift.double()
            _substitute(conv, mixing, added=shift)
            row[-1] = conv


def _substitute(conv: nn.Conv2d, multiplied: Tensor, *, added: Tensor) -> None:
    """The 1×1 convolution of z = multiplied · z' + added, as one of z'."""
    assert conv.bias is not None
    with torch.no_grad():
        weight = conv.weight[:, :, 0, 0].double()
        multiplied, added = multiplied.to(weight.device), added.to(weight.device)
        conv.bias.add_((weight @ added).to(conv.bias.dtype))
        conv.weight.copy_((weight @ multiplied)[:, :, None, None])
