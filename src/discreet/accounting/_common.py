"""What all accountants do with their events and with their answers."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Sequence

from dp_accounting.dp_event import DpEvent

from discreet.accounting._gaussian import GaussianTerm, gaussian_terms
from discreet.accounting.events import Event, ShuffledGaussian
from discreet.errors import AccountingError
from discreet.privacy import NeighboringRelation


def terms_of(events: Sequence[Event]) -> tuple[GaussianTerm, ...]:
    """The Gaussian steps that the events are made of.

    A shuffled event that follows another one in the middle of an epoch, because the noise changed
    there, is counted from that place: its steps may reach into one epoch more.

    Raises:
        AccountingError: If an event is not made of Gaussian steps.
    """
    described: list[DpEvent] = []
    per_epoch = position = 0
    for event in events:
        if isinstance(event, ShuffledGaussian) and event.steps > 0:
            position = position if event.steps_per_epoch == per_epoch else 0
            per_epoch = event.steps_per_epoch
            described.append(event.with_steps(position + event.steps).to_dp_event())
            position = (position + event.steps) % per_epoch
        else:
            described.append(event.to_dp_event())
    return gaussian_terms(described)


def plain_terms_of(events: Sequence[Event], *, accountant: str) -> tuple[GaussianTerm, ...]:
    """The same, for an accountant that knows no truncated samples.

    Raises:
        AccountingError: If an event is not made of Gaussian steps, or may be truncated.
    """
    terms = terms_of(events)
    if any(term.truncation is not None for term in terms):
        raise AccountingError(
            f"the {accountant} accountant has no bound for batches that are cut to a largest size",
            where="accountant",
            do="use accountant=pld, or sampling without a largest batch",
        )
    return terms


def refuse_replace_one(relation: NeighboringRelation, *, accountant: str) -> None:
    """Raise an AccountingError unless neighbours differ by one unit added or removed."""
    if relation is not NeighboringRelation.ADD_OR_REMOVE_ONE:
        raise AccountingError(
            f"the {accountant} accountant has no sound bound under {relation}",
            where="accountant",
            do="use accountant=pld",
        )


def checked(value: float) -> float:
    """The value, at least 0.

    Raises:
        AccountingError: If it is not a number.
    """
    if math.isnan(value):
        raise AccountingError(
            "the accounting did not come to a number",
            do="use another accountant, or less extreme settings",
        )
    return max(0.0, value)


def version_of(library: str) -> str:
    """Name and version of an installed library."""
    return f"{library} {importlib.metadata.version(library)}"
