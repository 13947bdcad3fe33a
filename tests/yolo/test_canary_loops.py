"""Which of the drawn canaries an audited step sees: those whose coin says so, and no others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from discreet.yolo.canary_loops import GradientCanaryLoop, ImageCanaryLoop, split_draw
from discreet.yolo.loop import StepLoop

UNITS = 4
INCLUDED = np.array([True, False, True, False])  # canaries are units 4 to 7
DRAWS = ([0, 3, 4, 5, 7], [5, 7], [], [1, 2, 4, 6])


@pytest.fixture(autouse=True)
def _drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    def draws(self: StepLoop, *, first_step: int) -> Iterator[Sequence[int]]:
        return iter(DRAWS[first_step - 1 :])

    monkeypatch.setattr(StepLoop, "draws", draws)


def lists(draws: Iterator[Sequence[int]]) -> list[list[int]]:
    return [np.asarray(draw).tolist() for draw in draws]


def test_a_draw_is_split_into_private_units_and_canaries_that_are_there():
    units, there = split_draw(DRAWS[0], units=UNITS, included=INCLUDED)
    assert (units.tolist(), there.tolist()) == ([0, 3], [0])


def test_image_canaries_are_drawn_as_the_images_that_they_are():
    trainer: Any = SimpleNamespace()
    loop = ImageCanaryLoop(trainer, units=UNITS, included=INCLUDED)
    assert lists(loop.draws(first_step=1)) == [[0, 3, 4], [], [], [1, 2, 4, 6]]


def test_gradient_canaries_are_the_last_part_of_their_step(monkeypatch: pytest.MonkeyPatch):
    def load_ahead(self: StepLoop, *, first_step: int) -> Any:
        draws = self.draws(first_step=first_step)
        images = iter([{"units": list(draw)}] if len(draw) else [] for draw in draws)
        return SimpleNamespace(next_step=lambda: iter(next(images)))

    monkeypatch.setattr(StepLoop, "load_ahead", load_ahead)
    trainer: Any = SimpleNamespace()
    canaries: Any = SimpleNamespace(included=INCLUDED)
    watch: Any = SimpleNamespace()
    loop = GradientCanaryLoop(trainer, units=UNITS, canaries=canaries, watch=watch)
    parts = loop.load_ahead(first_step=1)
    seen = [[(k, np.asarray(v).tolist()) for p in parts.next_step() for k, v in p.items()]
            for _ in DRAWS]  # fmt: skip
    assert seen == [
        [("units", [0, 3]), ("canaries", [0])],
        [],
        [],
        [("units", [1, 2]), ("canaries", [0, 2])],
    ]
