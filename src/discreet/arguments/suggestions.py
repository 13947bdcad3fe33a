"""Did you mean: the argument that an unknown name was probably meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from discreet.arguments.problems import Problem
from discreet.arguments.values import shown

PREFERRED_CLOSENESS = 0.75  # difflib's ratio, from 0 to 1

# Names that other tools use for the same thing and that no spelling distance finds.
SYNONYMS = {
    "eps": "epsilon",
    "target_epsilon": "epsilon",
    "budget": "epsilon",
    "sigma": "noise_multiplier",
    "noise": "noise_multiplier",
    "clip": "max_grad_norm",
    "clip_norm": "max_grad_norm",
    "l2_norm_clip": "max_grad_norm",
    "max_norm": "max_grad_norm",
    "c": "max_grad_norm",
    "batch_size": "batch",
    "expected_batch_size": "batch",
    "physical_batch_size": "micro_batch",
    "max_physical_batch_size": "micro_batch",
    "lr": "lr0",
    "learning_rate": "lr0",
    "img": "imgsz",
    "img_size": "imgsz",
    "image_size": "imgsz",
    "iterations": "steps",
    "weights": "model",
    "dataset": "data",
    "output": "project",
}


def closest(name: str, known: Iterable[str], *, preferred: Iterable[str] = ()) -> str | None:
    """The known name that `name` was probably meant to be, if any is close.

    Args:
        name: The unknown name.
        known: All names.
        preferred: Those that win where they are nearly as close: `modle` is rather `model`,
            which is accepted, than `mode`, which is not.
    """
    known = list(known)
    folded = name.lower().replace("-", "_")
    if folded in known:
        return folded
    if SYNONYMS.get(folded) in known:
        return SYNONYMS[folded]
    matches = difflib.get_close_matches(folded, preferred, n=1, cutoff=PREFERRED_CLOSENESS)
    matches = matches or difflib.get_close_matches(folded, known, n=1)
    return matches[0] if matches else None


def unknown_argument(
    name: str,
    value: object,
    known: Iterable[str],
    *,
    preferred: Iterable[str] = (),
    mode: str = "train",
) -> Problem:
    """The problem of an argument that nobody knows in a mode."""
    guess = closest(name, known, preferred=preferred)
    return Problem(
        where=shown(name, value),
        what=f"unknown argument{f'; did you mean {guess}?' if guess else ''}",
        do="" if guess else f"`discreet {mode} --help` lists all arguments.",
    )
