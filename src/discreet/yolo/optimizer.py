"""The optimizer and its schedule; both see noised gradients only."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import torch
from torch import nn

from discreet.errors import ConfigurationError

_ADAM_FAMILY = ("Adam", "AdamW", "Adamax", "NAdam", "RAdam")
_WITH_MOMENTUM = ("SGD", "RMSprop")


def build_optimizer(
    name: str,
    parameters: Mapping[str, nn.Parameter],
    *,
    lr: float,
    momentum: float,
    weight_decay: float,
    norms: Collection[str] = (),
    norm_lr: float = 1.0,
) -> torch.optim.Optimizer:
    """An optimizer over exactly the trained parameters.

    Args:
        name: One of torch's, in any case.
        parameters: What trains, by name.
        lr: Initial learning rate.
        momentum: SGD's momentum, or the first β of the Adam family.
        weight_decay: Applied to convolution weights only, as in Ultralytics.
        norms: Names of γ and β of normalisations, where they have a rate of their own.
        norm_lr: That rate over `lr`.

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
    others = [p for name, p in parameters.items() if name not in norms]
    groups = [
        {"params": [p for p in others if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
        {
            "params": [p for name, p in parameters.items() if name in norms],
            "weight_decay": 0.0,
            "lr": lr * norm_lr,
        },
    ]
    # `initial_lr`, as torch's schedulers call it, is what the schedule's factor multiplies.
    groups = [group | {"initial_lr": group.get("lr", lr)} for group in groups if group["params"]]
    if chosen in _ADAM_FAMILY:
        return getattr(torch.optim, chosen)(groups, lr=lr, betas=(momentum, 0.99))
    options = {"nesterov": momentum > 0} if chosen == "SGD" else {}
    return getattr(torch.optim, chosen)(groups, lr=lr, momentum=momentum, **options)


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
