"""Privacy arguments beside each other: what is missing, what is one too many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from discreet.arguments.problems import Problem
from discreet.arguments.values import is_none, shown


@dataclass(frozen=True, kw_only=True)
class _Rivals:
    """Two arguments of which one says what the other does.

    Attributes:
        names: Both.
        why: Why not both.
        do: Which to keep.
        missing: What is wrong without either; None if nothing is.
        give: What to give in that case.
    """

    names: tuple[str, str]
    why: str
    do: str
    missing: str | None = None
    give: str = ""


_RIVALS = (
    _Rivals(
        names=("epsilon", "noise_multiplier"),
        why="each one determines the other",
        do="Keep epsilon for a target, or noise_multiplier for a fixed noise.",
        missing="no privacy target is given",
        give="Give epsilon=8 (a smaller ε is more private), or noise_multiplier=.",
    ),
    _Rivals(
        names=("epochs", "steps"),
        why="each one determines the other",
        do="Keep epochs or steps.",
    ),
    _Rivals(
        names=("epochs", "hours"),
        why="each one determines how many images are read",
        do="Keep epochs or hours.",
    ),
    _Rivals(
        names=("groups", "group_regex"),
        why="each one says which images belong together",
        do="Keep groups or group_regex.",
    ),
)

# Arguments that say how another is meant.
_DETAILS: Mapping[str, tuple[str, ...]] = {
    "teacher": ("teacher_data", "teacher_gain"),
    "first_trainable": ("first_steps",),
}


def find_conflicts(given: Mapping[str, object]) -> list[Problem]:
    """Arguments that exclude one another, or that mean nothing without another.

    Args:
        given: Argument name to value, as given; each may be of a wrong kind still.
    """
    chosen = {name: value for name, value in given.items() if not is_none(value)}
    return [
        *_of_rivals(chosen),
        *_of_details(chosen),
        *_of_time(chosen),
        *_of_sampling(chosen),
        *_of_units(chosen),
        *_of_accounting(chosen),
    ]


def _of_rivals(chosen: Mapping[str, object]) -> list[Problem]:
    problems: list[Problem] = []
    for rivals in _RIVALS:
        here = [name for name in rivals.names if name in chosen]
        if len(here) == 2:
            what = f"both are given, and {rivals.why}"
            problems.append(Problem(where=", ".join(here), what=what, do=rivals.do))
        elif not here and rivals.missing:
            what = f"missing: {rivals.missing}"
            problems.append(Problem(where=rivals.names[0], what=what, do=rivals.give))
    return problems


def _of_details(chosen: Mapping[str, object]) -> list[Problem]:
    return [
        Problem(
            where=shown(name, chosen[name]),
            what=f"there is no {of}",
            do=f"Give {of}= with it, or leave it out.",
        )
        for of, details in _DETAILS.items()
        for name in details
        if of not in chosen and name in chosen
    ]


def _of_time(chosen: Mapping[str, object]) -> list[Problem]:
    if not {"hours", "batch", "steps"} <= chosen.keys():
        return []
    what = "batch and steps together say how many images are read, whatever time that takes"
    do = "Leave hours out, or batch, or steps."
    return [Problem(where=shown("hours", chosen["hours"]), what=what, do=do)]


def _of_sampling(chosen: Mapping[str, object]) -> list[Problem]:
    problems: list[Problem] = []
    truncated = _text(chosen.get("sampling")) == "truncated_poisson"
    if truncated and "largest_batch" not in chosen:
        problems.append(
            Problem(
                where="largest_batch",
                what="missing: sampling=truncated_poisson needs a cap",
                do="Give largest_batch=, a fifth above batch or more, or leave sampling out.",
            )
        )
    if "largest_batch" in chosen and not truncated:
        problems.append(
            Problem(
                where=shown("largest_batch", chosen["largest_batch"]),
                what="only sampling=truncated_poisson has a cap",
                do="Leave it out: memory does not grow with the batch.",
            )
        )
    return problems


def _of_units(chosen: Mapping[str, object]) -> list[Problem]:
    if not chosen.keys() & {"groups", "group_regex"} and "max_images_per_unit" in chosen:
        return [
            Problem(
                where=shown("max_images_per_unit", chosen["max_images_per_unit"]),
                what="every image is a unit of its own",
                do="Give groups= or group_regex= with it, or leave it out.",
            )
        ]
    return []


def _of_accounting(chosen: Mapping[str, object]) -> list[Problem]:
    problems: list[Problem] = []
    if "final_noise" in chosen and _text(chosen.get("noise_schedule", "constant")) == "constant":
        problems.append(
            Problem(
                where=shown("final_noise", chosen["final_noise"]),
                what="the noise is constant",
                do="Give noise_schedule=exponential or step with it.",
            )
        )
    adaptive = _text(chosen.get("clipping")) == "adaptive"
    if adaptive and _text(chosen.get("sampling", "poisson")) != "poisson":
        problems.append(
            Problem(
                where=shown("clipping", chosen["clipping"]),
                what="its cost is accounted for Poisson sampling only",
                do="Leave sampling out, or take another clipping.",
            )
        )
    accountant = _text(chosen.get("accountant"))
    if _text(chosen.get("relation")) == "replace_one" and accountant in ("rdp", "prv"):
        problems.append(
            Problem(
                where=shown("accountant", accountant),
                what="has no sound bound under relation=replace_one",
                do="Leave accountant out: pld has one.",
            )
        )
    return problems


def _text(value: object) -> str:
    return str(value).strip().lower()
