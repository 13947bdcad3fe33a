"""Convolutions that learn by a product of two thin ones, folded back at release.

W + U·D takes the place of a convolution's weight W (Hu et al. 2022, LoRA): D is a convolution of
the same kernel with r outputs, U a 1×1 convolution from those r to the outputs. W stays as it is.
For r = 1 a 3×3 convolution of 64 to 64 channels learns by 640 numbers in place of 36,864: noise on
each of them is the same, and so its sum is a seventh. U starts at zero, so that nothing changes at
first, and D at fixed pseudo-random numbers, the same in every process and every run: they are
public.
"""

from __future__ import annotations

import copy
import math
from typing import Any, cast

import torch
from torch import Tensor, nn

RANK = 1


class LowRank(nn.Module):
    """A convolution plus a product of two thin ones.

    Args:
        conv: The convolution, ungrouped; it is kept, not copied.
        rank: Channels between the two, r.
        number: Which of the model's: each begins at other numbers.
    """

    def __init__(self, conv: nn.Conv2d, *, rank: int = RANK, number: int = 0) -> None:
        super().__init__()
        self.conv = conv
        like: dict[str, Any] = {"device": conv.weight.device, "dtype": conv.weight.dtype}
        self.down = nn.Conv2d(
            conv.in_channels,
            rank,
            cast(Any, conv.kernel_size),
            cast(Any, conv.stride),
            cast(Any, conv.padding),
            cast(Any, conv.dilation),
            bias=False,
            **like,
        )
        self.up = nn.Conv2d(rank, conv.out_channels, 1, bias=False, **like)
        # Uniform with the variance that nn.Conv2d gives, but from a generator of its own.
        bound = 1 / math.sqrt(self.down.weight[0].numel())
        generator = torch.Generator().manual_seed(number)
        start = torch.rand(self.down.weight.shape, generator=generator) * 2 - 1
        with torch.no_grad():
            self.down.weight.copy_(start * bound)
            self.up.weight.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Output of shape (B, O, H, W), as the convolution's."""
        return self.conv(x) + self.up(self.down(x))

    @property
    def factors(self) -> tuple[nn.Module, nn.Module]:
        """What trains: D and U."""
        return self.down, self.up

    def folded(self) -> nn.Conv2d:
        """One convolution that does the same."""
        conv = copy.deepcopy(self.conv)
        with torch.no_grad():
            down, up = (f.weight.double() for f in (self.down, self.up))
            change = (up.flatten(1) @ down.flatten(1)).view(conv.weight.shape)
            conv.weight.copy_(conv.weight.double() + change)
        return conv


def add_low_rank(modules: list[nn.Module], *, rank: int = RANK) -> None:
    """Put a low-rank product beside every ungrouped convolution inside these modules, in place.

    Args:
        modules: Parts of one model.
        rank: r.
    """
    number = 0
    for module in modules:
        for name, conv in list(module.named_modules()):
            if type(conv) is nn.Conv2d and conv.groups == 1 and name:
                _put(module, name, LowRank(conv, rank=rank, number=number))
                number += 1


def fold_low_rank(model: nn.Module) -> None:
    """Undo `add_low_rank`, in place: plain convolutions with the same output."""
    for name, module in list(model.named_modules()):
        if isinstance(module, LowRank):
            _put(model, name, module.folded())


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)
