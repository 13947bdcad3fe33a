"""What the words alone tell of a first stage: which parts train in it, and for how many steps."""

from __future__ import annotations

from collections.abc import Mapping

from discreet.arguments.problems import Problem
from discreet.terminal import count

# Parts that lie within others, whatever the model.
_WITHIN: Mapping[str, frozenset[str]] = {
    "film": frozenset({"neck_film", "class_film"}),
    "neck_film": frozenset({"class_film"}),
    "head": frozenset({"classes"}),
    "whole_head": frozenset({"head", "classes"}),
}
# What a model has only where `trainable` names it.
_ADDED = "class_low_rank"
DEFAULT_SHARE = 3  # a third of all steps
EXAMPLE = "first_trainable=classes with trainable=class_film+classes"


def stage_problems(
    first: str, *, trainable: str | None, steps: int | None, first_steps: int | None
) -> list[Problem]:
    """What is wrong with a first stage, as far as it is known.

    Args:
        first: Parts that train alone at first.
        trainable: Parts that train in all; None while a recipe has to choose them.
        steps: Steps of the whole run; None while they are not known.
        first_steps: As asked; None where the default is taken.
    """
    found = (
        None if trainable is None else part_problem(first, trainable),
        None if steps is None else step_problem(steps, first_steps),
    )
    return [problem for problem in found if problem is not None]


def part_problem(first: str, trainable: str) -> Problem | None:
    """What is wrong with the first stage's parts; a model may find more.

    Args:
        first: Parts that train alone at first, joined by `+`.
        trainable: Parts that train in all, joined by `+`.
    """
    early, all_parts = first.split("+"), trainable.split("+")
    where, do = f"first_trainable={first}", f"Name a part of what trains, as {EXAMPLE}."
    if _ADDED in early and _ADDED not in all_parts:
        what = f"a model has {_ADDED} only where trainable names it, not with trainable={trainable}"
        do = f"Name it there, as trainable=classes+{_ADDED}, or leave it out."
        return Problem(where=where, what=what, do=do)
    if "all" in early or all(_covered(part, early) for part in all_parts):
        what = f"nothing is added after it with trainable={trainable}"
        return Problem(where=where, what=what, do=do)
    return None


def step_problem(steps: int, first_steps: int | None) -> Problem | None:
    """What is wrong with the number of the first stage's steps.

    Args:
        steps: Steps of the whole run.
        first_steps: As asked; None where the default is taken.
    """
    if 0 < first_steps_of(steps, first_steps) < steps:
        return None
    leave = "leave first_trainable out"
    if first_steps is None:
        short = "Give first_steps=1, or " if steps > 1 else "Give "
        return Problem(
            where="first_trainable",
            what=f"a third of {_steps(steps)}, the default of first_steps, is none",
            do=f"{short}steps={DEFAULT_SHARE} or more, or {leave}.",
        )
    fewer = f"first_steps={steps - 1} or less, or " if steps > 1 else ""
    return Problem(
        where=f"first_steps={first_steps}",
        what=f"of {_steps(steps)} it leaves none for what trains after it",
        do=f"Give {fewer}steps={first_steps + 1} or more, or {leave}.",
    )


def first_steps_of(steps: int, first_steps: int | None) -> int:
    """How many steps the first stage takes: as asked, or a third of all."""
    return steps // DEFAULT_SHARE if first_steps is None else first_steps


def _covered(part: str, parts: list[str]) -> bool:
    return any(part == other or part in _WITHIN.get(other, ()) for other in parts)


def _steps(number: int) -> str:
    return f"the run's {count(number, 'step')}"
