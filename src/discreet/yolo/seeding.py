"""Random numbers of augmentation: of one image in one step, whatever was drawn before."""

from __future__ import annotations

import random
from collections.abc import Generator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(*entropy: int) -> Generator[None]:
    """Lend the global generators a state, and take it back.

    Ultralytics' and torchvision's transforms draw from them.

    Args:
        *entropy: What the state follows from.
    """
    words = np.random.SeedSequence(entropy).generate_state(3)
    python, numpy_state, torch_state = (
        random.getstate(),
        np.random.get_state(),
        torch.get_rng_state(),
    )
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))
    torch.default_generator.manual_seed(int(words[2]))
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)
