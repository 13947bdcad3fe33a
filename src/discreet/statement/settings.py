"""The settings that a record lists: a closed list, each with what its value may be.

Whatever is not on it has no place in a release, and a value that no run accepts is no setting.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from discreet.arguments import PUBLIC_SETTINGS, ULTRALYTICS, PrivacyArguments, students
from discreet.arguments.values import check_value
from discreet.data import TaskName

_ULTRALYTICS = {
    name: ULTRALYTICS[name].with_partners or ULTRALYTICS[name].values for name in PUBLIC_SETTINGS
}
# What a recipe chose that no other field of the record tells.
_OWN = {
    name: PrivacyArguments.model_fields[name].annotation
    for name in (
        "recipe",
        "norm_lr",
        "ema",
        "balance",
        "standardise",
        "views",
        "zoom",
        "first_trainable",
        "first_steps",
    )
}
_KINDS: Mapping[str, Any] = {**_ULTRALYTICS, **_OWN, "task": TaskName}
# What no other field tells of a student's training on public images.
_OF_STUDENTS = {name: students.OWN[name].values for name in ("epochs", "batch")}
LARGEST_SETTING = 1_000_000  # of a number; of those that no kind bounds, none has a use near it


def setting_faults(configuration: Mapping[str, Any], *, student: bool) -> Iterator[str]:
    """Settings that no run of this program has.

    Args:
        configuration: What a record lists.
        student: Whether the record is of a student, which was trained as any detector is.
    """
    kinds = {**_KINDS, **_OF_STUDENTS} if student else _KINDS
    for name, value in configuration.items():
        if name not in kinds:
            yield f"configuration.{name[:40]}: there is no such public setting"
            continue
        numbers = value if isinstance(value, tuple | list) else (value,)
        try:
            check_value(kinds[name], value)
            if any(isinstance(n, int | float) and abs(n) > LARGEST_SETTING for n in numbers):
                raise ValueError("large")
        except ValueError:
            yield f"configuration.{name}: no run has this value"
