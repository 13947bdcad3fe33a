"""Probes of norms, clipping and the declared sensitivity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from discreet.checking.bench import ROUNDINGS, Bench, plain
from discreet.checking.held import Held, relative
from discreet.checking.report import Finding
from discreet.errors import DiscreetError

# Norms are float32 sums; clipping leaves a margin of 2e-6 below C for what they fall short.
NORMS = 1e-4
OVER_BOUND = 1e-6
ROUNDING = 1e-4
_SMALL, _LARGE = 0.1, 100.0
_WRONG = 0.1  # nothing so large is rounding
# Norms that are rounded too coarsely fall short for some lengths and not for others.
_LENGTHS = tuple(10 * 2 ** (i / 16) for i in range(16))


def clips(bench: Bench, held: Held) -> dict[str, float]:
    """C of the run; one that clips every unit; one far above all norms, which hides nothing."""
    norms = [held.norm(i) for i in range(_count(held))]
    finite = [norm for norm in norms if 0 < norm < float("inf")]
    bounds = {"the run's C": bench.subject.max_grad_norm}
    if finite:
        bounds |= {"a small C": _SMALL * min(finite), "a large C": _LARGE * max(finite)}
    return bounds


def norms(bench: Bench, *, full: bool) -> Finding:
    """What the engine tells of its gradients, and what they are."""
    found = bench.gradients(plain(bench.subject.units[:2]))
    true = found.held.squared_norms
    total = torch.stack([value.double() for value in true.values()]).sum(0).sqrt()
    told = torch.stack([value.double() for value in found.norms.values()]).sum(0).sqrt()
    worst = _relative_each(told, total)
    mixed = found.held.weighted_sum(dict.fromkeys(true, found.weights))
    worst = max(worst, relative(_flat(found.mixed), _flat(mixed)))
    del full
    wrong = tuple(
        name
        for name in true
        if _relative_each(found.norms[name].double().sqrt(), true[name].double().sqrt()) > NORMS
    )
    finding = Finding(
        probe="norms",
        compared="the engine's norms and weighted sums with its own gradients",
        verdict="passed",
        deviation=worst,
        limit=NORMS,
    )
    if worst <= NORMS:
        return finding
    return replace(
        finding,
        verdict="failed",
        where=wrong,
        what="the engine's norms are not the norms of what it sums",
        do="compute norms in float32, over all uses of a shared parameter; or use engine=discreet",
    )


def engines(bench: Bench, *, full: bool) -> Finding:
    """The run's engine with all others, on the same batch, in full precision."""
    del full
    units = plain(bench.subject.units[:2])
    mine = bench.gradients(units, quiet=True).held
    worst, where, asked = 0.0, "", 0
    for name in bench.subject.engines:
        try:
            theirs = bench.other_engine(name, units)
        except DiscreetError:  # it does not know a layer: nothing to compare
            continue
        asked += 1
        moved = max(relative(mine.flat(i), theirs.flat(i)) for i in range(len(units)))
        if moved > worst:
            worst, where = moved, name
    compared = "each unit's gradient from the run's engine with that from the others"
    if not asked:
        return Finding(
            probe="engines", compared=compared, verdict="not run", what="no other engine serves"
        )
    # Other methods, other roundings; a wrong rule is wrong by far more.
    limit = min(max(bench.largest, ROUNDINGS * bench.rounding(units[0])), _WRONG)
    finding = Finding(
        probe="engines", compared=compared, verdict="passed", deviation=worst, limit=limit
    )
    if worst <= limit:
        return finding
    return replace(
        finding,
        verdict="failed",
        where=(f"engine {where}",),
        what="gives other gradients than the run's engine",
        do="use engine=reference, which is slow and plainly right, and report this",
    )


