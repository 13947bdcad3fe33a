"""How far rounding takes a unit's gradient when others are beside it."""

from __future__ import annotations

import torch

from discreet.checking.bench import Bench
from discreet.checking.freezing import Snapshot, exact_arithmetic, without_dropout
from discreet.checking.held import relative
from discreet.checking.passes import plain
from discreet.checking.subject import Subject

# Kernels may be chosen by how many there are: alone, a pair, an odd number, a usual part.
_SIZES = (1, 2, 3, 16)


def change_by_company(subject: Subject) -> float:
    """Largest relative change of one unit's gradient with the number of others, as the run rounds.

    Single precision stays below 1e-5. In bfloat16, what is rounded the other way at one layer may
    be percents of a gradient; if it depends on how many units are drawn, then the sum of clipped
    gradients can change by more than one of them.

    Args:
        subject: The step; the model is left as it was.
    """
    snapshot = Snapshot(subject.model, subject.optimizer, subject.holders)
    try:
        with exact_arithmetic(), without_dropout(subject.model):
            bench, units = Bench(subject, snapshot), subject.units
            first = [
                bench.crowd(
                    plain([units[i % len(units)] for i in range(size)]), torch.eye(size)[0]
                ).mixed
                for size in _SIZES
            ]
    finally:
        snapshot.restore()
    return max(relative(one, first[-1]) for one in first)
