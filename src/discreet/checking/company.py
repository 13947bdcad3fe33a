"""How far rounding takes a unit's gradient when others are beside it."""

from __future__ import annotations

import torch
from torch import Tensor

from discreet.arithmetic import exact_arithmetic
from discreet.checking.bench import Bench
from discreet.checking.freezing import Snapshot, without_dropout
from discreet.checking.held import relative
from discreet.checking.passes import plain
from discreet.checking.subject import Subject

# How many there are, and which of them is looked at. Kernels may be chosen by how many: alone, a
# pair, an odd number, a usual part; and may round otherwise at the end of a batch.
_PLACES = ((1, 0), (2, 0), (2, 1), (3, 1), (16, 9), (16, 15))


def change_by_company(subject: Subject, *, most: int) -> float:
    """Largest relative change of one unit's gradient with the number of others, as the run rounds.

    Single precision stays below 1e-5. In bfloat16, what is rounded the other way at one layer may
    be percents of a gradient; if it depends on how many units are drawn, then the sum of clipped
    gradients can change by more than one of them.

    Args:
        subject: The step; the model is left as it was.
        most: Most units that run at once.
    """
    snapshot = Snapshot(subject.model, subject.optimizer, subject.holders)
    try:
        with exact_arithmetic(), without_dropout(subject.model):
            bench = Bench(subject, snapshot)
            found = [_of_first(bench, size, place) for size, place in _PLACES if size <= most]
    finally:
        snapshot.restore()
    return max(relative(one, found[0]) for one in found)


def _of_first(bench: Bench, size: int, place: int) -> Tensor:
    """Gradient of the first unit, at a place among others."""
    units = bench.subject.units
    others = [units[1 + i % (len(units) - 1)] for i in range(size)]
    others[place] = units[0]
    device = next(bench.subject.model.parameters()).device
    return bench.crowd(plain(others), torch.eye(size, device=device)[place]).mixed
