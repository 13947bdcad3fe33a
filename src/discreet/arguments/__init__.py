"""Every training argument that a user may give, in one place, each judged once.

    values.py       what a value may be, and its wording
    privacy.py      arguments that set the guarantee
    plan.py         those of a plan
    policy.py       how an Ultralytics argument can stand to the guarantee
    accepted.py     those that are harmless
    refused.py      those that are refused or fixed, with the reason
    split.py        check everything given, and split it

Imports neither torch nor Ultralytics: a wrong argument is told in a fraction of a second.
"""

from discreet.arguments.accepted import PUBLIC_SETTINGS
from discreet.arguments.plan import PlanArguments, read_plan_arguments
from discreet.arguments.plan import is_flag as is_plan_flag
from discreet.arguments.policy import UNSET, Argument, Kind
from discreet.arguments.privacy import TRAINABLE_PARTS, PrivacyArguments
from discreet.arguments.split import (
    ULTRALYTICS,
    is_flag,
    known_names,
    neutral_values,
    split_arguments,
    with_file,
)
from discreet.arguments.values import parse_value

__all__ = [
    "PUBLIC_SETTINGS",
    "TRAINABLE_PARTS",
    "ULTRALYTICS",
    "UNSET",
    "Argument",
    "Kind",
    "PlanArguments",
    "PrivacyArguments",
    "is_flag",
    "is_plan_flag",
    "known_names",
    "neutral_values",
    "parse_value",
    "read_plan_arguments",
    "split_arguments",
    "with_file",
]
