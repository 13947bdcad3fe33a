"""What a run will do and cost, worked out before anything is spent.

completion.py what was left open, chosen by the recipe, within the time allowed
training.py   a run as the trainer plans it: noise and promise
wording.py    that run in rows and warnings
figures.py    its ε by three accountants, without sampling, for groups, by epoch
cost.py       its time, from what a step takes
table.py      the same with other batch sizes and epochs
verdict.py    what it amounts to
advice.py     what to change, and why
report.py     all of that: `Plan`
text.py plot.py   a plan as plain text, as two charts
"""

from discreet.planning.completion import complete
from discreet.planning.report import Plan, make_plan
from discreet.planning.training import TrainingPlan, plan_training
from discreet.planning.wording import noise_to_signal, plan_rows, plan_warnings, recipe_rows

__all__ = [
    "Plan",
    "TrainingPlan",
    "complete",
    "make_plan",
    "noise_to_signal",
    "plan_rows",
    "plan_training",
    "plan_warnings",
    "recipe_rows",
]
