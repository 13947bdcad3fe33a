"""What is guaranteed, to whom, by whose account, and of what."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, JsonValue

from discreet.accounting import AccountantName, event_from_json
from discreet.errors import AccountingError
from discreet.privacy import GroupingName, NeighboringRelation, PrivacyUnit
from discreet.statement.part import (
    CountFromOne,
    Delta,
    NonNegative,
    Part,
    Words,
)

_MOST_EVENTS = 400
"""Entries of a list of events: each costs a verifier some hundredths of a second."""


def _known_event(event: dict[str, JsonValue]) -> dict[str, JsonValue]:
    try:
        event_from_json(event)
    except AccountingError as error:
        raise ValueError(error.what) from error
    return event


EventRecord = Annotated[dict[str, JsonValue], AfterValidator(_known_event)]
"""One event as `discreet.accounting.Event.to_json` writes it."""


Events = Annotated[tuple[EventRecord, ...], Field(max_length=_MOST_EVENTS)]


class Claim(Part):
    """The guarantee, in one place."""

    epsilon: NonNegative | None
    """ε over all charged steps; null where there is no bound."""
    delta: Delta
    """δ at which it holds."""
    reasons_against: tuple[Words, ...]
    """Why the run is not private; empty where it is."""


class AccountantFacts(Part):
    """Who computed ε."""

    name: AccountantName
    version: Words
    """Library and version."""


class Unit(Part):
    """Whose presence the guarantee hides."""

    kind: PrivacyUnit
    """What one record is."""
    grouping_key: GroupingName | None
    """How the images of one unit were found, by a file that names the group of each image, or by a
    pattern on their names, neither of which is published; null where each image is its own unit."""
    max_images_per_unit: CountFromOne | None
    """Images of one unit that a step looks at, at most, chosen at random and averaged before their
    gradient is clipped; null where a unit is one image."""
    neighboring_relation: NeighboringRelation
    """Which two data sets are hard to tell apart."""


class Adversary(Part):
    """Against whom the guarantee holds."""

    sees: tuple[str, ...]
    """What the adversary may know."""
    does_not_see: tuple[str, ...]
    """What the guarantee needs to stay hidden."""


class Outputs(Part):
    """What the guarantee speaks of."""

    covered: tuple[str, ...]
    """Outputs under the guarantee."""
    not_covered: tuple[str, ...]
    """What is published, or may be seen, without it."""
