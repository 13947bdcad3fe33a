"""The part of a record's form that tells what the check and an audit of the run found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from discreet.statement.part import Count, Delta, NonNegative, Part, Words

ProbeName = Literal[
    "parameters",
    "engine",
    "substance",
    "state",
    "shapes",
    "losses",
    "contributions",
    "norms",
    "sensitivity",
    "additivity",
    "noise",
    "once",
    "normaliser",
    "empty draw",
    "non-finite",
    "charge",
    "engines",
    "augmentation",
    "access",
    "loader",
    "sampler",
    "units",
    "features",
    "schedule",
    "randomness",
]
ProbeVerdict = Literal["passed", "failed", "not run"]
CHECK_FAILED = "the check of the training step failed"
REFUTED = "an audit proved a larger ε than is claimed"


class Probe(Part):
    """One probe of the check."""

    name: ProbeName
    verdict: ProbeVerdict


class Check(Part):
    """What the check of the training step found, before anything was spent."""

    version: Literal["1"]
    passed: bool
    """Whether no probe failed."""
    probes: tuple[Probe, ...]

    def count(self, verdict: ProbeVerdict) -> int:
        """Probes with a verdict."""
        return sum(probe.verdict == verdict for probe in self.probes)


class LowerBound(Part):
    """A lower bound on ε, proven by an attack."""

    epsilon: NonNegative
    confidence: Annotated[float, Field(gt=0, lt=1)]
    """Probability, at least, that the bound is below the true ε."""
    guesses: Count
    """How many canaries it rests on."""
    correct: Count
    """How many of these were guessed right."""


class Audit(Part):
    """What an attack on the run's canaries proved."""

    attack: Literal["gradient", "image", "trials"]
    adversary: Words
    """What the attack was allowed to know."""
    claimed_epsilon: NonNegative | None
    """ε of the claim; null where there is no bound."""
    delta: Delta
    """δ of the claim and of every bound."""
    canaries: Count
    included: Count
    """Canaries that a fair coin put among the training records."""
    one_run: LowerBound
    """The bound that decides."""
    rates: LowerBound
    """Holds where scores are independent."""
    conditional: dict[Literal["gaussian_rates", "gaussian_one_run"], LowerBound]
    """Estimates for a Gaussian mechanism; they decide nothing."""
    reach: NonNegative
    """What the attack would have proven, had it been right on every canary."""
    refuted: bool
    """Whether more is proven than is claimed."""


def read_check(facts: Mapping[str, Any] | None) -> Check | None:
    """The summary of a check, as the record has it."""
    return None if facts is None else Check.model_validate(facts, strict=False)


def read_audit(facts: Mapping[str, Any] | None) -> Audit | None:
    """The result of an audit, as the record has it: what can be worked out again is left out."""
    if facts is None:
        return None
    kept = {name: facts[name] for name in Audit.model_fields if name in facts}
    if kept.get("claimed_epsilon") == float("inf"):
        kept["claimed_epsilon"] = None
    return Audit.model_validate(kept, strict=False)


def check_faults(check: Check | None) -> list[str]:
    """In what a check contradicts itself."""
    if check is None:
        return []
    names = [probe.name for probe in check.probes]
    faults: list[str] = []
    if check.passed != (check.count("failed") == 0):
        faults.append("check.passed: its probes say otherwise")
    if len(set(names)) < len(names) or not check.count("passed") + check.count("failed"):
        faults.append("check.probes: none was run, or one twice")
    return faults


def audit_faults(audit: Audit | None, *, epsilon: float | None, delta: float) -> list[str]:
    """In what an audit contradicts itself, or the claim (ε, δ) that it is about."""
    if audit is None:
        return []
    faults: list[str] = []
    if (audit.claimed_epsilon, audit.delta) != (epsilon, delta):
        faults.append("audit: it is of another claim")
    if audit.refuted != refutes(audit):
        faults.append("audit.refuted: its bound says otherwise")
    bounds = (audit.one_run, audit.rates, *audit.conditional.values())
    if not audit.canaries or audit.included > audit.canaries:
        faults.append("audit.included: more than all canaries, or there are none")
    if any(not bound.correct <= bound.guesses <= audit.canaries for bound in bounds):
        faults.append("audit: more guesses were right than made, or made than there are canaries")
    if audit.one_run.epsilon > audit.reach:
        faults.append("audit.one_run: more than so many canaries can prove")
    return faults


def refutes(audit: Audit | None) -> bool:
    """Whether an audit proves more than is claimed."""
    if audit is None or audit.claimed_epsilon is None:
        return False
    return audit.one_run.epsilon > audit.claimed_epsilon
