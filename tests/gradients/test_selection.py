from __future__ import annotations

import time

import torch

from discreet.gradients.selection import Selection, bucket

NOTHING = id  # no work follows


def sleeping(seconds: float, calls: list[float]) -> float:
    calls.append(seconds)
    time.sleep(seconds)
    return seconds


def test_the_fastest_is_measured_once_and_kept() -> None:
    calls: list[float] = []
    candidates = {
        "slow": lambda: sleeping(0.004, calls),
        "hopeless": lambda: sleeping(0.1, calls),
        "fast": lambda: sleeping(0.0, calls),
    }
    selection = Selection(benchmark=True, device=torch.device("cpu"))
    assert selection.run("layer", candidates, NOTHING) == 0.0
    assert selection.chosen == {"layer": "fast"}
    assert calls.count(0.1) == 1
    calls.clear()
    selection.run("layer", candidates, NOTHING)
    assert calls == [0.0]


def test_work_that_follows_is_measured_too() -> None:
    selection = Selection(benchmark=True, device=torch.device("cpu"))
    candidates = {"quick": lambda: 0.02, "thorough": lambda: 0.0}
    assert selection.run("layer", candidates, time.sleep) == 0.0


def test_without_measuring_the_first_is_taken() -> None:
    calls: list[float] = []
    selection = Selection(benchmark=False, device=torch.device("cpu"))
    candidates = {"first": lambda: sleeping(0.01, calls), "second": lambda: sleeping(0.0, calls)}
    assert selection.run("layer", candidates, NOTHING) == 0.01
    assert calls == [0.01]


def test_batch_sizes_share_measurements() -> None:
    assert [bucket(images) for images in (0, 1, 2, 3, 4, 5, 8, 9)] == [0, 1, 2, 4, 4, 8, 8, 16]
