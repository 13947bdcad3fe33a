"""One validator, one wording: keyword in, name and value out."""

from __future__ import annotations

import math

from discreet.errors import ConfigurationError


def _refuse(name: str, value: object, expected: str) -> ConfigurationError:
    return ConfigurationError(f"expected {name} {expected}, got {name}={value!r}", where=name)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except (OverflowError, TypeError):  # an integer beyond all floats, a text
        return False


def positive(**values: float) -> None:
    """Refuse values that are not finite and > 0, naming the keyword."""
    for name, value in values.items():
        if not (_is_finite(value) and value > 0):
            raise _refuse(name, value, "> 0")


def non_negative(**values: float) -> None:
    """Refuse values that are not finite and >= 0, naming the keyword."""
    for name, value in values.items():
        if not (_is_finite(value) and value >= 0):
            raise _refuse(name, value, ">= 0")


def open_unit_interval(**values: float) -> None:
    """Refuse values outside (0, 1), naming the keyword."""
    for name, value in values.items():
        if not 0 < value < 1:
            raise _refuse(name, value, "strictly between 0 and 1")


def sample_rate(value: float) -> None:
    """Refuse sample rates outside (0, 1]."""
    if not 0 < value <= 1:
        raise _refuse("sample_rate", value, "in (0, 1]")


def positive_int(**values: int) -> None:
    """Refuse values that are not whole numbers >= 1, naming the keyword."""
    for name, value in values.items():
        if value != int(value) or value < 1:
            raise _refuse(name, value, "a whole number >= 1")
