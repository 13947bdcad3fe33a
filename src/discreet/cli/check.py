"""`discreet check`: try the step of a run before it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from discreet.terminal import Reporter

SUMMARY = "check, before a run, that its step keeps images apart"
EXAMPLE = """\
  discreet check data=bccd/data.yaml model=yolov8n.pt epsilon=8 imgsz=160 --full"""
ABOUT = (
    "Run the step of `discreet train` with frozen randomness on neighbouring batches of your "
    "images, and compare what each image contributes. Takes the arguments of train, and --full "
    "to go through all variants, engines and statistics. Charges nothing and leaves no folder."
)


def run(
    given: Mapping[str, str], *, reporter: Reporter, show: Callable[[str], None]
) -> dict[str, object]:
    """Check, and return the facts of the check.

    Args:
        given: Arguments as typed, name to text.
        reporter: Hears what happens.
        show: Prints the table for a person.

    Raises:
        CheckError: A probe failed.
    """
    from discreet.arguments import parse_value, split_arguments

    arguments = dict(given)
    full = parse_value(arguments.pop("full", "false")) is True
    split_arguments(arguments, required=("data", "model"))

    from discreet.yolo.checking import check_arguments  # late: seconds of imports

    report = check_arguments(arguments, full=full, reporter=reporter)
    show(report.to_text())
    report.require()
    return report.to_json()
