"""Mistakes in the noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from discreet import noise
from discreet.config import MechanismConfig
from discreet.noise import GaussianMechanism
from discreet.randomness import InsecureSource
from discreet.yolo import train as training

from .plant import Plant, Tool, wrap
from .runs import Step, Training

Patch = pytest.MonkeyPatch
Change = Callable[[str, Tensor, Tensor], Tensor]


def noised(change: Change) -> Any:
    """Change what the mechanism gives: `change(name, sum, noised sum)`."""

    def around(own: Any, self: Any, clipped: Any, given: Any) -> dict[str, Tensor]:
        found = own(self, clipped, given)
        return {name: change(name, clipped.sums[name], value) for name, value in found.items()}

    def plant(patch: Patch, run: Any) -> None:
        for method in ("privatise", "add"):
            wrap(patch, GaussianMechanism, method, around)

    return plant


def times(factor: float) -> Change:
    return lambda _, value, found: value + (found - value) * factor


def without_sensitivity(patch: Patch, run: Any) -> None:
    patch.setattr(GaussianMechanism, "standard_deviation", lambda self, _: self.noise_multiplier)


def drawn_by(draw: Callable[[int], Any]) -> Any:
    def plant(patch: Patch, run: Any) -> None:
        patch.setattr(noise, "hardened_normal", lambda count, _: draw(count))

    return plant


def seeded_source(patch: Patch, run: Training) -> None:
    patch.setattr(training, "make_source", lambda _seed=None: InsecureSource(0))


def silent_decay(patch: Patch, run: Training) -> None:
    """Less noise towards the end, where training wants it; charged as if it stayed."""

    def less(own: Any, self: MechanismConfig, step: int) -> GaussianMechanism:
        sigma = own(self, step).noise_multiplier
        return GaussianMechanism(noise_multiplier=sigma * 0.9 ** (step - 1))

    wrap(patch, MechanismConfig, "make_mechanism", less)


NOISE = frozenset({"noise"})
PLANTS = (
    Plant(
        name="no noise",
        why="The clipped sum is released as it is.",
        runs=(Step, Training),
        plant=noised(times(0.0)),
        found_by={
            Tool.CHECK: r"noise: .*gets no noise",
            Tool.STATISTICS: r"noise: .*gets no noise",
            Tool.AUDIT: "REFUTED",
        },
        slow=frozenset({Tool.AUDIT}),
        probes=frozenset({"empty draw", "noise"}),
    ),
    Plant(
        name="a parameter without noise",
        why="Biases are small, and are forgotten.",
        runs=(Step, Training),
        plant=noised(lambda name, value, found: value if name.endswith("bias") else found),
        found_by={Tool.CHECK: r"noise: .*bias.*gets no noise"},
        probes=NOISE,
    ),
    Plant(
        name="noise only where gradients are",
        why="Entries that no unit touched stay as they were: that they were not touched is seen.",
        runs=(Step,),
        plant=noised(lambda _, value, found: torch.where(value != 0, found, value)),
        found_by={Tool.CHECK: r"noise: idle"},
        probes=frozenset({"empty draw", "noise", "normaliser"}),
    ),
    Plant(
        name="noise of σ instead of σ · C",
        why="The scale forgets the sensitivity: right at C = 1 only.",
        runs=(Step, Training),
        plant=without_sensitivity,
        found_by={Tool.CHECK: r"noise: .* times as large"},
        probes=NOISE,
    ),
    Plant(
        name="variance taken for the standard deviation",
        why="Noise of √σ: a parameter of the wrong meaning.",
        runs=(Step, Training),
        plant=noised(times(0.7)),
        found_by={
            Tool.CHECK: r"noise: .* times as large",
            Tool.STATISTICS: r"noise: .* times as large",
        },
        probes=NOISE,
    ),
    Plant(
        name="noise twice",
        why="Added by the mechanism and again by the optimizer: more than is claimed, not less.",
        runs=(Step,),
        plant=noised(times(2**0.5)),
        found_by={Tool.CHECK: r"noise: .* times as large"},
        probes=NOISE,
    ),
    Plant(
        name="the same noise in every step",
        why="A generator that is seeded anew: whoever sees two steps subtracts them.",
        runs=(Step, Training),
        plant=drawn_by(lambda count: np.random.default_rng(5).standard_normal(count)),
        found_by={Tool.CHECK: r"two steps got the same noise"},
        probes=NOISE,
    ),
    Plant(
        name="noise from torch's global generator",
        why="Whoever seeds the run, for its augmentation, has seeded its noise.",
        runs=(Step, Training),
        plant=drawn_by(lambda count: torch.randn(count, dtype=torch.float64).numpy()),
        found_by={Tool.CHECK: r"two steps got the same noise"},
        probes=NOISE,
    ),
    Plant(
        name="seeded noise, used again on resume",
        why="A run that goes on repeats the noise that it began with.",
        runs=(Training,),
        plant=seeded_source,
        found_by={Tool.CHECK: r"randomness: the random source"},
        probes=frozenset({"randomness"}),
    ),
    Plant(
        name="noise that decays, accounted as constant",
        why="Later steps have less noise than they are charged for.",
        runs=(Training,),
        plant=silent_decay,
        found_by={Tool.CHECK: r"schedule: step \d.*σ"},
        probes=frozenset({"schedule"}),
    ),
)
