"""Choose the fastest of several ways to the same result, by measuring once."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# A first run pays for compiling kernels; one slower than this many best times is not run again.
HOPELESS = 1.5
REPEATS = 2

# From input, output gradient and memory for the result, if there is any: name to computation.
Make = Callable[[Tensor, Tensor, Tensor | None], Mapping[str, Callable[[], Any]]]


@dataclass(frozen=True, kw_only=True)
class _Pending:
    """What is to be measured: candidates, the shapes and strides they get, work that follows."""

    make: Make
    like: tuple[tuple[torch.Size, tuple[int, ...], torch.dtype], ...]
    finish: Callable[[Any], object]


class Selection:
    """Remembers, per key, which candidate was fastest; one per engine.

    Measuring waits for the next pass, when this one's memory is free, and takes other numbers
    in place of its own: neither peak memory nor private images have a part in it.

    Args:
        benchmark: Measure each key once; otherwise always take the first candidate, so that the
            choice, and with it the last bits of the result, is the same in every run.
        device: Where the candidates run.
    """

    def __init__(self, *, benchmark: bool, device: torch.device) -> None:
        self._benchmark = benchmark
        self._device = device
        self._pending: dict[Hashable, _Pending] = {}
        self.chosen: dict[Hashable, str] = {}

    def run(
        self,
        key: Hashable,
        make: Make,
        x: Tensor,
        grad: Tensor,
        into: Tensor | None,
        finish: Callable[[Any], object],
    ) -> Any:
        """Result of the fastest candidate; of the first as long as nothing was measured.

        Args:
            key: What the speed depends on: kind of layer, shapes, dtype.
            make: Gives the candidates; all have the same result.
            x: Input of the layer.
            grad: Gradient of its output.
            into: Memory for the result.
            finish: Work that will follow on the result, measured with it.
        """
        candidates = make(x, grad, into)
        if key in self.chosen:
            return candidates[self.chosen[key]]()
        first = next(iter(candidates))
        if self._benchmark and len(candidates) > 1:
            like = tuple((t.shape, t.stride(), t.dtype) for t in (x, grad))
            self._pending[key] = _Pending(make=make, like=like, finish=finish)
        else:
            self.chosen[key] = first
        return candidates[first]()

    def measure(self) -> None:
        """Choose for every key that was met since the last time."""
        for key, pending in self._pending.items():
            x, grad = (
                torch.empty_strided(shape, stride, dtype=dtype, device=self._device).fill_(0.5)
                for shape, stride, dtype in pending.like
            )
            self.chosen[key] = self._fastest(pending.make(x, grad, None), pending.finish)
        self._pending = {}

    def _fastest(
        self, candidates: Mapping[str, Callable[[], Any]], finish: Callable[[Any], object]
    ) -> str:
        best, best_time = "", float("inf")
        for name, compute in candidates.items():
            if self._seconds(compute, finish) > HOPELESS * best_time:
                continue
            elapsed = min(self._seconds(compute, finish) for _ in range(REPEATS))
            if elapsed < best_time:
                best, best_time = name, elapsed
        return best

    def _seconds(self, compute: Callable[[], Any], finish: Callable[[Any], object]) -> float:
        self._wait()
        start = time.perf_counter()
        finish(compute())
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def alike(x: Tensor) -> tuple[int, ...]:
    """Inputs that share one measurement: (bucket of B, *shape)."""
    return bucket(len(x)), *x.shape[1:]


def bucket(images: int) -> int:
    """Batch sizes that share one measurement: the next power of two."""
    return 1 << (images - 1).bit_length() if images > 1 else images
