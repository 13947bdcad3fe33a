"""Probes of the noise and of what divides it, seen where the optimizer sees them.

The gradient that a step hands to the optimizer is (S + Z) / B: S the clipped sum, Z noise of
standard deviation σ · C on every entry, B the expected batch size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from scipy import stats
from torch import Tensor

from discreet.checking.bench import Bench
from discreet.checking.held import relative
from discreet.checking.passes import plain
from discreet.checking.report import Finding
from discreet.checking.witness import Update

# Probability that noise of the right scale is refused, over all parameters of one check.
FALSE_ALARM = 1e-9
_ALIKE = 0.01  # below this probability the remaining parameters share the mistake
SAME_NOISE = 1e-4
NORMALISER = 1e-3
_SEED = 1
_LEAST_SAMPLES = 100  # of every parameter, in a full check, if that takes few steps
_MOST_STEPS = 12


def noise(bench: Bench, *, full: bool) -> Finding:
    """Noise on every parameter, also those that the batch did not touch: its scale."""
    subject = bench.subject
    compared = "what a step adds to the clipped sum with noise of σ · C, parameter by parameter"
    if subject.noise_multiplier == 0:
        return Finding(
            probe="noise", compared=compared, verdict="not run", what="the run asks for no noise"
        )
    one = plain(subject.units[:1])
    sums, sigma = bench.stepped(one, (0,)).sums, subject.noise_multiplier * subject.max_grad_norm
    entries = {name: p.numel() for name, p in subject.parameters.items()}
    steps = min(_MOST_STEPS, math.ceil(_LEAST_SAMPLES / min(entries.values()))) if full else 1
    squares = dict.fromkeys(entries, 0.0)
    repeated = False
    last: dict[str, Tensor] = {}
    for _ in range(steps + 1 if steps == 1 else steps):
        residual = _residual(bench.step(one, [[0]]), sums, subject.expected_batch_size)
        for name, value in residual.items():
            squares[name] += float((value / sigma).pow(2).sum())
        repeated |= any(
            bool(value.any()) and torch.equal(value, last[name])
            for name, value in residual.items()
            if last
        )
        last = residual
    count = max(steps, 2)
    return _judged(squares, {n: count * size for n, size in entries.items()}, repeated, compared)


def _residual(update: Update, sums: Mapping[str, Tensor], batch: float) -> dict[str, Tensor]:
    missing = {name for name, grad in update.gradients.items() if grad is None}
    return {
        name: torch.zeros_like(value).double()
        if name in missing or name not in update.gradients
        else _given(update, name).double() * batch - value.double()
        for name, value in sums.items()
    }


def _given(update: Update, name: str) -> Tensor:
    grad = update.gradients[name]
    assert grad is not None
    return grad


def _judged(
    squares: Mapping[str, float], entries: Mapping[str, int], repeated: bool, compared: str
) -> Finding:
    """Judge sums of squares, which are χ² with as many degrees of freedom as entries.

    Args:
        squares: Sum of (noise / σC)² per parameter.
        entries: How many terms it has.
        repeated: Whether two steps had the same noise.
        compared: For the finding.
    """
    each = FALSE_ALARM / (len(squares) + 1)
    wrong = tuple(n for n in squares if not _plausible(squares[n], entries[n], each))
    silent = tuple(n for n in squares if squares[n] < 1e-6 * entries[n])
    total, count = sum(squares.values()), sum(entries.values())
    deviation = abs(math.sqrt(total / count) - 1)
    limit = math.sqrt(float(stats.chi2.isf(each / 2, count)) / count) - 1
    finding = Finding(
        probe="noise", compared=compared, verdict="passed", deviation=deviation, limit=limit
    )
    if repeated:
        what = "two steps got the same noise: whoever sees both can subtract it"
    elif silent:
        what = "gets no noise"
        wrong = silent
    elif wrong or not _plausible(total, count, each):
        ratio = math.sqrt(total / count)
        what = f"the noise is {ratio:.2g} times as large as σ · C"
        rest = [n for n in squares if n not in wrong]
        spent, size = sum(squares[n] for n in rest), sum(entries[n] for n in rest)
        if not wrong or not rest or not _plausible(spent, size, _ALIKE):
            wrong = ("the mechanism",)
    else:
        return finding
    do = "add noise of σ · sensitivity once to every entry of the sum, zeros included"
    return replace(finding, verdict="failed", where=wrong, what=what, do=do)


def _plausible(total: float, count: int, alarm: float) -> bool:
    low, high = stats.chi2.cdf(total, count), stats.chi2.sf(total, count)
    return min(float(low), float(high)) > alarm / 2


def once(bench: Bench, *, full: bool) -> Finding:
    """The same draw in one part and in several: noise belongs to the step, not to the part."""
    del full
    subject = bench.subject
    units = plain(subject.units[:2])
    whole = bench.step(units, [[0, 1]], seed=_SEED)
    parts = bench.step(units, [[0], [1]], seed=_SEED)
    scale = subject.max_grad_norm * (1 + subject.noise_multiplier) / subject.expected_batch_size
    moved = max((_rms(a, b) for a, b in _matched(whole, parts)), default=float("inf")) / scale
    return _told(
        Finding(
            probe="once",
            compared="a step in one part with the same step in several parts",
            verdict="passed",
            deviation=moved,
            limit=SAME_NOISE,
        ),
        ("the step",),
        "a step's update depends on how its units are split into micro-batches",
        "clip per unit, sum over all micro-batches, then add noise once",
    )


def normaliser(bench: Bench, *, full: bool) -> Finding:
    """The update for a known sum, for draws of several sizes."""
    del full
    subject = bench.subject
    units = plain(subject.units[:2])
    empty = bench.step((), [], seed=_SEED)
    worst = 0.0
    for positions in ([0], [0, 1]):
        drawn = bench.step(units, [positions], seed=_SEED)
        expected = _flat(list(bench.stepped(units, positions).sums.values()))
        if not all(_whole(update) for update in (empty, drawn)):
            continue  # the probe of empty draws tells of it
        pairs = _matched(drawn, empty)
        moved = _flat([a.double() - b.double() for a, b in pairs]) * subject.expected_batch_size
        rounding = _rounding(bench, drawn, empty)
        rounded = (moved - expected).abs() <= rounding
        worst = max(worst, relative(torch.where(rounded, expected.double(), moved), expected))
    return _told(
        Finding(
            probe="normaliser",
            compared="the update for a known sum, with none, one and several units drawn",
            verdict="passed",
            deviation=worst,
            limit=NORMALISER,
        ),
        ("the step",),
        "the update is not the noised sum of clipped gradients over the expected batch size",
        "clip each unit's gradient, and divide the noised sum by the expected batch size, a public "
        "constant, never by the drawn",
    )


def _rounding(bench: Bench, one: Update, other: Update) -> Tensor:
    """How far rounding may move each entry of the difference of two noised sums.

    A noised sum is rounded to float32, divided, and rounded to the parameter's own type.
    """
    allowed: list[Tensor] = []
    for name, parameter in bench.subject.parameters.items():
        sizes = _given(one, name).double().abs() + _given(other, name).double().abs()
        relative_error = 2 * torch.finfo(torch.float32).eps + torch.finfo(parameter.dtype).eps
        allowed.append(sizes * relative_error * bench.subject.expected_batch_size)
    return _flat(allowed)


def empty_draw(bench: Bench, *, full: bool) -> Finding:
    """A step without units: a step of pure noise like any other, one update."""
    del full
    update = bench.step((), [], seed=_SEED)
    ordinary = bench.step(plain(bench.subject.units[:2]), [[0]], seed=_SEED)
    finding = Finding(
        probe="empty draw",
        compared="updates of a step without units, and of one with a unit",
        verdict="passed",
    )
    seen = [grad for grad in update.gradients.values() if grad is not None]
    noised = bench.subject.noise_multiplier == 0 or any(bool(grad.any()) for grad in seen)
    if update.calls == ordinary.calls == 1 and _whole(update) and noised:
        return finding
    if ordinary.calls != 1:
        what = f"a step calls the optimizer {ordinary.calls} times"
    else:
        what = "a step without units is skipped: that no unit was drawn can be seen"
    do = "run every step to its end: noise, charge, one update"
    return replace(finding, verdict="failed", where=("the step",), what=what, do=do)


def charge(bench: Bench, *, full: bool) -> Finding:
    """The charge of a step: one, whatever was drawn, and no update without it."""
    del full
    units = plain(bench.subject.units[:2])
    updates = [bench.step(units, parts, seed=_SEED) for parts in ([], [[0]], [[0], [1]])]
    finding = Finding(
        probe="charge",
        compared="charges of a step with one, and its update where the charge is refused",
        verdict="passed",
    )
    counts = sorted({update.charges for update in updates})
    if counts != [1]:
        what = f"a step is charged {' or '.join(map(str, counts))} times"
    elif bench.refused_step(units):
        what = "a step whose charge is refused moves the weights"
    else:
        return finding
    do = "charge each step once, empty ones too, before its update"
    return replace(finding, verdict="failed", where=("the step",), what=what, do=do)


def non_finite(bench: Bench, *, full: bool) -> Finding:
    """A unit whose gradient is not finite: the step goes on as if it had not been drawn."""
    del full
    units = plain(bench.subject.units[:2])
    without = bench.step(units, [[0]], seed=_SEED)
    update = bench.step(units, [[0, 1, 1]], seed=_SEED, spoilt=(1.0, math.nan, math.inf))
    moved = [relative(a, b) for a, b in _matched(update, without)]
    worst = max(moved, default=math.inf) if update.calls == without.calls else math.inf
    return _told(
        Finding(
            probe="non-finite",
            compared="the update with a unit whose gradient is not finite, and without it",
            verdict="passed",
            deviation=worst,
            limit=SAME_NOISE,
        ),
        ("the step",),
        "a unit whose gradient is not finite reaches the sum, or stops the step",
        "let it contribute zero, and run the step to its end; no loss scaling that skips steps",
    )


def _told(finding: Finding, where: tuple[str, ...], what: str, do: str) -> Finding:
    assert finding.deviation is not None and finding.limit is not None
    if finding.deviation <= finding.limit:
        return finding
    return replace(finding, verdict="failed", where=where, what=what, do=do)


def _whole(update: Update) -> bool:
    """Whether the optimizer was called, with a gradient of every parameter."""
    return bool(update.gradients) and all(g is not None for g in update.gradients.values())


def _matched(one: Update, other: Update) -> list[tuple[Tensor, Tensor]]:
    pairs = [(one.gradients.get(name), other.gradients.get(name)) for name in one.gradients]
    return [(a, b) for a, b in pairs if a is not None and b is not None]


def _rms(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).pow(2).mean().sqrt())


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])
