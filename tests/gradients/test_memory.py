from __future__ import annotations

import multiprocessing

import pytest
import torch
from torch import nn

from discreet.clipping import FlatClipping
from discreet.gradients import LayerwiseEngine
from discreet.step import sum_clipped
from tests.gradients.oracle import per_image_loss, trainable
from tests.gradients.rules.test_norms import randomise

MICRO_BATCHES = (8, 200)


def peaks() -> list[float]:
    """Peak memory in MiB after a small logical batch, then after a large one."""
    from benchmarks.machine import resident_peak

    torch.set_num_threads(1)
    model = randomise(
        nn.Sequential(
            nn.Conv2d(3, 64, 3, padding=1, bias=False),
            nn.BatchNorm2d(64),
            nn.SiLU(inplace=True),
            nn.Conv2d(64, 64, 3, stride=2),
            nn.SiLU(),
            nn.Conv2d(64, 128, 3, stride=4),
            nn.Flatten(),
            nn.Linear(128 * 16, 32),
        )
    ).eval()
    engine = LayerwiseEngine(model, trainable(model))
    found: list[float] = []
    for number in MICRO_BATCHES:
        sizes = (8 if i % 3 else 5 for i in range(number))
        sum_clipped(
            (torch.randn(size, 3, 32, 32) for size in sizes),
            parameters=trainable(model),
            gradients_of=lambda x: engine.per_example_gradients(lambda: per_image_loss(model, x)),
            clipping=FlatClipping(max_grad_norm=1.0),
        )
        found.append(resident_peak())
    return found


@pytest.mark.slow
def test_peak_memory_does_not_grow_with_the_logical_batch() -> None:
    # One image's gradients are 0.7 MiB: kept for 25 times as many, they would be a GiB.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        small, large = pool.apply(peaks)
    assert large < small * 1.03 + 4
