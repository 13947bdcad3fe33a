"""Choose the fastest of several ways to the same result, by measuring once."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import torch

Result = TypeVar("Result")

# A first run pays for compiling kernels; one slower than this many best times is not run again.
HOPELESS = 3
REPEATS = 3


class Selection:
    """Remembers, per key, which candidate was fastest; one per engine.

    Args:
        benchmark: Measure each key once; otherwise always take the first candidate, so that the
            choice, and with it the last bits of the result, is the same in every run.
        device: Where the candidates run.
    """

    def __init__(self, *, benchmark: bool, device: torch.device) -> None:
        self._benchmark = benchmark
        self._device = device
        self.chosen: dict[Hashable, str] = {}

    def run(
        self,
        key: Hashable,
        candidates: Mapping[str, Callable[[], Result]],
        finish: Callable[[Result], object],
    ) -> Result:
        """Result of the fastest candidate.

        Args:
            key: What the speed depends on: kind of layer, shapes, dtype.
            candidates: Name to computation; all give the same result.
            finish: Work that will follow on the result, measured with it.
        """
        if key not in self.chosen:
            if self._benchmark and len(candidates) > 1:
                self.chosen[key] = self._fastest(candidates, finish)
            else:
                self.chosen[key] = next(iter(candidates))
        return candidates[self.chosen[key]]()

    def _fastest(
        self, candidates: Mapping[str, Callable[[], Result]], finish: Callable[[Result], object]
    ) -> str:
        best, best_time = "", float("inf")
        for name, compute in candidates.items():
            if self._seconds(compute, finish) > HOPELESS * best_time:
                continue
            elapsed = min(self._seconds(compute, finish) for _ in range(REPEATS))
            if elapsed < best_time:
                best, best_time = name, elapsed
        return best

    def _seconds(self, compute: Callable[[], Result], finish: Callable[[Result], object]) -> float:
        self._wait()
        start = time.perf_counter()
        finish(compute())
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def bucket(images: int) -> int:
    """Batch sizes that share one measurement: the next power of two."""
    return 1 << (images - 1).bit_length() if images > 1 else images
