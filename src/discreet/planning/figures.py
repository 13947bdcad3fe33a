"""ε of one run, from every side: three accountants, no sampling, replace-one, groups, epochs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from discreet.accounting import AccountantName, epsilon_per_prefix, make_accountant
from discreet.accounting.groups import group_epsilon
from discreet.config import MechanismConfig
from discreet.errors import DiscreetError
from discreet.planning.training import TrainingPlan
from discreet.privacy import NeighboringRelation

ACCOUNTANTS: tuple[AccountantName, ...] = ("pld", "rdp", "prv")
GROUP_SIZES = (2, 5, 10)
# Opacus' PRV takes minutes where ε is in the hundreds, and says nothing there that PLD does not.
PRV_CEILING = 100.0
_MOST_EPOCHS_SHOWN = 8
ADD_OR_REMOVE = NeighboringRelation.ADD_OR_REMOVE_ONE


@dataclass(frozen=True, kw_only=True)
class Figures:
    """ε of a run at its δ; ∞ without noise, None where an accountant cannot answer.

    Attributes:
        epsilon: By accountant: `pld`, `rdp`, `prv`; add or remove one image.
        without_sampling: With a shuffled loader in place of Poisson sampling, unamplified.
        replace_one: For replacing one image by another.
        groups: For adding or removing k images at once, by k.
        per_epoch: After some epochs, by epoch; the last one is the promise.
        notes: Why a number is missing, one sentence each.
    """

    epsilon: Mapping[str, float | None]
    without_sampling: float | None
    replace_one: float | None
    groups: Mapping[int, float | None]
    per_epoch: Mapping[int, float]
    notes: tuple[str, ...]


def figures_of(
    plan: TrainingPlan,
    *,
    epochs: float | None = None,
    tell: Callable[[int, int], None] | None = None,
) -> Figures:
    """Everything about the ε of a planned run.

    Args:
        plan: The run.
        epochs: Its passes as asked for, if they were: the last step may go a little further.
        tell: Called with (numbers found, numbers in all).
    """
    mechanism = plan.mechanism
    events, delta = mechanism.planned_events(), mechanism.delta
    notes: list[str] = []
    done, total = 0, len(ACCOUNTANTS) + 3 + len(GROUP_SIZES)

    def ask(what: str, answer: Callable[[], float]) -> float | None:
        nonlocal done
        value = _answer(what, answer, notes)
        done += 1
        if tell is not None:
            tell(done, total)
        return value

    def by(name: AccountantName) -> float:
        if name == mechanism.accountant and mechanism.relation is ADD_OR_REMOVE:
            return plan.promised.epsilon
        return make_accountant(name).epsilon(events, delta=delta)

    pld = ask("PLD", lambda: by("pld"))
    epsilon = {"pld": pld, "rdp": ask("RDP", lambda: by("rdp"))}
    epsilon["prv"] = ask("PRV", lambda: by("prv") if prv_answers(pld) else _too_much_for_prv())
    pld_accountant = make_accountant("pld")
    replace = make_accountant("pld", relation=NeighboringRelation.REPLACE_ONE)
    return Figures(
        epsilon=epsilon,
        without_sampling=ask(
            "the shuffled loader",
            lambda: pld_accountant.epsilon(shuffled(mechanism).planned_events(), delta=delta),
        ),
        replace_one=ask("replace-one", lambda: replace.epsilon(events, delta=delta)),
        groups={
            size: ask(
                f"groups of {size}",
                lambda size=size: group_epsilon(events, size=size, delta=delta),
            )
            for size in GROUP_SIZES
        },
        per_epoch=_per_epoch(plan, math.ceil(epochs or plan.epochs), ask),
        notes=tuple(notes),
    )


def shuffled(mechanism: MechanismConfig) -> MechanismConfig:
    """The same run with a shuffled loader: each unit takes part once per epoch, unamplified."""
    return mechanism.model_copy(update={"sampling": "shuffle", "largest_batch": None})


def prv_answers(pld: float | None) -> bool:
    """Whether Opacus' PRV accountant comes to a number in reasonable time."""
    return pld is None or pld <= PRV_CEILING or math.isinf(pld)


def _too_much_for_prv() -> float:
    raise DiscreetError(f"not asked above ε = {PRV_CEILING:g}, where it takes minutes")


def _answer(what: str, answer: Callable[[], float], notes: list[str]) -> float | None:
    try:
        return answer()
    except DiscreetError as error:
        notes.append(f"{what}: {error.what}.")
        return None


def _per_epoch(
    plan: TrainingPlan,
    last: int,
    ask: Callable[[str, Callable[[], float]], float | None],
) -> dict[int, float]:
    epochs = shown_epochs(last)
    steps = plan.mechanism.steps
    values: tuple[float, ...] = ()

    def compute() -> float:
        nonlocal values
        lasts = [steps if epoch == last else plan.last_step_of(epoch) for epoch in epochs]
        values = epsilon_per_prefix(
            [plan.mechanism.planned_events(last_step) for last_step in lasts],
            delta=plan.mechanism.delta,
            accountant=plan.mechanism.make_accountant(),
        )
        return values[-1]

    ask("ε by epoch", compute)
    return dict(zip(epochs, values, strict=False))


def shown_epochs(epochs: int) -> list[int]:
    """A few epochs, evenly spread, the first and the last among them."""
    if epochs <= _MOST_EPOCHS_SHOWN:
        return list(range(1, epochs + 1))
    parts = _MOST_EPOCHS_SHOWN - 1
    return [1, *(math.ceil(epochs * part / parts) for part in range(1, parts + 1))]
