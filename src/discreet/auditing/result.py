"""What an audit found, in a form that a statement can carry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from discreet.auditing.conditional import gaussian_one_run_estimate, gaussian_rates_estimate
from discreet.auditing.one_run import Guessing, one_run_bound, reach
from discreet.auditing.rates import clopper_pearson_bound
from discreet.auditing.scores import CONFIDENCE, Bound, CanaryScores
from discreet.terminal import format_delta, format_epsilon


@dataclass(frozen=True, kw_only=True)
class AuditResult:
    """Lower bounds on ε beside the ε that is claimed.

    Attributes:
        attack: "gradient" (white box), "image" (black box) or "trials" (one step, many times).
        adversary: What the attack was allowed to know, in a sentence.
        claimed_epsilon: ε of the claim.
        delta: δ of the claim, and of every bound.
        canaries: Number of canaries, each with a fair coin; all count as training records.
        included: How many coins said "in".
        one_run: The bound that decides: it holds whatever ties the scores together.
        rates: Clopper-Pearson on error rates: holds where scores are independent.
        conditional: Estimates that hold only for a Gaussian mechanism, by name. They decide
            nothing.
        reach: What `one_run` would be if the attack had been right in all guesses that it tried,
            on all canaries or on fewer: a claim above it cannot be refuted.
    """

    attack: str
    adversary: str
    claimed_epsilon: float
    delta: float
    canaries: int
    included: int
    one_run: Bound
    rates: Bound
    conditional: Mapping[str, Bound] = field(default_factory=dict[str, Bound])
    reach: float

    @property
    def refuted(self) -> bool:
        """Whether the attack proves more than is claimed: the run is not as private as it says."""
        return self.one_run.epsilon > self.claimed_epsilon

    @property
    def verdict(self) -> str:
        """The outcome in plain words."""
        percent = f"{100 * self.one_run.confidence:g} %"
        found = f"ε >= {self.one_run.epsilon:.2f} ({percent} confidence)"
        claim = f"ε = {format_epsilon(self.claimed_epsilon)} at δ = {format_delta(self.delta)}"
        if self.refuted:
            return f"REFUTED: the attack proves {found}, more than the claimed {claim}."
        if self.reach <= self.claimed_epsilon:
            return (
                f"Not refuted: the attack proves {found}, the claim is {claim}. Right in every "
                f"guess that it tried, it would have proved {self.reach:.2f}: this claim so few "
                "canaries cannot refute."
            )
        return (
            f"Not refuted: the attack proves {found}, within the claimed {claim}. "
            f"Right in every guess that it tried, it would have proved {self.reach:.2f}."
        )

    def to_json(self) -> dict[str, Any]:
        """The same facts as one JSON object."""
        facts = asdict(self)
        return {**facts, "refuted": self.refuted, "verdict": self.verdict}


def judge(
    scores: CanaryScores,
    *,
    attack: str,
    adversary: str,
    claimed_epsilon: float,
    delta: float,
    stream: np.random.Generator,
    guesses: Sequence[Guessing] | None = None,
    confidence: float = CONFIDENCE,
) -> AuditResult:
    """All bounds of an attack, beside the claim.

    Args:
        scores: What the attack made of its canaries.
        attack: See `AuditResult`.
        adversary: See `AuditResult`.
        claimed_epsilon: See `AuditResult`.
        delta: See `AuditResult`; > 0.
        stream: Splits canaries in halves for the bounds that need it.
        guesses: See `one_run_bound`.
        confidence: Of each bound on its own.
    """
    return AuditResult(
        attack=attack,
        adversary=adversary,
        claimed_epsilon=claimed_epsilon,
        delta=delta,
        canaries=len(scores),
        included=int(scores.included.sum()),
        one_run=one_run_bound(scores, delta=delta, confidence=confidence, guesses=guesses),
        rates=clopper_pearson_bound(scores, delta=delta, confidence=confidence, stream=stream),
        conditional={
            "gaussian_rates": gaussian_rates_estimate(
                scores, delta=delta, confidence=confidence, stream=stream
            ),
            "gaussian_one_run": gaussian_one_run_estimate(
                scores, delta=delta, confidence=confidence, guesses=guesses
            ),
        },
        reach=reach(len(scores), delta=delta, confidence=confidence, guesses=guesses),
    )
