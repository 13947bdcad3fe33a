"""The table of rules as `docs/recipes.md` has it; a test holds the file to it."""

from __future__ import annotations

from collections.abc import Iterator

from discreet.recipes.rules import RECIPES, Rule

_INTRODUCTION = """\
# Recipes

What a private run takes where nothing is asked for. `recipe=auto` is the default; any argument
that is given wins over its row. Every rule looks at public numbers only: the number of images and
classes, ε, δ, the image size, and whether the run starts from public weights. None looks at an
image, a label, a loss or a gradient of the private set. `discreet plan` and `discreet train` print
what was chosen and why.

This file is made from `discreet.recipes.rules`: `python -m discreet.recipes > docs/recipes.md`.
"""
_TITLES = {
    "auto": "`recipe=auto`, from public weights",
    "auto, from scratch": "`recipe=auto`, from an architecture alone",
    "plain": "`recipe=plain`",
}


def as_markdown() -> str:
    """The whole document."""
    return "\n".join([_INTRODUCTION, *_sections()])


def _sections() -> Iterator[str]:
    for name, rules in RECIPES.items():
        yield f"## {_TITLES[name]}\n"
        yield "| setting | value | why |"
        yield "|---|---|---|"
        yield from map(_row, rules)
        yield ""


def _row(rule: Rule) -> str:
    return f"| `{rule.setting}` | {rule.table} | {rule.why} |"
