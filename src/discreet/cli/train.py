"""`discreet train`: train a detector on private images."""

from __future__ import annotations

from collections.abc import Mapping

from discreet.cli.mode import Call, Facts, Mode, Row


def run(call: Call) -> Facts:
    """Train, and return the facts of the run."""
    from discreet.arguments import parse_value, split_arguments

    if parse_value(call.given.get("resume", "")) in ("", False, None):
        split_arguments(call.given, required=("data", "model"))
    # else: the interrupted run holds the other arguments, and checks these against them

    from discreet import api  # late: seconds of imports, and the arguments are right

    return api.train(dict(call.given), reporter=call.reporter).to_json()


def rows() -> dict[str, list[Row]]:
    """Arguments by section, privacy first."""
    from discreet.arguments.accepted import ACCEPTED
    from discreet.arguments.policy import UNSET
    from discreet.arguments.privacy import PrivacyArguments

    fields = PrivacyArguments.model_fields.items()
    sections: dict[str, list[Row]] = {
        "Privacy": [(name, field.default, field.description or "") for name, field in fields]
    }
    for title, entries in ACCEPTED.items():
        sections[title] = [
            (name, entry.default if entry.ours is UNSET else entry.ours, entry.help)
            for name, entry in entries.items()
        ]
    return sections


def is_flag(name: str) -> bool:
    """Whether an argument may stand without a value."""
    from discreet import arguments

    return arguments.is_flag(name)


def _lists() -> Mapping[tuple[str, str], Mapping[str, str]]:
    from discreet.arguments.refused import FIXED, REFUSED

    refused = "Refused where it would void the guarantee (give one to read when and why)"
    return {
        (refused, "refused"): {name: entry.why for name, entry in REFUSED.items()},
        ("Held at one value in private runs", "fixed"): {
            name: entry.why for name, entry in FIXED.items()
        },
    }


MODE = Mode(
    name="train",
    summary="train a detector on private images",
    usage="data=DATA.yaml model=WEIGHTS.pt epsilon=8 [key=value …]",
    about=(
        "Train a detector on private images. The folder release/ of the run may leave the "
        "building; internal/ may not. Sections after the first: Ultralytics' arguments, with "
        "their usual meaning and default."
    ),
    example="""\
  discreet train data=bccd/data.yaml model=yolov8n.pt \\
    epsilon=8 imgsz=160""",
    run=run,
    rows=rows,
    lists=_lists,
    is_flag=is_flag,
    takes_team=True,
)
