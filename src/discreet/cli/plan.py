"""`discreet plan`: what a run will do and cost, before anything is spent."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from discreet.terminal import Reporter

SUMMARY = "show what a run will do and cost, before anything is spent"
ABOUT = (
    "Work out a run's noise, ε and time, compare other batch sizes and epochs, and say in plain "
    "words what it amounts to. Nothing is trained, and nothing of the budget is spent."
)
USAGE = "discreet plan data=DATA.yaml epsilon=8 [key=value …]"
EXAMPLE = """\
  discreet plan n=100000 epsilon=8 batch=1024 epochs=50
  discreet plan data=bccd/data.yaml noise_multiplier=1.2 --plot"""


def run(
    given: Mapping[str, str], *, reporter: Reporter, show: Callable[[str], None]
) -> dict[str, object]:
    """Make a plan, show it, and return its numbers.

    Args:
        given: Arguments as typed, name to text.
        reporter: Hears of the progress.
        show: Prints the plan for a person.
    """
    from discreet.arguments.plan import read_plan_arguments

    asked = read_plan_arguments(given)

    from discreet import api  # late: seconds of imports, and the arguments are right

    plan = api.plan_as_asked(asked, timed=asked.time, reporter=reporter)
    reporter.close()
    show(plan.to_text())
    if asked.plot is not None:
        show(f"plot: {asked.plot}")
    return plan.to_json()
