"""What a plan amounts to, in one or two plain sentences."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, Context, Decimal

from discreet.accounting import calibrate_noise_multiplier
from discreet.errors import DiscreetError
from discreet.planning.training import TrainingPlan
from discreet.planning.wording import MEANINGLESS_EPSILON, noise_to_signal
from discreet.terminal import SMALL_EPSILON, format_epsilon

USUAL_EPSILON = 8.0
# Up to 1, formal guarantees are strong (Ponomareva et al. 2023, "How to DP-fy ML", tiers 1, 2);
# up to 10 they are in common use. The line between moderate and weak is ours.
_STRONG, _MODERATE = 1.0, 4.0


def verdict_of(plan: TrainingPlan, *, parameters: int, needed_noise: float | None) -> str:
    """The verdict on a planned run.

    Args:
        plan: The run.
        parameters: Number of trained coordinates.
        needed_noise: See `noise_for_usual_epsilon`.
    """
    told = [_privacy(plan, needed_noise)]
    ratio = noise_to_signal(plan.mechanism, parameters=parameters)
    if plan.mechanism.noise_multiplier > 0 and ratio > 1:
        told.append(
            f"The noise drowns the images: over the whole run it is {ratio:.1f} times larger than "
            "anything they can say. Expect a detector worse than the one you start from."
        )
    if plan.mechanism.delta >= 1 / plan.mechanism.population:
        told.append(
            f"δ = {plan.mechanism.delta:g} is not below 1/n: publishing one "
            f"{plan.mechanism.unit.noun} in the open would satisfy it."
        )
    return " ".join(told)


def noise_for_usual_epsilon(plan: TrainingPlan) -> float | None:
    """The σ with which the same run has ε = 8, if its own ε is no privacy to speak of."""
    if plan.promised.epsilon <= MEANINGLESS_EPSILON:
        return None
    mechanism = plan.mechanism
    try:
        return calibrate_noise_multiplier(
            target_epsilon=USUAL_EPSILON,
            delta=mechanism.delta,
            events=lambda sigma: mechanism.with_noise(sigma).planned_events(),
            accountant=mechanism.make_accountant(),
        )
    except DiscreetError:
        return None


def _privacy(plan: TrainingPlan, needed_noise: float | None) -> str:
    mechanism, epsilon = plan.mechanism, plan.promised.epsilon
    noun = mechanism.unit.noun
    run = f"{_count(mechanism.population, noun)}, σ = {mechanism.noise_multiplier:.4g}"
    if mechanism.noise_multiplier == 0:
        return f"{run}: no noise, no privacy at all."
    full = mechanism.sample_rate == 1
    kind = "full-batch step" if full else "step"
    of = "" if full else f" of {_count(mechanism.expected_batch_size, noun)}"
    verb = "spends" if mechanism.steps == 1 else "spend"
    run = f"{run}, {_count(mechanism.steps, kind)}{of} {verb} ε = {one_decimal(epsilon)}"
    if epsilon > MEANINGLESS_EPSILON:
        no_privacy = f"{run}: no privacy to speak of"
        if needed_noise is None:
            return f"{no_privacy}."
        return f"{no_privacy}; for ε = {USUAL_EPSILON:g} you would need σ = {needed_noise:#.3g}."
    factor = math.exp(epsilon)
    odds = f"whatever an attacker tries, the odds move by a factor of at most {factor:,.1f}"
    if factor >= 100:
        odds = odds.replace(f"{factor:,.1f}", f"{factor:,.0f}")
    if epsilon <= _STRONG:
        return f"{run}: strong privacy for each {noun}; {odds}."
    if epsilon <= _MODERATE:
        return f"{run}: moderate privacy for each {noun}; {odds}."
    return f"{run}: weak privacy, though a proven bound; {odds}."


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def one_decimal(value: float) -> str:
    """Rounded up to one decimal, so that no bound is told too small; ∞ as itself.

    Below 0.1 it has two decimals, and below 0.01 a power of ten.
    """
    if 0 < value < 0.1:
        return two_decimals(value)
    return _up(value, "0.1")


def two_decimals(value: float) -> str:
    """Rounded up to two decimals, below 0.01 to a power of ten; ∞ as itself."""
    if 0 < value < SMALL_EPSILON:
        return format_epsilon(value)
    return _up(value, "0.01")


def _up(value: float, unit: str) -> str:
    if math.isinf(value):
        return "∞"
    exact = Decimal(repr(float(value)))
    if value >= 1e6:
        return f"{Context(prec=3, rounding=ROUND_CEILING).create_decimal(exact):.2e}"
    return f"{exact.quantize(Decimal(unit), rounding=ROUND_CEILING):,}"
