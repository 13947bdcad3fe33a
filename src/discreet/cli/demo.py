"""`discreet demo`: train privately on synthetic images."""

from __future__ import annotations

import inspect
from typing import Annotated

from cyclopts import Parameter

from discreet.terminal import Reporter

ABOUT = (
    "Make synthetic scenes like blood smears, train on them privately from a small public model, "
    "and report how well the model detects before and after."
)
SUMMARY = "train privately on synthetic images, in a few minutes"


def run(
    *,
    reporter: Annotated[Reporter, Parameter(parse=False)],
    epsilon: Annotated[float, Parameter(help="ε that the run ends at or under")] = 8.0,
    seed: Annotated[int, Parameter(help="which scenes are drawn; never the noise")] = 0,
    project: Annotated[str, Parameter(help="folder of the scenes and of the run")] = "runs/demo",
) -> dict[str, object]:
    """Run the demo, and return its facts: those of the run, and mAP50 before and after."""
    from discreet.demo.run import run_demo  # late: it draws with OpenCV

    return run_demo(epsilon=epsilon, seed=seed, project=project, reporter=reporter)


def is_flag(name: str) -> bool:
    """Whether an argument may stand as a bare word, meaning True."""
    parameter = inspect.signature(run).parameters.get(name)
    return parameter is not None and isinstance(parameter.default, bool)
