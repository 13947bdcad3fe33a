"""Everything wrong with a set of arguments, told in one error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from discreet.arguments.values import example_of, expected, shown
from discreet.errors import ConfigurationError, UnsafeArgumentError


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One argument that cannot be used.

    Attributes:
        where: The argument as given, `name=value`, or its name.
        what: What is wrong with it.
        do: What to do about it, as sentences.
        unsafe: Whether it would void the guarantee.
    """

    where: str
    what: str
    do: str = ""
    unsafe: bool = False


def wrong_value(name: str, value: object, kind: Any, *, usual: object = None) -> Problem:
    """The problem of a value that is not of an argument's kind.

    Args:
        name: The argument.
        value: As given.
        kind: What it may be, as a type annotation.
        usual: A value to suggest, such as the default; only a number is.
    """
    is_number = isinstance(usual, int | float) and not isinstance(usual, bool)
    example = f"{usual:g}" if is_number else example_of(kind)
    return Problem(
        where=shown(name, value),
        what=f"expected {expected(kind)}",
        do=f"Give {name}={example}, for example." if example else "",
    )


def gather(problems: Sequence[Problem]) -> ConfigurationError:
    """One error for all problems, each on its own line; unsafe if any of them is."""
    kind = UnsafeArgumentError if any(p.unsafe for p in problems) else ConfigurationError
    if len(problems) == 1:
        (problem,) = problems
        return kind(problem.what, where=problem.where, do=problem.do or None)
    lines = [f"  {p.where}: {p.what}{f'. {p.do}' if p.do else ''}" for p in problems]
    return kind("\n".join([f"{len(problems)} arguments cannot be used:", *lines]))
