"""An audit of the real private step on any small model, in seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from discreet.auditing.canaries import CanaryWatch, GradientCanaries
from discreet.auditing.scores import CanaryScores
from discreet.clipping import Clipping, PerExampleGradients
from discreet.config import MechanismConfig
from discreet.noise import Mechanism
from discreet.randomness import RandomSource
from discreet.step import private_step


def audit_steps(
    *,
    parameters: Mapping[str, nn.Parameter],
    gradients_of: Callable[[NDArray[np.int64]], PerExampleGradients],
    canaries: int,
    claim: MechanismConfig,
    source: RandomSource,
    clipping: Clipping | None = None,
    noise: Mechanism | None = None,
    learning_rate: float = 0.1,
) -> CanaryScores:
    """Train by `private_step` with canaries among the units, and score them.

    Args:
        parameters: What trains, by name.
        gradients_of: Per-unit gradients of the units with these numbers, (B,) int64.
        canaries: Number of canaries m; the other `claim.population - canaries` units are real.
        claim: The mechanism that is claimed.
        source: Coins, sampling and noise.
        clipping: What really clips, where it is not what is claimed.
        noise: What really adds noise, where it is not what is claimed.
        learning_rate: Of plain gradient descent.
    """
    planted = GradientCanaries.place(
        parameters, canaries, max_grad_norm=claim.max_grad_norm, source=source
    )
    watch = CanaryWatch(
        planted,
        max_grad_norm=claim.max_grad_norm,
        noise_multiplier=claim.noise_multiplier,
        sample_rate=claim.sample_rate,
    )
    optimizer = torch.optim.SGD(parameters.values(), lr=learning_rate)
    batch = claim.expected_batch_size

    def observe(*_: Any) -> None:
        sums: dict[str, torch.Tensor] = {}
        for name, parameter in parameters.items():
            assert parameter.grad is not None
            sums[name] = parameter.grad * batch
        watch.step(sums)

    optimizer.register_step_pre_hook(observe)
    real = claim.population - canaries
    sampler = claim.make_sampler()

    def gradients(part: tuple[bool, NDArray[np.int64]]) -> PerExampleGradients:
        is_canary, units = part
        if is_canary:
            return planted.gradients(units, parameters)
        return watch.images(gradients_of(units))

    for _ in range(claim.steps):
        units = sampler.draw(source.stream())
        private_step(
            [(False, units[units < real]), (True, units[units >= real] - real)],
            parameters=parameters,
            gradients_of=gradients,
            clipping=clipping or claim.make_clipping(),
            mechanism=noise or claim.make_mechanism(step=1),
            expected_batch_size=batch,
            source=source,
            charge=_no_charge,
            optimizer=optimizer,
        )
    return watch.scores()


def _no_charge() -> None:
    """Nobody's data is in a harness."""
