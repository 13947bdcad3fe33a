"""A comparison's twin follows the recipe of its private runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from discreet.comparing import Measured
from discreet.recipes import rules
from discreet.terminal import SilentReporter
from discreet.yolo import comparing

from .test_recipe_runs import WEIGHTS


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What would be trained, in order."""
    made: list[Any] = []

    def measure(job: Any) -> Measured:
        made.append(job)
        return Measured(
            kind=job.contestant.kind, name=job.contestant.name, map50=0.5, map50_95=0.3,
            seconds_per_epoch=1.0, epochs=1.0, peak_mib=100.0,
        )  # fmt: skip

    monkeypatch.setattr(comparing, "_in_a_process", measure)
    return made


def test_the_twin_takes_the_recipe_of_the_largest_epsilon(
    scenes: Path,
    tmp_path: Path,
    jobs: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The recipe chooses by ε between the two, and without one as at the usual ε.
    monkeypatch.setattr(rules, "_PLENTY", 10)
    asked: dict[str, Any] = {
        "data": str(scenes), "model": WEIGHTS, "imgsz": 64, "val_data": "public",
        "project": str(tmp_path), "lr0": 0.07, "delta": 0.01,
    }  # fmt: skip
    comparing.compare_runs(asked, epsilons=(0.4, 0.2), stock_epochs=1, reporter=SilentReporter())
    stock, twin, *private = (job.arguments for job in jobs)
    assert [given["epsilon"] for given in private] == [0.4, 0.2]
    assert all(given.keys() == {*asked, "epsilon"} - {"project"} for given in private)
    assert stock == {k: v for k, v in asked.items() if k != "project"}
    assert (twin["noise_multiplier"], twin["clipping"], twin["lr0"]) == (0, "flat", 0.07)
    assert twin["trainable"] == "class_film+classes"
