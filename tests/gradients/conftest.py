from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import register_random


class TorchRandom:
    """Lets hypothesis seed torch, so that an example fails again when it is run again."""

    seed = staticmethod(torch.manual_seed)
    getstate = staticmethod(torch.get_rng_state)
    setstate = staticmethod(torch.set_rng_state)


TORCH_RANDOM = TorchRandom()  # hypothesis keeps only a weak reference
register_random(TORCH_RANDOM)  # pyright: ignore[reportArgumentType]


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """One thread and one seed: the tests compare sums to rounding."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)
