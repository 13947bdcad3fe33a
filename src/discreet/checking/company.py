"""How far rounding takes a unit's gradient when others are beside it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from discreet.arithmetic import exact_arithmetic
from discreet.checking.bench import Bench
from discreet.checking.freezing import Snapshot, without_dropout
from discreet.checking.passes import plain
from discreet.checking.subject import Subject


def change_by_company(subject: Subject, *, sizes: Sequence[int]) -> float:
    """Largest change of a norm of a unit's gradient with which others are beside it, and where.

    As the run rounds, and as a share of the whole gradient. In bfloat16, kernels that add up in
    another order decide otherwise at a few numbers of a layer, and a gradient may change by
    percents; if that depends on who else is drawn, then the sum of clipped gradients can change by
    more than one of them. One unit may meet no such number: all of the subject's are looked at, at
    two places of a batch of each size, by the norm of each tensor's gradient, which is the same to
    the last bits where nothing was decided otherwise.

    Args:
        subject: The step, with the units to look at; the model is left as it was.
        sizes: How many units run at once: what a step's parts may have.
    """
    snapshot = Snapshot(subject.model, subject.optimizer, subject.holders)
    try:
        with exact_arithmetic(), without_dropout(subject.model):
            bench = Bench(subject, snapshot)
            first = _norms(bench, sizes[0], shift=0)
            others = [_norms(bench, size, shift=_elsewhere(size)) for size in sizes]
    finally:
        snapshot.restore()
    return max(_change(first, other) for other in others)


def _elsewhere(size: int) -> int:
    """By how many places units move on: about half a batch, to even places from odd ones.

    Never by a whole batch, which would have all of them where they were, beside the same.
    """
    return size // 2 | 1


def _change(one: Tensor, other: Tensor) -> float:
    if not torch.equal(one.isfinite(), other.isfinite()):
        return float("inf")
    length = one.square().sum(1, keepdim=True).sqrt()
    return float(((other - one).abs() / length).nan_to_num(0.0).max())  # 0/0 of no gradient at all


def _norms(bench: Bench, size: int, *, shift: int) -> Tensor:
    """Norms of every unit's gradient, (units, tensors), of so many at once.

    Args:
        bench: The subject.
        size: How many units run at once.
        shift: How many units later the first batch begins: each is at another place then.
    """
    units = bench.subject.units
    order = [(shift + i) % len(units) for i in range(len(units))]
    found: list[Tensor] = []
    for start in range(0, len(units), size):
        numbers = [units[i] for i in order[start : start + size]]
        with bench.calm():
            gradients = bench.subject.gradients_of(bench.subject.batch_of(plain(numbers)))
            squares = [norm.double() for norm in gradients.squared_norms.values()]
        found.append(torch.stack(squares, 1).sqrt().cpu())
    norms = torch.cat(found)
    return norms[torch.tensor(order).argsort()]
