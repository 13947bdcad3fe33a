"""Results of the check and of the audit, as far as a report shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

_T = TypeVar("_T", bound=BaseModel)


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Probe(_Facts):
    """One probe of the check."""

    name: str
    verdict: str


class CheckFacts(_Facts):
    """What the check of the wiring found."""

    passed: bool
    probes: tuple[Probe, ...]


class Proven(_Facts):
    """A lower bound on ε."""

    epsilon: float
    confidence: float


class AuditFacts(_Facts):
    """What the attack on the run proved."""

    attack: str
    canaries: int
    claimed_epsilon: float
    one_run: Proven
    rates: Proven
    conditional: dict[str, Proven]
    reach: float
    refuted: bool


def check_facts(check: Mapping[str, JsonValue] | None) -> CheckFacts | None:
    """The check on record; None where none was made or it is of another form."""
    return _read(CheckFacts, check)


def audit_facts(audit: Mapping[str, JsonValue] | None) -> AuditFacts | None:
    """The audit on record; None where none was made or it is of another form."""
    return _read(AuditFacts, audit)


def _read(kind: type[_T], facts: Mapping[str, JsonValue] | None) -> _T | None:
    if facts is None:
        return None
    try:
        return kind.model_validate(facts)
    except ValidationError:
        return None
