"""The events of all runs on the most charged image, as a record lists them.

A verifier pays for each entry when it composes them anew. A ledger of very many runs is listed
with noise multipliers rounded down, so that equal ones join: ε can only rise.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any, cast

from discreet.accounting import Accountant, Event, epsilon_of_runs
from discreet.ledger import Spent

MOST_EVENTS = 200
"""Entries of the list; more are rounded until they are as few, where rounding can do it."""


def listed(total: Spent, own: Sequence[Event], accountant: Accountant) -> Spent:
    """The same with a list of events that is short enough to be composed by a stranger.

    Args:
        total: What was spent on the most charged image.
        own: This run's events, which stay as they are.
        accountant: Works out ε anew where the list was shortened.
    """
    if len(total.events) <= MOST_EVENTS:
        return total
    mine = {event.with_steps(0) for event in own}
    events = total.events
    for digits in (3, 2, 1):
        events = _joined(_rounded(event, digits, mine) for event in total.events)
        if len(events) <= MOST_EVENTS:
            break
    epsilon = epsilon_of_runs(events, delta=total.delta, accountant=accountant)
    return dataclasses.replace(total, events=events, epsilon=max(total.epsilon, epsilon))


def _rounded(event: Event, digits: int, mine: set[Event]) -> Event:
    noise = float(cast(Any, event).noise_multiplier)
    if event.with_steps(0) in mine or noise == 0:
        return event
    unit = 10.0 ** (math.floor(math.log10(noise)) + 1 - digits)
    lower = min(noise, math.floor(noise / unit) * unit)  # the product may be rounded up
    return cast(Any, dataclasses).replace(event, noise_multiplier=lower)


def _joined(events: Iterable[Event]) -> tuple[Event, ...]:
    steps: dict[Event, int] = {}
    for event in events:
        steps[event.with_steps(0)] = steps.get(event.with_steps(0), 0) + event.steps
    return tuple(event.with_steps(count) for event, count in steps.items())
