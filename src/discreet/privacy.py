"""Vocabulary of the guarantee: privacy unit, neighbouring relation, budget."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Literal

from discreet import _validate
from discreet.terminal import format_delta, format_epsilon

GroupingName = Literal["file", "pattern"]
"""How images came to groups: by a file that names them, or by a pattern on their paths."""

DEFAULT_MAX_IMAGES_PER_UNIT = 4
"""Public, and the same for every data set: the size of the largest unit is nobody's business."""


class PrivacyUnit(enum.StrEnum):
    """What one record is: the thing whose presence the guarantee hides."""

    IMAGE = "image"
    """One image with its labels."""

    GROUP = "group"
    """All images of one group, such as a patient, with their labels."""

    @property
    def noun(self) -> str:
        """What a plan calls one of them."""
        return "image" if self is PrivacyUnit.IMAGE else "unit"


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
        return f"ε = {format_epsilon(self.epsilon)} at δ = {format_delta(self.delta)}"
