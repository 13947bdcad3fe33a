"""Vocabulary of the guarantee: privacy unit, neighbouring relation, budget."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from discreet import _validate


class PrivacyUnit(enum.StrEnum):
    """What one record is: the thing whose presence the guarantee hides."""

    IMAGE = "image"


class NeighboringRelation(enum.StrEnum):
    """Which two data sets the guarantee makes hard to tell apart."""

    ADD_OR_REMOVE_ONE = "add_or_remove_one"
    REPLACE_ONE = "replace_one"


@dataclass(frozen=True, kw_only=True)
class PrivacySpent:
    """An (ε, δ) guarantee.

    Attributes:
        epsilon: Upper bound on the privacy loss, natural logarithm; may be infinite.
        delta: Probability mass on which the bound may fail.
    """

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        _validate.open_unit_interval(delta=self.delta)

    def __str__(self) -> str:
        return f"ε = {self.epsilon:.2f} at δ = {self.delta:.0e}"
