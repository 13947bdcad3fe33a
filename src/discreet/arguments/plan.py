"""The arguments of a plan: those of the guarantee that it needs, and a few of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path as File
from typing import Any

from discreet.arguments import privacy
from discreet.arguments.privacy import PrivacyArguments
from discreet.arguments.problems import Problem, gather, wrong_value
from discreet.arguments.split import ULTRALYTICS, find_problems, with_file
from discreet.arguments.split import is_flag as is_flag_of_training
from discreet.arguments.suggestions import unknown_argument
from discreet.arguments.values import (
    Count,
    Flag,
    Path,
    PathOrFlag,
    Pixels,
    check_value,
    shown,
)
from discreet.recipes import DEFAULT_IMGSZ

PLOT_ENDINGS = (".svg", ".png")
DEFAULT_PLOT = "plan.svg"
DEFAULT_MODEL = "yolov8n"
_TEACHING = ("teacher", "teacher_data", "teacher_gain")
_GROUPING = ("groups", "group_regex")

# Of the guarantee's arguments, those that a plan depends on.
SHARED = (
    "groups",
    "group_regex",
    "max_images_per_unit",
    "epsilon",
    "noise_multiplier",
    "delta",
    "batch",
    "epochs",
    "steps",
    "hours",
    "recipe",
    "max_grad_norm",
    "clipping",
    "accountant",
    "relation",
    "sampling",
    "largest_batch",
    "noise_schedule",
    "final_noise",
    "trainable",
    "zoom",
)


@dataclass(frozen=True, kw_only=True)
class Own:
    """An argument that only plans have, or that means something else in them.

    Attributes:
        values: Kind of value, as a type annotation.
        default: What help shows as the value where none is given.
        help: What it does.
    """

    values: Any
    default: object
    help: str


OWN: Mapping[str, Own] = {
    "data": Own(
        values=Path | None,
        default=None,
        help="data set whose training images are counted; it is only read",
    ),
    "n": Own(
        values=Count | None,
        default=None,
        help="number of training images, where there is no data set yet; instead of data",
    ),
    "model": Own(
        values=Path | None,
        default=DEFAULT_MODEL,
        help="weights or architecture whose speed is measured here",
    ),
    "imgsz": Own(
        values=Pixels | None,
        default=None,
        help=f"side of the images in pixels; if left out, the task's: {DEFAULT_IMGSZ}, and 224 "
        "for classes of whole images",
    ),
    "time": Own(
        values=Flag,
        default=True,
        help="measure the speed on blank images for some seconds; false leaves it out",
    ),
    "plot": Own(
        values=PathOrFlag | None,
        default=None,
        help=f"file for two charts, ending in .svg or .png; alone, {DEFAULT_PLOT}",
    ),
}


@dataclass(frozen=True, kw_only=True)
class PlanArguments:
    """Checked arguments of a plan.

    Attributes:
        privacy: What the guarantee depends on.
        data: The data set; None where `n` is given.
        n: Number of training images; None where `data` is given.
        model: Weights or architecture to measure; None for the usual one.
        imgsz: Side of the images in pixels; None for the usual one of the model's task.
        time: Whether to measure the speed.
        plot: Where to draw; None for nowhere.
        settings: Ultralytics' own that were given, checked as training does.
    """

    privacy: PrivacyArguments
    data: str | None
    n: int | None
    model: str | None
    imgsz: int | None
    time: bool
    plot: File | None
    settings: Mapping[str, object] = field(default_factory=dict[str, object])


def names() -> tuple[str, ...]:
    """Every argument of a plan, in the order in which help lists them."""
    return ("data", "n", *SHARED, *(name for name in OWN if name not in ("data", "n")))


def is_flag(name: str) -> bool:
    """Whether the bare word means True."""
    return name in ("plot", "time") or is_flag_of_training(name)


def read_plan_arguments(given: Mapping[str, object]) -> PlanArguments:
    """Check all arguments of a plan.

    A line that trains is a line that plans: what changes nothing in a plan is checked as training
    does, but no public images are read.

    Args:
        given: Argument name to text or value; None means that it is not given.

    Raises:
        ConfigurationError: Arguments are unknown, wrong, missing or contradict one another; all
            of them are in the one error.
    """
    given = with_file({name: value for name, value in given.items() if value is not None})
    problems: list[Problem] = []
    own: dict[str, Any] = {"time": True}
    trained: dict[str, Any] = {}
    for name, value in given.items():
        if name in OWN:
            try:
                own[name] = check_value(OWN[name].values, value)
            except ValueError:
                entry = OWN[name]
                problems.append(wrong_value(name, value, entry.values, usual=entry.default))
        elif name in _TEACHING:
            problems.append(_teaching(name, value))
        elif name in privacy.names() or name in ULTRALYTICS:
            trained[name] = value
        else:
            problems.append(unknown_argument(name, value, names(), mode="plan"))
    problems += _sources(given)
    shared = {name: value for name, value in trained.items() if name in privacy.names()}
    found, overrides = find_problems(trained)
    problems += found
    plot, more = _plot(own.get("plot"))
    problems += more
    if not problems:
        problems += _batch(PrivacyArguments(**shared), own.get("n"))
    if problems:
        raise gather(problems)
    return PlanArguments(
        privacy=PrivacyArguments(**shared),
        data=own.get("data"),
        n=own.get("n"),
        model=own.get("model"),
        imgsz=own.get("imgsz"),
        time=own["time"],
        plot=plot,
        settings={name: overrides[name] for name in trained if name in overrides},
    )


def _teaching(name: str, value: object) -> Problem:
    return Problem(
        where=shown(name, value),
        what="a plan does not count what a private teacher has spent",
        do="Leave it out: `discreet distill` tells its plan before it spends anything.",
    )


def _sources(given: Mapping[str, object]) -> list[Problem]:
    if "data" in given and "n" in given:
        what = "both are given, and the data set says how many images there are"
        return [Problem(where="data, n", what=what, do="Keep data or n.")]
    if "n" in given and (grouped := [name for name in _GROUPING if name in given]):
        what = "there are no images to group, only their number"
        do = "Give data=DATA.yaml in place of n, or give n= as the number of groups."
        return [Problem(where=", ".join(grouped), what=what, do=do)]
    if "data" not in given and "n" not in given:
        what = "missing: a plan needs the number of training images"
        return [Problem(where="data", what=what, do="Give data=DATA.yaml, or n=.")]
    return []


def _plot(value: object) -> tuple[File | None, list[Problem]]:
    if value is None or value is False:
        return None, []
    path = File(DEFAULT_PLOT if value is True else str(value))
    where = f"plot={path}"
    if path.suffix.lower() not in PLOT_ENDINGS:
        what = f"expected a file that ends in {' or '.join(PLOT_ENDINGS)}"
        return None, [Problem(where=where, what=what, do=f"Write plot={path.stem or 'plan'}.svg.")]
    if not path.parent.is_dir():
        return None, [Problem(where=where, what="its folder is not there", do="Make it first.")]
    if path.is_dir():
        return None, [Problem(where=where, what="is a folder", do="Name a file.")]
    return path, []


def _batch(asked: PrivacyArguments, n: int | None) -> list[Problem]:
    if n is None or asked.batch is None or asked.batch <= n:
        return []
    what = f"the expected batch size is more than the {n} training images"
    return [Problem(where=f"batch={asked.batch}", what=what, do=f"Use batch={n} or less.")]
