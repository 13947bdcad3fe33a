"""What a teacher brings into a claim, and whether a record tells it without contradiction."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from discreet.accounting import Event, event_from_json, make_accountant
from discreet.errors import AccountingError
from discreet.statement.schema import PrivacyRecord, Teacher, TeacherClaim


def spent_by(teacher: Teacher | None) -> tuple[Event, ...]:
    """What a private teacher had spent before it taught; nothing for a public one."""
    if teacher is None or teacher.claim is None:
        return ()
    return tuple(event_from_json(event).ended() for event in teacher.claim.events)


def own_events(record: PrivacyRecord) -> tuple[Event, ...]:
    """The events of the run on record."""
    return tuple(event_from_json(event) for event in record.events)


def events_before(record: PrivacyRecord) -> tuple[Event, ...]:
    """What counts in the claim beside the record's own events.

    Where a teacher only labelled public images, its claim is the record's, and the events are its
    own already; whatever its own teacher had spent comes before them.
    """
    spent = spent_by(record.teacher)
    if record.teacher is None or record.teacher.guides == "loss":
        return spent
    own = tuple(event.ended() for event in own_events(record))
    return spent[: -len(own)] if own and spent[-len(own) :] == own else spent


def claimed_events(record: PrivacyRecord) -> tuple[Event, ...]:
    """All events that the record's ε follows from."""
    return (*events_before(record), *own_events(record))


def are_among(own: Sequence[Event], everybodys: Sequence[Event]) -> bool:
    """Whether each mechanism ran at least as often in all runs as in some of them."""
    steps: Counter[Event] = Counter()
    for event in everybodys:
        steps[event.with_steps(0)] += event.steps
    for event in own:
        steps[event.with_steps(0)] -= event.steps
    return all(left >= 0 for left in steps.values())


def teacher_faults(record: PrivacyRecord) -> Iterator[str]:
    """What of a record's teacher contradicts the record."""
    teacher = record.teacher
    if teacher is None or teacher.claim is None:
        return
    if teacher.claim.unit.model_dump(exclude={"neighboring_relation"}) != record.unit.model_dump(
        exclude={"neighboring_relation"}
    ):
        yield "teacher.claim.unit: it protects other units than this record"
    if teacher.guides == "labels":
        yield from _carried_faults(record, teacher.claim)


def teacher_claim_faults(
    record: PrivacyRecord, *, same: float, other_version: float
) -> Iterator[str]:
    """Whether the ε of a record's private teacher follows from the teacher's events.

    Args:
        record: The record.
        same: Relative tolerance on ε.
        other_version: The same where another version of the accountant computed it.
    """
    claim = None if record.teacher is None else record.teacher.claim
    if claim is None:
        return
    if claim.claim.reasons_against or claim.claim.epsilon is None:
        yield "teacher.claim: it is none"
        return
    events = [event_from_json(event) for event in claim.events]
    try:
        accountant = make_accountant(
            claim.accountant.name, relation=claim.unit.neighboring_relation
        )
        epsilon = accountant.epsilon(events, delta=claim.claim.delta)
    except AccountingError as error:
        yield f"teacher.claim: {error.what}"
        return
    tolerance = same if accountant.version == claim.accountant.version else other_version
    if not math.isclose(claim.claim.epsilon, epsilon, rel_tol=tolerance, abs_tol=1e-12):
        yield (
            f"teacher.claim.epsilon: states {claim.claim.epsilon:.6g}, its events give "
            f"{epsilon:.6g}"
        )


def _carried_faults(record: PrivacyRecord, claim: TeacherClaim) -> Iterator[str]:
    """Whether the record's claim is the teacher's, unchanged."""
    own = [event_from_json(event).ended() for event in record.events]
    spent = [event_from_json(event).ended() for event in claim.events]
    if not own or spent[-len(own) :] != own:
        yield "events: they are not those of the teacher"
    carried = {
        "claim": (record.claim, claim.claim),
        "unit": (record.unit, claim.unit),
        "accountant": (record.accountant, claim.accountant),
        "data.training.units": (record.data.training.units, claim.units),
    }
    for where, (mine, theirs) in carried.items():
        if mine != theirs:
            yield f"{where}: it is not the teacher's"
