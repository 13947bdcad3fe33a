"""Which engines tests run on, and a small model for all of them."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from discreet.gradients import ENGINES
from tests.gradients.rules.test_norms import randomise

ALL = pytest.mark.parametrize("name", list(ENGINES))
EXACT = pytest.mark.parametrize("name", ["discreet", "opacus"])


def small() -> nn.Sequential:
    return randomise(  # pyright: ignore[reportReturnType]
        nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4),
            nn.SiLU(inplace=True),
            nn.Conv2d(4, 4, 3, stride=2),
            nn.GroupNorm(2, 4),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(4 * 9, 5),
        )
    ).eval()


def snapshot(model: nn.Module) -> list[Any]:
    modules = [(dict(vars(m)), m.training) for m in model.modules()]
    inside = [
        {key: list(value) for key, value in vars(m).items() if key.endswith("hooks")}
        for m in model.modules()
    ]
    tensors = [
        (id(p), p.requires_grad, id(p.grad), p._version, dict(vars(p)), p._backward_hooks)
        for p in (*model.parameters(), *model.buffers())
    ]
    return [modules, inside, tensors]
