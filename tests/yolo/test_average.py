"""A moving average of the noised weights: nothing else goes into it, and it is what is released."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from discreet.api import train
from discreet.statement.verify import verify_release
from discreet.terminal import SilentReporter
from discreet.yolo.optimizer import build_optimizer, keep_average, use_average

from .conftest import ARCHITECTURE, IMGSZ, counts

DECAY = 0.75


class Interrupted(SilentReporter):
    def step(self, done: int, epsilon: float | None = None) -> None:
        if done == 2:
            raise KeyboardInterrupt


def given(scenes: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "data": str(scenes), "model": ARCHITECTURE, "epsilon": 8, "batch": 8, "steps": 3,
        "imgsz": IMGSZ, "val": False, "norm": "frozen", "trainable": "head",
        "project": str(tmp_path / "runs"), "ema": DECAY,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["SGD", "Adam"])
@pytest.mark.parametrize("interrupted", [False, True])
def test_it_follows_the_weights_that_steps_leave(name: str, interrupted: bool):
    weight = nn.Parameter(torch.zeros(3))

    def make() -> torch.optim.Optimizer:
        made = build_optimizer(name, {"w": weight}, lr=0.1, momentum=0.9, weight_decay=0.0)
        keep_average(made, decay=DECAY)
        return made

    optimizer, expected = make(), None
    for step in range(4):
        if interrupted and step == 2:
            kept = copy.deepcopy(optimizer.state_dict())
            optimizer = make()
            optimizer.load_state_dict(kept)
        weight.grad = torch.tensor([1.0, -2.0, 0.5 * step])
        optimizer.step()
        seen = weight.detach().clone()
        expected = seen if expected is None else DECAY * expected + (1 - DECAY) * seen
    assert expected is not None and not torch.allclose(weight, expected)
    use_average(optimizer)
    assert torch.allclose(weight, expected)


def test_without_one_the_last_weights_stay():
    weight = nn.Parameter(torch.zeros(3))
    optimizer = build_optimizer("Adam", {"w": weight}, lr=0.1, momentum=0.9, weight_decay=0.0)
    weight.grad = torch.ones(3)
    optimizer.step()
    last = weight.detach().clone()
    use_average(optimizer)
    assert torch.equal(weight, last)


@pytest.mark.checked
@pytest.mark.parametrize("interrupted", [False, True])
def test_a_run_releases_it(scenes: Path, tmp_path: Path, interrupted: bool):
    if interrupted:
        with pytest.raises(KeyboardInterrupt):
            train(given(scenes, tmp_path), reporter=Interrupted())
        result = train({"resume": str(tmp_path / "runs" / "train")})
    else:
        result = train(given(scenes, tmp_path))
    assert counts(result) == (3, 3, 3)
    assert result.record.configuration["ema"] == DECAY
    found = verify_release(result.release)
    assert found.valid, found.faults
    kept = torch.load(result.internal / "checkpoint.pt", weights_only=True)
    averages = [state["average"].half() for state in kept["optimizer"]["state"].values()]
    released = torch.load(result.weights, weights_only=False)["model"].state_dict()
    for branch in ("cv2", "cv3"):
        name = f"model.22.{branch}.0.2.weight"
        mine, last = released[name], kept["model"][name].half()
        assert not torch.equal(mine, last)
        assert any(mine.shape == each.shape and torch.equal(mine, each) for each in averages)
