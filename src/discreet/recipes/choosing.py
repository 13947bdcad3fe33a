"""Fill in what the user left open, and say what was chosen and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from discreet.recipes.facts import PublicFacts
from discreet.recipes.rules import AUTO_OPTIMIZER, RATES_OF_OTHERS, rules_of

_WHY_OF_OTHERS = (
    f"Ultralytics' default with the optimizer given: the recipe's is {AUTO_OPTIMIZER}'s"
)
# Settings that the rules behind them look at.
_LOOKED_AT = frozenset({"trainable", "zoom", "views"})
_INSTEAD = {"steps": "epochs", "epochs": "steps"}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One setting of a run.

    Attributes:
        setting: Name of the argument.
        value: Its value.
        why: The rule's reason; None where the user chose.
    """

    setting: str
    value: Any
    why: str | None


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """All settings that a recipe speaks of.

    Attributes:
        recipe: Name of the recipe.
        choices: What was chosen, in the table's order.
    """

    recipe: str
    choices: tuple[Choice, ...]

    def values(self) -> dict[str, Any]:
        """Value of every setting, by name."""
        return {choice.setting: choice.value for choice in self.choices}

    def by_rule(self) -> dict[str, Any]:
        """Value of every setting that the user left open, by name."""
        return {each.setting: each.value for each in self.choices if each.why is not None}


def choose(
    recipe: str,
    given: Mapping[str, Any],
    *,
    facts: PublicFacts,
    begun_with: Mapping[str, Any] | None = None,
) -> Chosen:
    """Choose every setting that the user left open.

    Args:
        recipe: `auto` or `plain`.
        given: What the user set, by name; None means that it is open.
        facts: Public numbers.
        begun_with: `by_rule` of the run that goes on: the rules may be others by now.

    Returns:
        A value for each setting of the recipe. Of `steps` and `epochs` there is one: the one that
        was given, or else the recipe's.
    """
    given = {name: value for name, value in given.items() if value is not None}
    optimizer = str(given.get("optimizer", "auto")).lower()
    if optimizer == "auto":
        given.pop("optimizer", None)
    usual = {} if optimizer in ("auto", AUTO_OPTIMIZER.lower()) else RATES_OF_OTHERS
    facts = replace(facts, steps=given.get("steps"), batch=given.get("batch"))
    begun = begun_with or {}
    choices: list[Choice] = []
    for rule in rules_of(recipe, pretrained=facts.pretrained):
        setting = rule.setting
        if _INSTEAD.get(setting) in given:
            setting = _INSTEAD[setting]
        if setting in given:
            choices.append(Choice(setting=setting, value=given[setting], why=None))
        else:
            value = usual[setting] if setting in usual else rule.value(facts)
            why = _WHY_OF_OTHERS if setting in usual else rule.why
            choices.append(Choice(setting=setting, value=begun.get(setting, value), why=why))
        if setting in _LOOKED_AT:
            facts = replace(facts, **{setting: choices[-1].value})
    return Chosen(recipe=recipe, choices=tuple(choices))
