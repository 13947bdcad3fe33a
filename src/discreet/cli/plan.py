"""`discreet plan`: what a run will do and cost, before anything is spent."""

from __future__ import annotations

from discreet.cli.mode import Call, Facts, Mode, Row


def run(call: Call) -> Facts:
    """Make a plan, show it, and return its numbers."""
    from discreet.arguments.plan import read_plan_arguments

    asked = read_plan_arguments(call.given)

    from discreet import api  # late: seconds of imports, and the arguments are right

    plan = api.plan_as_asked(asked, timed=asked.time, reporter=call.reporter)
    call.reporter.close()
    call.show(plan.to_text())
    if asked.plot is not None:
        call.show(f"plot: {asked.plot}")
    return plan.to_json()


def rows() -> dict[str, list[Row]]:
    """The arguments: some of its own, the others as in train."""
    from discreet.arguments.plan import OWN, names
    from discreet.arguments.privacy import PrivacyArguments

    shared = PrivacyArguments.model_fields
    return {
        "Arguments": [
            (name, OWN[name].default, OWN[name].help)
            if name in OWN
            else (name, shared[name].default, shared[name].description or "")
            for name in names()
        ]
    }


def _is_flag(name: str) -> bool:
    from discreet import arguments

    return arguments.is_plan_flag(name)


MODE = Mode(
    name="plan",
    summary="show what a run will do and cost, before anything is spent",
    usage="data=DATA.yaml epsilon=8 [key=value …]",
    about=(
        "Work out a run's noise, ε and time, compare other batch sizes and epochs, and say in "
        "plain words what it amounts to. Nothing is trained, and nothing of the budget is spent. "
        "Other words of a line that trains are checked as there."
    ),
    example="""\
  discreet plan n=100000 epsilon=8 batch=1024 epochs=50
  discreet plan data=bccd/data.yaml noise_multiplier=1.2 --plot""",
    run=run,
    rows=rows,
    is_flag=_is_flag,
)
