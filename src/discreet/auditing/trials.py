"""One step, many times, with one unit in or out: the audit of the step itself.

Slow tests of a guarantee become fast ones here: the worlds with and without the unit are fixed, so
the adversary knows where the two sums differ and looks there. What couples units (BatchNorm in
training mode, a loss normalised over the batch) moves the sum by more than one unit's share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from discreet.auditing.canaries import fair_coins
from discreet.auditing.scores import CanaryScores
from discreet.randomness import RandomSource

ADVERSARY = "sees the noised sum of one step, knows every unit; does not know whether one was there"


def step_trials(
    step: Callable[[bool], Mapping[str, Tensor]],
    *,
    known: Mapping[bool, Mapping[str, Tensor]],
    trials: int,
    source: RandomSource,
) -> CanaryScores:
    """Toss a coin, run the step with or without the unit, look at what it published; repeat.

    Trials are independent, so every bound of `bounds` holds, and each trial is a canary.

    Args:
        step: Runs the real step from the same state, with or without the unit; returns what it
            published, by parameter name.
        known: What the step would publish without noise, with the unit (True) and without (False).
        trials: How often.
        source: Tosses the coins.

    Returns:
        Scores that are 0 at the sum without the unit and 1 at the sum with it, if nothing but
        noise is between.
    """
    without = _flat(known[False])
    difference = _flat(known[True]) - without
    length = float(difference.square().sum().clamp_min(1e-300))
    coins = fair_coins(trials, source)
    scores = np.array(
        [float((_flat(step(bool(coin))) - without) @ difference) / length for coin in coins]
    )
    return CanaryScores(scores=scores, included=coins, centre=0.5)


def _flat(sums: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([sums[name].detach().double().flatten() for name in sorted(sums)])
