"""Every planted mistake is seen by the tools that should see it, and none where there is none."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ..yolo.conftest import scenes
from .catalogue import CATALOGUE, PAGE, page
from .plant import Plant, Tool
from .runs import Run

__all__ = ["scenes"]

Make = Callable[..., Run]
CLEAN: dict[tuple[str, Tool], list[str]] = {}  # what tools say of runs without a mistake


def cases() -> Iterator[object]:
    for plant in CATALOGUE:
        for tool in plant.found_by:
            for make in plant.runs:
                if hasattr(make, tool.name.lower()):
                    whole = make.__name__ == "Training" and tool in plant.slow
                    whole |= make.__name__ == "Segmenting"
                    yield pytest.param(
                        plant,
                        tool,
                        make,
                        id=f"{plant.name}-{tool.value}-{make.__name__.lower()}",
                        marks=[pytest.mark.slow] if whole else [],
                    )


@pytest.fixture
def fresh(tmp_path: Path, scenes: Path) -> Callable[[Make], Run]:
    """A correct run in an empty folder."""
    numbers = iter(range(9))

    def make(kind: Make) -> Run:
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        return kind(folder, scenes)

    return make


@pytest.mark.parametrize(("plant", "tool", "kind"), cases())
def test_a_planted_mistake_is_seen(
    plant: Plant, tool: Tool, kind: Make, fresh: Callable[[Make], Run]
):
    run = fresh(kind)
    with plant.planted(run):
        alarms = tool.look(run)
    assert alarms, "no alarm"
    assert any(re.search(plant.found_by[tool], alarm, re.DOTALL) for alarm in alarms), alarms
    clean = fresh(kind)
    if (clean.key, tool) not in CLEAN:
        CLEAN[clean.key, tool] = tool.look(clean)
    assert CLEAN[clean.key, tool] == []


def test_the_catalogue_is_whole():
    assert len(CATALOGUE) >= 24
    names = [plant.name for plant in CATALOGUE]
    assert len(set(names)) == len(names)
    for plant in CATALOGUE:
        looks = [getattr(kind, t.name.lower(), None) for t in plant.found_by for kind in plant.runs]
        assert any(looks), plant.name


def test_the_table_is_that_of_the_catalogue():
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m tests.planted.catalogue"
