"""`discreet check`: try the step of a run before it runs."""

from __future__ import annotations

from discreet.cli import train
from discreet.cli.mode import Call, Facts, Mode, Row
from discreet.cli.options import Option, read_options

_OWN = (
    Option(
        name="full",
        kind=bool,
        default=False,
        help="go through all variants, engines and statistics",
    ),
)


def run(call: Call) -> Facts:
    """Check, show the table, and return its facts.

    Raises:
        CheckError: A probe failed.
        ConfigurationError: An argument is wrong.
    """
    from discreet.arguments import split_arguments

    full = read_options(call.given, _OWN)["full"]
    arguments = {name: text for name, text in call.given.items() if name != "full"}
    split_arguments(arguments, required=("data", "model"))

    from discreet.yolo.checking import check_arguments  # late: seconds of imports

    report = check_arguments(arguments, full=full, reporter=call.reporter)
    call.show(report.to_text())
    report.require()
    return report.to_json()


def _rows() -> dict[str, list[Row]]:
    return {
        "Arguments": [
            *(option.row for option in _OWN),
            ("…", None, "those of `discreet train --help`"),
        ]
    }


def _is_flag(name: str) -> bool:
    return name == "full" or train.is_flag(name)


MODE = Mode(
    name="check",
    summary="check, before a run, that its step keeps images apart",
    usage="data=DATA.yaml model=WEIGHTS.pt epsilon=8 [--full] …",
    about=(
        "Run the step of `discreet train` with frozen randomness on neighbouring batches of your "
        "images, and compare what each image contributes. Takes the arguments of train, and "
        "--full to go through all variants, engines and statistics. Charges nothing and leaves no "
        "folder."
    ),
    example="  discreet check data=bccd/data.yaml model=yolov8n.pt epsilon=8 imgsz=160 --full",
    run=run,
    rows=_rows,
    is_flag=_is_flag,
)
