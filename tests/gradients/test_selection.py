from __future__ import annotations

import time
from collections.abc import Callable

import torch

from discreet.gradients.selection import Selection, bucket

NOTHING = id  # no work follows
X, GRAD = torch.zeros(2, 3, 4, 4).contiguous(memory_format=torch.channels_last), torch.ones(2, 5)


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

    def run() -> float:
        return selection.run("layer", lambda *_: candidates, X, GRAD, None, NOTHING)

    assert run() == 0.004  # nothing is known yet
    selection.measure()
    assert selection.chosen == {"layer": "fast"}
    assert calls.count(0.1) == 1
    calls.clear()
    assert run() == 0.0
    selection.measure()
    assert calls == [0.0]


def test_measuring_sees_neither_the_numbers_nor_the_memory_of_the_pass() -> None:
    selection = Selection(benchmark=True, device=torch.device("cpu"))
    seen: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]] = []

    def make(
        x: torch.Tensor, grad: torch.Tensor, into: torch.Tensor | None
    ) -> dict[str, Callable[[], None]]:
        seen.append((x, grad, into))
        return {"one": lambda: None, "other": lambda: None}

    selection.run("layer", make, X, GRAD, torch.empty(2, 9), NOTHING)
    selection.measure()
    (x, grad, into), (other_x, other_grad, nowhere) = seen
    assert x is X
    assert grad is GRAD
    assert into is not None
    assert nowhere is None
    assert other_x.stride() == X.stride()
    assert other_x.data_ptr() != X.data_ptr()
    assert (other_x != X).all()
    assert (other_grad != GRAD).all()


def test_work_that_follows_is_measured_too() -> None:
    selection = Selection(benchmark=True, device=torch.device("cpu"))
    candidates = {"quick": lambda: 0.02, "thorough": lambda: 0.0}
    selection.run("layer", lambda *_: candidates, X, GRAD, None, time.sleep)
    selection.measure()
    assert selection.chosen["layer"] == "thorough"


def test_without_measuring_the_first_is_taken() -> None:
    calls: list[float] = []
    selection = Selection(benchmark=False, device=torch.device("cpu"))
    candidates = {"first": lambda: sleeping(0.01, calls), "second": lambda: sleeping(0.0, calls)}
    for _ in range(2):
        assert selection.run("layer", lambda *_: candidates, X, GRAD, None, NOTHING) == 0.01
        selection.measure()
    assert calls == [0.01, 0.01]


def test_batch_sizes_share_measurements() -> None:
    assert [bucket(images) for images in (0, 1, 2, 3, 4, 5, 8, 9)] == [0, 1, 2, 4, 4, 8, 8, 16]
