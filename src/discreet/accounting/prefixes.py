"""ε along the way."""

from __future__ import annotations

import math
from collections.abc import Sequence

from discreet.accounting.accountant import Accountant
from discreet.accounting.events import Event


def epsilon_per_prefix(
    prefixes: Sequence[Sequence[Event]], *, delta: float, accountant: Accountant
) -> tuple[float, ...]:
    """ε after each of several beginnings of one plan, cheaply: for displays and tables.

    Every value is an upper bound. The last one is exactly what `accountant` says of the last
    prefix; the others may be about 1 % looser. A longer prefix never has a smaller ε.

    Args:
        prefixes: What had run at each point, shortest first: each is the one before with more
            steps of its last event, more events, or both.
        delta: δ of the guarantee.
        accountant: Computes ε.

    Returns:
        One ε per prefix.
    """
    if not prefixes:
        return ()
    quick = accountant.coarse()
    known: dict[tuple[Event, ...], float] = {}
    # Shortest first: what a prefix shares with the one before is not composed again.
    for prefix in prefixes[:-1]:
        if (key := tuple(prefix)) not in known:
            known[key] = quick.epsilon(key, delta=delta)
    spent = [known[tuple(prefix)] for prefix in prefixes[:-1]]
    spent.append(accountant.epsilon(prefixes[-1], delta=delta))
    # What more steps do not exceed, fewer do not either.
    ceiling = math.inf
    for i in reversed(range(len(spent))):
        ceiling = spent[i] = min(ceiling, spent[i])
    return tuple(spent)


def epsilon_per_step_count(
    event: Event,
    step_counts: Sequence[int],
    *,
    delta: float,
    accountant: Accountant,
    before: Sequence[Event] = (),
) -> tuple[float, ...]:
    """ε after each of several numbers of steps of one event, cheaply: for a progress display.

    Every value is an upper bound. The one of the largest count is exactly what `accountant` says
    of it; the others may be about 1 % looser. More steps never have a smaller ε.

    Args:
        event: The mechanism; its own `steps` are not looked at.
        step_counts: Numbers of steps, each at least 0, in any order.
        delta: δ of the guarantee.
        accountant: Computes ε.
        before: Events that ran before the first step.

    Returns:
        One ε per entry of `step_counts`.
    """
    counts = sorted(set(step_counts))
    prefixes = [[*before, event.with_steps(steps)] for steps in counts]
    spent = epsilon_per_prefix(prefixes, delta=delta, accountant=accountant)
    known = dict(zip(counts, spent, strict=True))
    return tuple(known[steps] for steps in step_counts)
