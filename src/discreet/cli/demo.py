"""`discreet demo`: train privately on synthetic images."""

from __future__ import annotations

from discreet.arguments.values import CountOrZero, PositiveNumber, Text
from discreet.cli.mode import Call, Facts, Mode, Row
from discreet.cli.options import Option, read_options

_OWN = (
    Option(name="epsilon", kind=PositiveNumber, default=8.0, help="ε to end at or under"),
    Option(name="seed", kind=CountOrZero, default=0, help="picks the scenes, never the noise"),
    Option(name="project", kind=Text, default="runs/demo", help="folder of the scenes and the run"),
)


def run(call: Call) -> Facts:
    """Run the demo, and return its facts: those of the run, and mAP50 before and after."""
    call.refuse_unknown((option.name for option in _OWN), mode="demo")
    values = read_options(call.given, _OWN)

    from discreet.demo.run import run_demo  # late: it draws with OpenCV

    return run_demo(**values, reporter=call.reporter)


def _rows() -> dict[str, list[Row]]:
    return {"Arguments": [option.row for option in _OWN]}


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
