"""`discreet demo`: train privately on synthetic images."""

from __future__ import annotations

from discreet.arguments.problems import Problem, gather
from discreet.arguments.values import (
    CountOrZero,
    PositiveNumber,
    Text,
    check_value,
    expected,
    shown,
)
from discreet.cli.mode import Call, Facts, Mode, Row

_OWN: tuple[tuple[str, object, object, str], ...] = (
    ("epsilon", PositiveNumber, 8.0, "ε that the run ends at or under"),
    ("seed", CountOrZero, 0, "which scenes are drawn; never the noise"),
    ("project", Text, "runs/demo", "folder of the scenes and of the run"),
)


def run(call: Call) -> Facts:
    """Run the demo, and return its facts: those of the run, and mAP50 before and after."""
    call.refuse_unknown((name for name, *_ in _OWN), mode="demo")
    values: dict[str, object] = {}
    problems: list[Problem] = []
    for name, kind, default, _ in _OWN:
        given = call.given.get(name)
        try:
            values[name] = default if given is None else check_value(kind, given)
        except ValueError:
            problems.append(Problem(where=shown(name, given), what=f"expected {expected(kind)}"))
    if problems:
        raise gather(problems)

    from discreet.demo.run import run_demo  # late: it draws with OpenCV

    return run_demo(**values, reporter=call.reporter)  # pyright: ignore[reportArgumentType]


def _rows() -> dict[str, list[Row]]:
    return {"Arguments": [(name, default, text) for name, _, default, text in _OWN]}


MODE = Mode(
    name="demo",
    summary="train privately on synthetic images, in a few minutes",
    usage="[key=value …]",
    about=(
        "Make synthetic scenes like blood smears, train on them privately from a small public "
        "model, and report how well the model detects before and after."
    ),
    run=run,
    rows=_rows,
)
