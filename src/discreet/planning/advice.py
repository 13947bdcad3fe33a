"""What to change in a plan, and why, in plain words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from discreet.accounting import default_delta
from discreet.planning.table import Cell, best_noise
from discreet.planning.training import TrainingPlan
from discreet.privacy import PrivacyUnit
from discreet.recipes import AUTO_OPTIMIZER
from discreet.terminal import format_epsilon

_FEW_UNITS = 1000
_UNSCALED = "SGD"  # the one optimizer whose updates grow with the gradient
_NOTICEABLE = 0.97  # a change of less than 3 % is not worth advice


@dataclass(frozen=True, kw_only=True)
class Advice:
    """One piece of advice.

    Attributes:
        about: The argument, as typed on the command line.
        text: What to do, and the reason.
    """

    about: str
    text: str


def advice_for(
    plan: TrainingPlan,
    cells: Sequence[Cell],
    *,
    trainable: str,
    chosen: Mapping[str, Any],
    batch_is_chosen: bool,
    needed_noise: float | None,
) -> tuple[Advice, ...]:
    """Advice on every setting that decides between privacy, quality and time.

    Args:
        plan: The requested run.
        cells: It and its neighbours.
        trainable: Parts that train.
        chosen: Optimizer, rates and all else that the recipe or the user chose, by name.
        batch_is_chosen: Whether the recipe chose the batch size.
        needed_noise: σ for ε = 8, where the request has no privacy to speak of.
    """
    requested = next(cell for cell in cells if cell.requested)
    optimizer = chosen["optimizer"]
    told = {
        "batch": _batch(plan, requested, cells, is_chosen=batch_is_chosen),
        "noise_multiplier": _noise(plan, needed_noise),
        "max_grad_norm": _norm(plan, optimizer),
        **_units(plan),
        "delta": _delta(plan),
        "steps": _steps(plan, requested, cells),
        "lr0": _rate(chosen, trainable=trainable),
        "warmup_epochs": (
            "None. Warm-up steps would spend as much ε as any other and move the model less"
            + (
                f"; {AUTO_OPTIMIZER}'s bias correction keeps the first steps small enough."
                if optimizer == AUTO_OPTIMIZER
                else "."
            )
        ),
    }
    return tuple(Advice(about=about, text=text) for about, text in told.items())


def _batch(plan: TrainingPlan, requested: Cell, cells: Sequence[Cell], *, is_chosen: bool) -> str:
    batch, noun = requested.expected_batch_size, plan.mechanism.unit.noun
    if batch == plan.mechanism.population:
        return (
            f"{batch:,} is every {noun} in every step: the least noise for each image read, "
            "and no help from sampling."
        )
    best = best_noise(cells, epochs=requested.epochs)
    if best is None or best.noise_per_coordinate is None or requested.noise_per_coordinate is None:
        return "Larger batches carry less noise for each image read."
    saved = _over_run(best) / _over_run(requested)
    if best.expected_batch_size <= batch or saved > _NOTICEABLE:
        return (
            f"Keep {batch:,}. The noise on the mean gradient is σ/B, and over as many epochs a "
            "larger batch in this table hardly lowers it."
        )
    if plan.target_epsilon is None:
        spent = best.epsilon.get(plan.mechanism.accountant)
        price = "" if spent is None else f", but ε becomes {format_epsilon(spent)}"
        return (
            f"{best.expected_batch_size:,} in place of {batch:,} has {1 - saved:.0%} less noise "
            f"over as many images read, since the noise on the mean gradient is σ/B{price}."
        )
    if is_chosen:
        return (
            f"The recipe takes {batch:,}, for {requested.steps:,} steps. "
            f"{best.expected_batch_size:,} has {1 - saved:.0%} less noise over the whole run, for "
            f"the same ε and as many images read, and {best.steps:,} steps: worth a try where the "
            "noise drowns the images."
        )
    return (
        f"Try {best.expected_batch_size:,} in place of {batch:,}: for the same ε and as many "
        f"images read, the noise over the whole run is {1 - saved:.0%} less, because σ grows "
        f"slower than B. It has {best.steps:,} steps in place of {requested.steps:,}, fewer and "
        "cleaner, and takes no more memory: batches are computed in parts."
    )


def _over_run(cell: Cell) -> float:
    return (cell.noise_per_coordinate or math.inf) / math.sqrt(cell.steps)


def _noise(plan: TrainingPlan, needed_noise: float | None) -> str:
    sigma, delta = plan.mechanism.noise_multiplier, plan.mechanism.delta
    if plan.target_epsilon is not None:
        return (
            f"Leave it out: {sigma:.5g} is the least noise that keeps ε = "
            f"{plan.target_epsilon:g} at δ = {delta:g}. More only costs quality, less breaks "
            "the promise."
        )
    if needed_noise is not None:
        return (
            f"Give epsilon=8 in its place: σ then is {needed_noise:.4g}, computed, not guessed. "
            f"At σ = {sigma:g} the noise is too small to hide any {plan.mechanism.unit.noun}."
        )
    return (
        "Give epsilon= in its place: the noise is then the least that keeps the ε you want, "
        "whatever n, batch and epochs are."
    )


def _norm(plan: TrainingPlan, optimizer: str) -> str:
    effect = (
        "as what an image says does: with SGD it scales every update, as lr0 does"
        if optimizer == _UNSCALED
        else f"and {optimizer} divides both out again, so C hardly matters"
    )
    return (
        f"Keep C = {plan.mechanism.max_grad_norm:g}. The noise grows with C, {effect}. Never set "
        "it from gradients of private images: that look is not paid for."
    )


def _rate(chosen: Mapping[str, Any], *, trainable: str) -> str:
    optimizer = chosen["optimizer"]
    taken = (
        f"{chosen['lr0']:g} with {optimizer} is what training takes for trainable={trainable}, "
        f"falling to {chosen['lrf']:g} of that: "
    )
    if optimizer == AUTO_OPTIMIZER:
        return (
            f"{taken}{AUTO_OPTIMIZER} scales each parameter by its own noise, so the rate changes "
            "little with n and ε and not with C, and small late steps average the noise out."
        )
    return (
        f"{taken}the recipe has rates for {AUTO_OPTIMIZER} alone. Leave optimizer out for those, "
        "or give lr0= and the others yourself."
    )


def _units(plan: TrainingPlan) -> dict[str, str]:
    """What to think of where units are groups."""
    mechanism = plan.mechanism
    if mechanism.unit is PrivacyUnit.IMAGE:
        return {}
    told = {
        "max_images_per_unit": (
            f"{mechanism.max_images_per_unit} images of a unit are averaged before its gradient is "
            "clipped. More of them steady it and cost their time; they spend nothing. Frames of "
            "one video that look alike add little."
        )
    }
    if mechanism.population < _FEW_UNITS:
        told["groups"] = (
            f"{mechanism.population:,} units are few: noise is divided by units, however many "
            "images each has. More patients, cameras or segments help, more images of the same "
            "do not. Split units only where the parts share no person."
        )
    return told


def _delta(plan: TrainingPlan) -> str:
    n, delta = plan.mechanism.population, plan.mechanism.delta
    noun = plan.mechanism.unit.noun
    usual = default_delta(n)
    if delta > usual:
        return (
            f"Use {usual:g}: with δ = {delta:g} and n = {n:,} {noun}s, the guarantee may fail "
            f"for {delta * n:.2g} {noun}s on average; well below one is the least to ask."
        )
    return (
        f"Keep {delta:g}, below 1/n = {1 / n:.2g}: at 1/n or above, publishing one {noun} in "
        "the open would count as private."
    )


def _steps(plan: TrainingPlan, requested: Cell, cells: Sequence[Cell]) -> str:
    more = next(
        (
            cell
            for cell in cells
            if cell.epochs == 2 * requested.epochs
            and cell.expected_batch_size == requested.expected_batch_size
        ),
        None,
    )
    steps = f"{requested.steps:,} steps"
    if more is None or requested.noise_multiplier is None or not requested.noise_multiplier:
        return f"{steps}: each one spends; stop where quality no longer grows."
    if plan.target_epsilon is not None and more.noise_multiplier is not None:
        raised = more.noise_multiplier / requested.noise_multiplier
        return (
            f"{steps}. Twice as many need {raised:.2f} times the noise for the same ε, yet "
            "average it over twice the steps: worth it as long as the time is, and as long as "
            "the detector still learns."
        )
    spent, now = (cell.epsilon.get(plan.mechanism.accountant) for cell in (more, requested))
    if spent is None or now is None:
        return f"{steps}: each one spends; stop where quality no longer grows."
    return (
        f"{steps} spend ε = {format_epsilon(now)}; twice as many spend {format_epsilon(spent)}. "
        "Fewer steps are the cheapest way to a smaller ε."
    )
