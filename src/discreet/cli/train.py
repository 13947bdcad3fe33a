"""`discreet train`: train a detector on private images."""

from __future__ import annotations

from collections.abc import Mapping

from discreet.terminal import Reporter

SUMMARY = "train a detector on private images"
EXAMPLE = """\
  discreet train data=bccd/data.yaml model=yolov8n.pt \\
    epsilon=8 imgsz=160"""


def run(given: Mapping[str, str], *, reporter: Reporter) -> dict[str, object]:
    """Train, and return the facts of the run.

    Args:
        given: Arguments as typed, name to text.
        reporter: Hears what happens.
    """
    from discreet.arguments import parse_value, split_arguments

    if parse_value(given.get("resume", "")) in ("", False, None):
        split_arguments(given, required=("data", "model"))
    # else: the interrupted run holds the other arguments, and checks these against them

    from discreet import api  # late: seconds of imports, and the arguments are right

    return api.train(dict(given), reporter=reporter).to_json()
