"""Arguments that belong to one mode: their types, defaults and help in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from discreet.arguments.problems import Problem, gather, wrong_value
from discreet.arguments.values import check_value
from discreet.cli.mode import Row


@dataclass(frozen=True, kw_only=True)
class Option:
    """An argument of a mode.

    Attributes:
        name: As typed.
        kind: Its type, of `discreet.arguments.values`.
        default: Its value if it is not given.
        help: What it does.
    """

    name: str
    kind: object
    default: object
    help: str

    @property
    def row(self) -> Row:
        """Its line on the help page."""
        default = self.default
        if isinstance(default, tuple):
            default = ",".join(f"{value:g}" for value in default)
        return self.name, default, self.help


def read_options(given: Mapping[str, str], options: Sequence[Option]) -> dict[str, Any]:
    """The value of each option.

    Args:
        given: Arguments as typed, name to text; others than these are not looked at.
        options: What the mode takes.

    Raises:
        ConfigurationError: Values are wrong; all of them in the one error.
    """
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    for option in options:
        text = given.get(option.name)
        try:
            values[option.name] = option.default if text is None else check_value(option.kind, text)
        except ValueError:
            problems.append(wrong_value(option.name, text, option.kind, usual=option.default))
    if problems:
        raise gather(problems)
    return values
