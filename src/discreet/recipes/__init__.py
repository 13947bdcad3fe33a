"""What a private run takes where nothing is asked for: rules on public numbers, with reasons.

facts.py       the public numbers that rules may look at
rules.py       the table of rules, one row a setting
choosing.py    fill in what was left open, and say why
"""

from discreet.recipes.choosing import Choice, Chosen, choose
from discreet.recipes.facts import LARGEST_ZOOM, PublicFacts, classes_learned, whole_cells
from discreet.recipes.rules import (
    AUTO_MOMENTUM,
    AUTO_OPTIMIZER,
    BEYOND_FLIPS,
    CHOSEN,
    DEFAULT_EPOCHS,
    DEFAULT_IMGSZ,
    DEFAULT_TRAINABLE,
    RATES_OF_OTHERS,
    RECIPES,
    Rule,
    automatic_rate,
    default_batch_size,
    rules_of,
)

__all__ = [
    "AUTO_MOMENTUM",
    "AUTO_OPTIMIZER",
    "BEYOND_FLIPS",
    "CHOSEN",
    "DEFAULT_EPOCHS",
    "DEFAULT_IMGSZ",
    "DEFAULT_TRAINABLE",
    "LARGEST_ZOOM",
    "RATES_OF_OTHERS",
    "RECIPES",
    "Choice",
    "Chosen",
    "PublicFacts",
    "Rule",
    "automatic_rate",
    "choose",
    "classes_learned",
    "default_batch_size",
    "rules_of",
    "whole_cells",
]
