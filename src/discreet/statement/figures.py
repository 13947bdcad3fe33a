"""The numbers of a statement that follow from the events, the accountant and δ.

Whoever verifies a release works them out again with this module.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, cast

from discreet.accounting import Accountant, Event, gaussian_dp, group_epsilon, merge
from discreet.config import MechanismConfig, SamplingName
from discreet.errors import AccountingError
from discreet.privacy import NeighboringRelation
from discreet.statement.schema import (
    AttackBounds,
    DeltaAtEpsilon,
    EpsilonAtDelta,
    Figures,
    GaussianDp,
    GroupGuarantee,
    TruePositiveRate,
)

DELTAS = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
GROUP_SIZES = (2, 5, 10)
DELTA_FLOOR = 1e-9  # below this δ, nothing is claimed of μ
FALSE_POSITIVE_RATES = (0.001, 0.01, 0.1)
_PROFILE_POINTS = 8
_SAMPLINGS: tuple[SamplingName, ...] = ("poisson", "truncated_poisson", "shuffle")


def figures_of(
    mechanism: MechanismConfig,
    events: Sequence[Event],
    *,
    epsilon: float,
    before: Sequence[Event] = (),
) -> Figures:
    """All figures of a run.

    Args:
        mechanism: What was planned.
        events: What was charged.
        epsilon: ε of all these events at the mechanism's δ; may be infinite.
        before: What a private teacher had spent, which the run passes on.
    """
    accountant, delta = mechanism.make_accountant(), mechanism.delta
    shuffled = (*before, *unamplified(mechanism, events))
    events = (*before, *events)
    bounded = math.isfinite(epsilon)
    profile = profile_of(events, accountant, epsilon=epsilon) if bounded else ()
    return Figures(
        epsilon_at_delta=tuple(
            EpsilonAtDelta(
                delta=at,
                epsilon=_epsilon(events, accountant, delta=at) if bounded else None,
            )
            for at in DELTAS
        ),
        profile=profile,
        attack=attack_bounds(profile) if bounded else None,
        gaussian_dp=_gaussian_dp(events, accountant) if bounded else None,
        epsilon_without_amplification=_epsilon(shuffled, accountant, delta=delta),
        groups=tuple(
            GroupGuarantee(
                size=size,
                epsilon=_group_epsilon(events, accountant, size=size, delta=delta, one=epsilon),
            )
            for size in GROUP_SIZES
        ),
    )


def finite(epsilon: float) -> float | None:
    """None for an infinite ε, which JSON has no number for."""
    return None if math.isinf(epsilon) else epsilon


def profile_of(
    events: Sequence[Event], accountant: Accountant, *, epsilon: float
) -> tuple[DeltaAtEpsilon, ...]:
    """δ at eight steps from ε = 0 to the claim's ε."""
    points = [epsilon * i / _PROFILE_POINTS for i in range(_PROFILE_POINTS + 1)]
    return tuple(
        DeltaAtEpsilon(epsilon=point, delta=_delta(events, accountant, epsilon=point))
        for point in dict.fromkeys(points)
    )


def attack_bounds(profile: Sequence[DeltaAtEpsilon]) -> AttackBounds:
    """What (ε, δ) pairs that all hold leave to an attacker.

    δ at ε = 0 is the total variation distance, and so the most by which the rate of true
    positives can exceed that of false ones.

    Args:
        profile: Pairs that hold, ε = 0 among them.
    """
    advantage = min((point.delta for point in profile if point.epsilon == 0), default=1.0)
    return AttackBounds(
        balanced_accuracy=(1 + advantage) / 2,
        true_positive_rates=tuple(
            TruePositiveRate(false_positive_rate=rate, at_most=most_true_positives(profile, rate))
            for rate in FALSE_POSITIVE_RATES
        ),
    )