def sensitivity(bench: Bench, *, full: bool) -> Finding:
    """How far the clipped sum moves when one unit is added or removed."""
    del full
    units = plain(bench.subject.units[:2])
    together = bench.gradients(units).held
    worst, where = 0.0, ""
    for name, clip in clips(bench, together).items():
        summed = bench.clipped(units, (0, 1), clip)
        declared, whole = summed.sensitivity, _flat(summed.sums)
        for i in range(len(units)):
            rest = _flat(bench.clipped(units, _others(len(units), i), clip).sums)
            alone = _flat(bench.clipped(units, (i,), clip).sums)
            moved = max(float((whole - rest).double().norm()), float(alone.double().norm()))
            allowed = min(declared, clip)
            if bench.subject.clipping_of(clip).only_shrinks:
                allowed = min(allowed, together.norm(i) * (1 + ROUNDING))
            over = moved / allowed - 1 if allowed > 0 else moved
            over -= OVER_BOUND * float(whole.norm()) / clip  # two sums of rounded numbers
            if over > worst:
                worst, where = over, name
    over = _over_for_lengths(bench)
    if over > worst:
        worst, where = over, "some lengths of a gradient"
    return _bounded(
        Finding(
            probe="sensitivity",
            compared="the clipped sum, one unit added or removed, at the run's, a small and a "
            "large C",
            verdict="passed",
            deviation=worst,
            limit=OVER_BOUND,
        ),
        f"the clipped sum moves by more than the declared sensitivity, at {where}",
        "clip each unit's whole gradient to C; clipping per layer has sensitivity √layers · C",
    )


def _over_for_lengths(bench: Bench) -> float:
    """How far the run's clipping lets gradients of many lengths pass, all of them above C."""
    clip, generator = bench.subject.max_grad_norm, torch.Generator().manual_seed(4)
    names = bench.subject.parameters
    made = Held({name: torch.randn(len(_LENGTHS), 4, generator=generator) for name in names})
    made = made.times(*(clip * n / made.norm(i) for i, n in enumerate(_LENGTHS)))
    rule = bench.subject.clipping_of(clip)
    clipped = [rule.clip_and_sum(made.only(i)) for i in range(len(_LENGTHS))]
    return max(float(_flat(c.sums).double().norm()) / c.sensitivity - 1 for c in clipped)


def additivity(bench: Bench, *, full: bool) -> Finding:
    """The clipped sum of a batch, and the sum of its units' clipped gradients."""
    del full
    units = plain(bench.subject.units[:2])
    together = bench.gradients(units).held
    worst = 0.0
    for clip in clips(bench, together).values():
        whole = _flat(bench.clipped(units, (0, 1), clip).sums)
        parts = [_flat(bench.clipped(units, (i,), clip).sums) for i in range(len(units))]
        worst = max(worst, relative(whole, torch.stack(parts).sum(0)))
    return _bounded(
        Finding(
            probe="additivity",
            compared="the clipped sum of a batch with the sum of its units' clipped gradients",
            verdict="passed",
            deviation=worst,
            limit=ROUNDING,
        ),
        "a unit's part of the clipped sum depends on the units beside it",
        "clip each unit's gradient before the sum, not the sum or the mean",
    )


def _bounded(finding: Finding, what: str, do: str) -> Finding:
    assert finding.deviation is not None and finding.limit is not None
    if finding.deviation <= finding.limit:
        return finding
    return replace(finding, verdict="failed", where=("the clipping",), what=what, do=do)


def _count(held: Held) -> int:
    return len(next(iter(held.rows.values())))


def _others(count: int, i: int) -> list[int]:
    return [j for j in range(count) if j != i]


def _flat(tensors: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors.values()])


def _relative_each(a: Tensor, b: Tensor) -> float:
    finite = torch.isfinite(a) & torch.isfinite(b)
    if not torch.equal(torch.isfinite(a), torch.isfinite(b)):
        return float("inf")
    scale = torch.maximum(a, b).clamp_min(1e-30)
    return float(((a - b).abs() / scale)[finite].max()) if bool(finite.any()) else 0.0
