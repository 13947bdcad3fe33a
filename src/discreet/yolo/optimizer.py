"""The optimizer and its schedule; both see noised gradients only."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from discreet.errors import ConfigurationError

_ADAM_FAMILY = ("Adam", "AdamW", "Adamax", "NAdam", "RAdam")
_WITH_MOMENTUM = ("SGD", "RMSprop")
_AVERAGE = "average"  # its place in the state


def build_optimizer(
    name: str,
    parameters: Mapping[str, nn.Parameter],
    *,
    lr: float,
    momentum: float,
    weight_decay: float,
    factors: Mapping[str, float] = MappingProxyType({}),
) -> torch.optim.Optimizer:
    """An optimizer over exactly the trained parameters.

    Args:
        name: One of torch's, in any case.
        parameters: What trains, by name.
        lr: Initial learning rate.
        momentum: SGD's momentum, or the first β of the Adam family.
        weight_decay: Applied to convolution weights only, as in Ultralytics.
        factors: Rate over `lr` of those that have one of their own; they do not decay.

    Raises:
        ConfigurationError: If the name is unknown.
    """
    known = {each.lower(): each for each in (*_ADAM_FAMILY, *_WITH_MOMENTUM)}
    chosen = known.get(name.lower())
    if chosen is None:
        raise ConfigurationError(
            f"no optimizer named {name!r} for private training",
            where="optimizer",
            do=f"use auto, {', '.join(sorted(known.values()))}",
        )
    others = [p for name, p in parameters.items() if name not in factors]
    groups = [
        {"params": [p for p in others if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
        *(
            {
                "params": [p for name, p in parameters.items() if factors.get(name) == factor],
                "weight_decay": 0.0,
                "lr": lr * factor,
            }
            for factor in sorted(set(factors.values()))
        ),
    ]
    # `initial_lr`, as torch's schedulers call it, is what the schedule's factor multiplies.
    groups = [group | {"initial_lr": group.get("lr", lr)} for group in groups if group["params"]]
    if chosen in _ADAM_FAMILY:
        return getattr(torch.optim, chosen)(groups, lr=lr, betas=(momentum, 0.99))
    options = {"nesterov": momentum > 0} if chosen == "SGD" else {}
    return getattr(torch.optim, chosen)(groups, lr=lr, momentum=momentum, **options)


def keep_average(optimizer: torch.optim.Optimizer, *, decay: float) -> None:
    """Keep a moving average of the weights that each step leaves, from the first on.

    A function of noised weights alone, so that it costs nothing. It is a part of the optimizer's
    state: checkpoints have it, and a resumed run goes on with it.

    Args:
        optimizer: What moves the weights.
        decay: Share of the average that a step leaves as it is, in (0, 1).
    """

    def follow(stepped: torch.optim.Optimizer, *_: Any) -> None:
        for weight in _moved_by(stepped):
            if weight.grad is None:  # it did not train in this step
                continue
            state = stepped.state[weight]
            if _AVERAGE in state:
                state[_AVERAGE].lerp_(weight.detach(), 1 - decay)
            else:
                state[_AVERAGE] = weight.detach().clone()

    optimizer.register_step_post_hook(follow)


def use_average(optimizer: torch.optim.Optimizer) -> None:
    """Put the average, where one was kept, in place of the last weights."""
    with torch.no_grad():
        for weight in _moved_by(optimizer):
            if _AVERAGE in optimizer.state[weight]:
                weight.copy_(optimizer.state[weight][_AVERAGE])


def _moved_by(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    return (weight for group in optimizer.param_groups for weight in group["params"])


def learning_rate_factor(
    step: int, *, steps: int, final: float, cosine: bool, warmup: float = 0.0
) -> float:
    """Factor on the initial learning rate in the `step`-th step, from 1.

    A function of public numbers only: linear or cosine decay from 1 to `final`, and before it a
    linear rise over `warmup` steps.
    """
    progress = (step - 1) / max(steps - 1, 1)
    shape = (1 + math.cos(math.pi * progress)) / 2 if cosine else 1 - progress
    rise = min(1.0, step / warmup) if warmup else 1.0
    return rise * (final + (1 - final) * shape)


def set_learning_rates(optimizer: torch.optim.Optimizer, factor: float) -> dict[str, float]:
    """Set every group's rate to `factor` times its initial one; by the names of Ultralytics."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
    return {f"lr/pg{i}": group["lr"] for i, group in enumerate(optimizer.param_groups)}