def most_true_positives(profile: Sequence[DeltaAtEpsilon], rate: float) -> float:
    """The trade-off curve: most true positives at a rate of false ones.

    Each pair of a profile bounds it (Kairouz et al. 2015, Theorem 2.1): TPR ≤ e^ε · FPR + δ, and
    TPR ≤ 1 − e^−ε (1 − δ − FPR).

    Args:
        profile: Pairs (ε, δ) that hold.
        rate: Rate of false positives, in [0, 1].
    """
    bounds = [1.0]
    for point in profile:
        growth = math.exp(min(point.epsilon, 700.0))
        bounds.append(growth * rate + point.delta)
        bounds.append(1 - (1 - point.delta - rate) / growth)
    return max(rate, min(bounds))


def unamplified(mechanism: MechanismConfig, events: Sequence[Event]) -> tuple[Event, ...]:
    """The events of the same run if its units had been dealt out once an epoch.

    Nobody has proven a useful bound for a shuffled loader that is better than counting each
    unit once an epoch, in a step that the adversary knows.
    """
    dealt = mechanism.model_copy(update={"sampling": "shuffle", "largest_batch": None})
    return dealt.planned_events(sum(event.steps for event in events))


def assumed_sampling(mechanism: MechanismConfig, events: Sequence[Event]) -> SamplingName | None:
    """Which sampling the events account for; None where it is none that is known.

    Args:
        mechanism: What was planned; the sampling that it names is tried first.
        events: What was charged.
    """
    steps = sum(event.steps for event in events)
    names: tuple[SamplingName, ...] = (mechanism.sampling, *_SAMPLINGS)
    for name in names:
        cap = mechanism.largest_batch if name == "truncated_poisson" else None
        if name == "truncated_poisson" and cap is None:
            continue
        update = {"sampling": name, "largest_batch": cap}
        if mechanism.model_copy(update=update).planned_events(steps) == tuple(events):
            return name
    return None


def _epsilon(events: Sequence[Event], accountant: Accountant, *, delta: float) -> float | None:
    """ε; None where there is no bound, or the accountant cannot say at this δ.

    These figures are worked out when the budget is spent already: one that cannot be had is left
    out, it does not keep the run from ending.
    """
    try:
        return finite(accountant.epsilon(events, delta=delta))
    except AccountingError:
        return None


def _delta(events: Sequence[Event], accountant: Accountant, *, epsilon: float) -> float:
    try:
        return min(1.0, accountant.delta(events, epsilon=epsilon))
    except AccountingError:
        return 1.0


def _gaussian_dp(events: Sequence[Event], accountant: Accountant) -> GaussianDp | None:
    try:
        found = gaussian_dp(events, delta_floor=DELTA_FLOOR, relation=accountant.relation)
    except AccountingError:
        return None
    if not math.isfinite(found.mu):
        return None
    return GaussianDp(mu=found.mu, delta_floor=DELTA_FLOOR, regret=found.regret)


def _group_epsilon(
    events: Sequence[Event], accountant: Accountant, *, size: int, delta: float, one: float
) -> float | None:
    # Replacing k units is removing k and adding k.
    replaced = accountant.relation is NeighboringRelation.REPLACE_ONE
    changed = 2 * size if replaced else size
    try:
        epsilon = group_epsilon(_in_two_levels(events), size=changed, delta=delta)
    except AccountingError:
        return None
    return finite(max(one, epsilon))  # of a looser accountant, one unit's ε may be the larger


def _in_two_levels(events: Sequence[Event]) -> tuple[Event, ...]:
    """The events with two noise multipliers at most, none above its own: ε can only rise.

    Each noise multiplier of a schedule costs seconds for each size of a group, and there may be
    a dozen of them.
    """
    levels = sorted({_noise(event) for event in events})
    if len(levels) <= 2 or levels[0] == 0:
        return tuple(events)
    middle = next(level for level in levels if level >= math.sqrt(levels[0] * levels[-1]))
    return merge(
        cast(Any, dataclasses).replace(
            event, noise_multiplier=middle if _noise(event) >= middle else levels[0]
        )
        for event in events
    )


def _noise(event: Event) -> float:
    return float(cast(Any, event).noise_multiplier)
