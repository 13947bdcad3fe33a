"""All planted mistakes, and the table of which tool sees which.

`python -m tests.planted.catalogue` writes the table to `docs/planted.md`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from . import accounts, data, gradients, models, noise, own_models, releases, settings, steps
from .plant import Plant, Tool

PAGE = Path(__file__).parents[2] / "docs" / "planted.md"
THEMES: Mapping[str, tuple[Plant, ...]] = {
    "Models and losses": (*models.PLANTS, *own_models.PLANTS),
    "Norms and clipping": gradients.PLANTS,
    "Noise": noise.PLANTS,
    "Steps": steps.PLANTS,
    "Draws and images": data.PLANTS,
    "Settings and data sets": settings.PLANTS,
    "Charges and claims": accounts.PLANTS,
    "Releases": releases.PLANTS,
}
CATALOGUE: tuple[Plant, ...] = tuple(plant for plants in THEMES.values() for plant in plants)

_INTRODUCTION = """\
# Planted mistakes

Each row is a mistake that is easily made in differentially private training. The tests plant it in
a correct run of this code and look with the tools whose column is ticked: each of them has to
raise an alarm that names the culprit, and none about the same run without the mistake. A tool
whose column is empty was not asked.

- **configuration**: arguments, data and model are refused before anything is looked at.
- **check**: `discreet check`, the short form of which runs at the start of every training.
- **statistics**: noise and draws in `discreet check --full`, judged over many repetitions.
- **ledger**: the run is stopped at a charge, or for want of one.
- **audit**: the attack of `discreet audit`, on a single step many times or on a whole run.
- **verify**: `discreet verify`, with the code as it is shipped and no more than the release.
- **release scan**: the last look before a release is published.

This page is made from the tests: `python -m tests.planted.catalogue`.
"""


def page() -> str:
    """The page for people."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield _INTRODUCTION
    yield f"{len(CATALOGUE)} mistakes:"
    for theme, plants in THEMES.items():
        yield from ("", f"## {theme}", "")
        yield _row("mistake", "what is wrong", *(tool.value for tool in Tool))
        yield _row("---", "---", *(":-:" for _ in Tool))
        for plant in plants:
            ticks = ("✓" if tool in plant.found_by else "" for tool in Tool)
            yield _row(plant.name, plant.why, *ticks)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
