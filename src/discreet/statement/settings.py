"""The settings that a record lists: a closed list, each with what its value may be.

Whatever is not on it has no place in a release, and a value that no run accepts is no setting.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from discreet.arguments import PUBLIC_SETTINGS, PrivacyArguments
from discreet.arguments.accepted import ACCEPTED
from discreet.arguments.values import check_value

_ULTRALYTICS = {
    name: argument.values
    for section in ACCEPTED.values()
    for name, argument in section.items()
    if name in PUBLIC_SETTINGS
}
# What a recipe chose that no other field of the record tells.
_OWN = {
    name: PrivacyArguments.model_fields[name].annotation
    for name in ("recipe", "norm_lr", "balance", "standardise", "views")
}
_KINDS: Mapping[str, Any] = {**_ULTRALYTICS, **_OWN}
_LARGEST = 1_000_000  # of a number; of those that no kind bounds, none has a use near it


def setting_faults(configuration: Mapping[str, Any]) -> Iterator[str]:
    """Settings that no run of this program has."""
    for name, value in configuration.items():
        if name not in _KINDS:
            yield f"configuration.{name[:40]}: there is no such public setting"
            continue
        numbers = value if isinstance(value, tuple | list) else (value,)
        try:
            check_value(_KINDS[name], value)
            if any(isinstance(n, int | float) and abs(n) > _LARGEST for n in numbers):
                raise ValueError("large")
        except ValueError:
            yield f"configuration.{name}: no run has this value"
