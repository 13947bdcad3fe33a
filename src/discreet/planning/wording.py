"""A planned run in rows and warnings, for people."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

from discreet.config import MechanismConfig, SamplingName
from discreet.planning.training import TrainingPlan
from discreet.privacy import NeighboringRelation, PrivacyUnit
from discreet.recipes import Chosen
from discreet.terminal import count, format_delta, format_epsilon

# Above this an attacker's odds may grow more than 20,000-fold: no privacy to speak of.
MEANINGLESS_EPSILON = 10.0
_NEARLY_ALL = 0.9  # of ε, spent by a teacher: what is left drowns whatever the images say
_SAMPLING: Mapping[SamplingName, str] = {
    "poisson": "Poisson",
    "truncated_poisson": "Poisson, cut",
    "shuffle": "shuffled: accounted without amplification",
}


def recipe_rows(chosen: Chosen) -> list[tuple[str, str]]:
    """What the recipe chose, and why, as short rows of name and value, for people.

    What has one reason has one row.
    """
    rows: list[tuple[str, str]] = []
    by_rule = [choice for choice in chosen.choices if choice.why is not None]
    for why, alike in itertools.groupby(by_rule, key=lambda choice: choice.why):
        first, *others = alike
        values = [str(first.value), *(f"{other.setting} {other.value}" for other in others)]
        rows.append((first.setting, f"{', '.join(values)}: {why}"))
    return rows


def plan_rows(plan: TrainingPlan, *, trainable: str, parameters: int) -> list[tuple[str, str]]:
    """The plan as short rows of name and value, for people."""
    mechanism = plan.mechanism
    epsilon = format_epsilon(plan.promised.epsilon)
    asked = "" if plan.target_epsilon is None else f" (asked: {plan.target_epsilon:g})"
    change = "replace" if mechanism.relation is NeighboringRelation.REPLACE_ONE else "add or remove"
    return [
        population_row(mechanism),
        ("expected batch size B", f"{mechanism.expected_batch_size:,}"),
        ("sample rate q = B/n", f"{mechanism.sample_rate:.4g}, {sampling_of(mechanism)}"),
        ("steps", f"{mechanism.steps:,} ({count(plan.epochs, 'epoch')})"),
        ("noise multiplier σ", noise_of(mechanism)),
        ("max grad norm C", f"{mechanism.max_grad_norm:g}, {mechanism.clipping}"),
        ("trained", f"{trainable}: {parameters:,} parameters"),
        ("will end at ε", f"{epsilon}{asked} at δ = {format_delta(mechanism.delta)}"),
        (
            "neighbours",
            f"{change} one {mechanism.unit.noun}, {mechanism.accountant.upper()} accountant",
        ),
    ]


def population_row(mechanism: MechanismConfig) -> tuple[str, str]:
    """How many units there are, and what a unit is, for people."""
    n = f"{mechanism.population:,}"
    if mechanism.unit is PrivacyUnit.IMAGE:
        return "training images n", n
    return (
        "privacy units n",
        f"{n} {'group' if mechanism.population == 1 else 'groups'} of images; of a drawn one at "
        f"most {mechanism.max_images_per_unit} images, chosen at random, count as one",
    )


def sampling_of(mechanism: MechanismConfig) -> str:
    """How units are drawn, for people."""
    if mechanism.sample_rate == 1:
        return f"every {mechanism.unit.noun} in every step"
    cap = "" if mechanism.largest_batch is None else f" at {mechanism.largest_batch:,}"
    return _SAMPLING[mechanism.sampling] + cap


def noise_of(mechanism: MechanismConfig) -> str:
    """σ, or its first and last value, for people."""
    if mechanism.noise_schedule == "constant":
        return f"{mechanism.noise_multiplier:.5g}"
    last = mechanism.noise_multiplier_at(mechanism.steps)
    return f"{mechanism.noise_multiplier:.5g} to {last:.5g}, {mechanism.noise_schedule}"


def noise_to_signal(mechanism: MechanismConfig, *, parameters: int) -> float:
    """σ √P / (B √T): how far the noise drowns what the images can say; above 1, altogether.

    Over the whole run, the norm of the noise in the mean gradient, σ C √P / (B √T), is compared
    with the largest signal that clipping lets through, C.

    Args:
        mechanism: The run.
        parameters: Number P of trained coordinates.
    """
    noise = mechanism.noise_multiplier * math.sqrt(parameters)
    return noise / (mechanism.expected_batch_size * math.sqrt(mechanism.steps))


def plan_warnings(plan: TrainingPlan, *, parameters: int, secure: bool) -> list[str]:
    """Plain words on what makes this plan useless or not private.

    Useless is a run whose `noise_to_signal` is above 1.

    Args:
        plan: The plan.
        parameters: Number P of trained coordinates.
        secure: Whether the random source is.
    """
    mechanism, epsilon = plan.mechanism, plan.promised.epsilon
    noun = mechanism.unit.noun
    warnings: list[str] = []
    if not secure:
        warnings.append("insecure_seed is set: anyone can subtract the noise. NOT PRIVATE.")
    if mechanism.noise_multiplier == 0:
        warnings.append("noise_multiplier=0 adds no noise. NOT PRIVATE.")
    elif epsilon > MEANINGLESS_EPSILON:
        warnings.append(
            f"ε = {format_epsilon(epsilon)} is no privacy to speak of: "
            f"{mechanism.population:,} {noun}s, σ = {mechanism.noise_multiplier:g}, "
            f"{mechanism.steps:,} steps at q = {mechanism.sample_rate:.3g}. "
            f"Use more {noun}s, fewer steps, or ask for epsilon=8."
        )
    if mechanism.delta >= 1 / mechanism.population:
        warnings.append(
            f"δ = {mechanism.delta:g} is not below 1/n: publishing one {noun} in the open "
            "would satisfy it."
        )
    ratio = noise_to_signal(mechanism, parameters=parameters)
    spent = plan.spent_before()
    if spent > _NEARLY_ALL * epsilon and mechanism.noise_multiplier > 0:
        drowned = (
            f": over the whole run the noise is {ratio:.1f} times larger than anything the images "
            "can say"
            if ratio > 1
            else ""
        )
        warnings.append(
            f"the teacher has spent nearly all of the ε asked for: {format_epsilon(spent)} of "
            f"{format_epsilon(epsilon)}. Hardly anything is left for this run{drowned}. Ask for a "
            "larger epsilon, or take a teacher that has spent less, or a public one."
        )
    elif ratio > 1:
        warnings.append(
            f"{mechanism.population:,} {noun}s are too few for this request: over the whole run "
            f"the noise is {ratio:.1f} times larger than anything the images can say. "
            f"Expect a detector worse than the one you start from. Use more {noun}s, a larger "
            "batch, or train fewer parameters."
        )
    return warnings
