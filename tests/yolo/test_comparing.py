"""A comparison's twin follows the recipe of its private runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from discreet.comparing import Measured
from discreet.errors import ConfigurationError
from discreet.recipes import rules
from discreet.terminal import SilentReporter
from discreet.yolo import comparing, inputs

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


def begin(scenes: Path, tmp_path: Path, *epsilons: float, **more: Any) -> Path:
    asked = {
        "data": str(scenes), "model": WEIGHTS, "imgsz": 64, "val_data": "public", "delta": 0.01,
        "project": str(tmp_path), "lr0": 0.07,
    }  # fmt: skip
    silent = SilentReporter()
    return comparing.compare_runs(
        asked, epsilons=epsilons, stock_epochs=1, reporter=silent, **more
    )[1]


# Of 24 images, so many make features learn: between the two ε, or above both and below the usual 8.
@pytest.mark.parametrize(
    ("plenty", "trainable"), [(10, "film+classes"), (100, "class_film+classes")]
)
def test_the_twin_takes_the_recipe_of_the_largest_epsilon(
    scenes: Path,
    tmp_path: Path,
    jobs: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    plenty: int,
    trainable: str,
) -> None:
    monkeypatch.setattr(rules, "_PLENTY", plenty)
    begin(scenes, tmp_path, 0.8, 0.2, 0.8)
    stock, twin, *private = (job.arguments for job in jobs)
    assert [given["epsilon"] for given in private] == [0.8, 0.2]
    assert all("trainable" not in given and given["lr0"] == 0.07 for given in private)
    assert "noise_multiplier" not in stock
    assert (twin["noise_multiplier"], twin["clipping"], twin["lr0"]) == (0, "flat", 0.07)
    assert twin["trainable"] == trainable


def test_data_and_model_are_read_once_for_all_epsilons(
    scenes: Path, tmp_path: Path, jobs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = list[Any]()
    own = inputs.read_dataset

    def reading(*args: Any, **kwargs: Any) -> Any:
        read.append(args)
        return own(*args, **kwargs)

    monkeypatch.setattr(inputs, "read_dataset", reading)
    begin(scenes, tmp_path, 0.2, 0.4, 0.8)
    assert len(jobs) == 5
    assert len(read) == 1


def test_an_epsilon_that_cannot_be_is_found_before_stock_training(
    scenes: Path, tmp_path: Path, jobs: list[Any]
) -> None:
    with pytest.raises(ConfigurationError, match="epsilon"):
        begin(scenes, tmp_path, 8.0, -1.0)
    assert not jobs


def test_a_comparison_goes_on_with_the_twin_that_it_has(
    scenes: Path, tmp_path: Path, jobs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "_PLENTY", 10)
    folder = begin(scenes, tmp_path, 0.2)
    begin(scenes, tmp_path, 0.2, 0.3, resume=folder)  # of the same recipe
    assert [job.contestant.kind for job in jobs] == ["stock", "twin", "private", "private"]
    with pytest.raises(ConfigurationError, match="other arguments"):
        begin(scenes, tmp_path, 0.8, resume=folder)
