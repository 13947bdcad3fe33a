"""`discreet compare`: what privacy costs on a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from discreet.arguments.problems import Problem, gather
from discreet.arguments.values import Count, Expected, PositiveNumber, shown
from discreet.arguments.values import Path as PathText
from discreet.cli import train
from discreet.cli.mode import Call, Facts, Mode, Row
from discreet.cli.options import Option, read_options


def _as_numbers(value: object) -> object:
    if isinstance(value, str):
        return value.strip("[]").split(",")
    return [value] if isinstance(value, int | float) else value


Epsilons = Annotated[
    list[PositiveNumber],
    BeforeValidator(_as_numbers),
    Field(min_length=1),
    Expected("one or more numbers > 0, such as 8,2,1"),
]
_OWN = (
    Option(
        name="epsilons", kind=Epsilons, default=(8.0, 4.0, 2.0, 1.0), help="ε of the private runs"
    ),
    Option(
        name="stock_epochs",
        kind=Count,
        default=25,
        help="epochs of Ultralytics' own training, in batches of 16",
    ),
    Option(
        name="resume",
        kind=PathText,
        default=None,
        help="folder of an interrupted comparison; give the same words again",
    ),
)
_INSTEAD = {
    "epsilon": "a comparison has several: write epsilons=8,2,1",
    "noise_multiplier": "a comparison finds it for each ε: write epsilons=8,2,1",
    "val": "every contestant is validated",
}


def run(call: Call) -> Facts:
    """Compare, show the table, and return its facts."""
    values = read_options(call.given, _OWN)
    rest = {name: text for name, text in call.given.items() if name not in values}
    problems = [
        Problem(where=shown(name, rest[name]), what=_INSTEAD[name], do="")
        for name in _INSTEAD.keys() & rest.keys()
    ]
    if problems:
        raise gather(problems)

    from discreet.arguments import split_arguments

    split_arguments({**rest, "epsilon": "8"}, required=("data", "model"))

    from discreet.yolo.comparing import compare_runs  # late: seconds of imports

    comparison, folder = compare_runs(
        rest,
        epsilons=values["epsilons"],
        stock_epochs=values["stock_epochs"],
        resume=None if values["resume"] is None else Path(values["resume"]),
        reporter=call.reporter,
    )
    call.show(comparison.to_text())
    call.show(f"\nalso as CSV, Markdown, JSON and SVG in {folder}")
    return {**comparison.to_json(), "folder": str(folder)}


def _rows() -> dict[str, list[Row]]:
    own = [option.row for option in _OWN]
    return {"Arguments": [*own, ("…", None, "those of `discreet train --help`")]}


MODE = Mode(
    name="compare",
    summary="measure what privacy costs: stock training, no noise, several ε",
    usage="data=DATA.yaml model=WEIGHTS.pt [epsilons=8,4,2,1] …",
    about=(
        "Train on the same images as Ultralytics does, with the private recipe without noise and "
        "clipping, and privately at several ε; validate all of them alike. Some of these models "
        "have no privacy: once they are measured no weights are kept, and the data set's ledger "
        "records that they saw the images. Compare on public images, with ledger=FILE for a ledger "
        "of their own."
    ),
    example="  discreet compare data=coco8/data.yaml model=yolov8n.pt imgsz=320 epsilons=8,2",
    run=run,
    rows=_rows,
    is_flag=train.is_flag,
)
