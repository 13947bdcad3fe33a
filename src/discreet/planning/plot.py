"""A plan as two charts: ε against steps, and σ against ε."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from discreet.accounting import epsilon_per_prefix
from discreet.drawing import draw

if TYPE_CHECKING:
    from discreet.planning.report import Plan

_POINTS = 16


def write_plot(plan: Plan, path: Path) -> None:
    """Draw a plan into a file, whole or not at all.

    Args:
        plan: The plan.
        path: Where to; the ending says whether as SVG or PNG.

    Raises:
        ConfigurationError: If the ending is another.
        StorageError: If the file cannot be written.
    """

    def paint(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        _against_steps(plan, left)
        _against_epsilon(plan, right)

    draw(path, paint, size=(8, 3.4))


def _against_steps(plan: Plan, axes: Any) -> None:
    mechanism = plan.training.mechanism
    counts = sorted({math.ceil(mechanism.steps * i / _POINTS) for i in range(1, _POINTS + 1)})
    values = epsilon_per_prefix(
        [mechanism.planned_events(steps) for steps in counts],
        delta=mechanism.delta,
        accountant=mechanism.make_accountant(),
    )
    _line(axes, counts, values)
    if plan.training.target_epsilon is not None:
        axes.axhline(plan.training.target_epsilon, linestyle="--", linewidth=0.8, color="gray")
    axes.set(xlabel="steps", ylabel="ε", title=f"σ = {mechanism.noise_multiplier:.4g}")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)


def _against_epsilon(plan: Plan, axes: Any) -> None:
    mechanism = plan.training.mechanism
    accountant = mechanism.make_accountant().coarse()
    middle = mechanism.noise_multiplier or 1.0
    noises = [middle * 4 ** (i / (_POINTS // 2) - 1) for i in range(_POINTS + 1)]
    epsilons = [
        accountant.epsilon(mechanism.with_noise(noise).planned_events(), delta=mechanism.delta)
        for noise in noises
    ]
    _line(axes, epsilons, noises)
    if mechanism.noise_multiplier:
        axes.plot([plan.training.promised.epsilon], [middle], "o", color="black")
    axes.set(xlabel="ε", ylabel="σ", title=f"{mechanism.steps:,} steps")
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("{x:g}")


def _line(axes: Any, x: Sequence[float], y: Sequence[float]) -> None:
    points = [(a, b) for a, b in zip(x, y, strict=True) if math.isfinite(a) and math.isfinite(b)]
    axes.plot([a for a, _ in points], [b for _, b in points])
    axes.grid(linewidth=0.4, alpha=0.5)
