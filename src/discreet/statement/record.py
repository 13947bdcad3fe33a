"""`privacy.json`: what ran and what it guarantees, for machines.

Every field is either public by configuration or an output of the mechanism. No path, no file
name, no seed, no training loss, no drawn batch size.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pydantic import BaseModel, ConfigDict

from discreet.accounting import Event
from discreet.config import MechanismConfig, SamplingName
from discreet.ledger import Spent

SCHEMA_VERSION = "1.0"
_SOFTWARE = ("discreet", "torch", "ultralytics", "dp-accounting", "opacus", "numpy", "randomgen")

COVERED = ("model weights of every step, if all were published",)
NOT_COVERED = (
    "the number of training images n, which is disclosed: it sets the sample rate",
    "class names, image size and all settings listed in `configuration`",
    "everything in the run's `internal` folder",
    "`spent.total`, which tells whether earlier runs used some of the same images",
)


class Claim(BaseModel):
    """The guarantee in one place.

    Attributes:
        valid: Whether the run was private at all.
        epsilon: ε over all executed steps; None where there is no bound.
        delta: δ.
        unit: What one record is.
        neighboring_relation: Which data sets are told apart with difficulty.
        reasons: Why the claim is not valid; empty where it is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    valid: bool
    epsilon: float | None
    delta: float
    unit: str
    neighboring_relation: str
    reasons: tuple[str, ...] = ()


class PrivacyRecord(BaseModel):
    """Everything that a stranger needs to recompute the claim."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    schema_version: str = SCHEMA_VERSION
    claim: Claim
    spent: dict[str, float | int | None]
    mechanism: dict[str, Any]
    sampling: dict[str, Any]
    steps: dict[str, int]
    events: tuple[dict[str, Any], ...]
    accountant: dict[str, str]
    random_source: str
    training: dict[str, Any]
    configuration: dict[str, Any]
    outputs: dict[str, tuple[str, ...]]
    metrics: dict[str, Any] | None
    weights: dict[str, str]
    warnings: tuple[str, ...]
    software: dict[str, str]


# What the accountant takes the sampling for.
_ACCOUNTED: Mapping[SamplingName, str] = {
    "poisson": "poisson",
    "truncated_poisson": "truncated_poisson",
    "shuffle": "every unit once an epoch, without amplification",
}


def make_record(
    *,
    mechanism: MechanismConfig,
    events: Sequence[Event],
    total: Spent,
    executed_steps: int,
    random_source: str,
    reasons: Sequence[str],
    training: Mapping[str, Any],
    configuration: Mapping[str, Any],
    public_metrics: Mapping[str, Any] | None,
    weights_name: str,
    weights_sha256: str,
) -> PrivacyRecord:
    """Put a run on record.

    Args:
        mechanism: What was planned.
        events: What was charged; ε is computed from these, not from the plan.
        total: What all runs together have spent of the data set, by its ledger.
        executed_steps: Steps whose update is in the weights.
        random_source: Description of the source of noise and sampling.
        reasons: Why the run is not private, if it is not.
        training: What was trained, from what, by which engine.
        configuration: The remaining public settings, scrubbed of paths and seeds.
        public_metrics: Metrics on public validation data; None where there are none.
        weights_name: File name of the weights, beside the record.
        weights_sha256: Their digest.
    """
    accountant = mechanism.make_accountant()
    epsilon = accountant.epsilon(events, delta=mechanism.delta)
    reasons = list(reasons)
    if math.isinf(epsilon):
        reasons.append("the noise does not bound ε")
    return PrivacyRecord(
        claim=Claim(
            valid=not reasons,
            epsilon=_finite(epsilon),
            delta=mechanism.delta,
            unit=mechanism.unit.value,
            neighboring_relation=mechanism.relation.value,
            reasons=tuple(reasons),
        ),
        spent={
            "run": _finite(epsilon),
            "total": _finite(total.epsilon),
            "delta": mechanism.delta,
            "runs": total.runs,
            "unprotected_runs": total.unprotected_runs,
        },
        mechanism={
            "name": "DP-SGD",
            "noise": "gaussian",
            "noise_multiplier": mechanism.noise_multiplier,
            "noise_schedule": mechanism.noise_schedule,
            "noise_multiplier_of_last_step": mechanism.noise_multiplier_at(mechanism.steps),
            "clipping": mechanism.clipping,
            "max_grad_norm": mechanism.max_grad_norm,
            "sensitivity": mechanism.make_clipping().sensitivity,
            "noise_standard_deviation": mechanism.noise_multiplier
            * mechanism.make_clipping().sensitivity,
            "normaliser": mechanism.expected_batch_size,
        },
        sampling={
            "used": mechanism.sampling,
            "accounted": _ACCOUNTED[mechanism.sampling],
            "population": mechanism.population,
            "population_disclosed": True,
            "expected_batch_size": mechanism.expected_batch_size,
            "sample_rate": mechanism.sample_rate,
            "largest_batch": mechanism.largest_batch,
        },
        steps={
            "planned": mechanism.steps,
            "charged": sum(event.steps for event in events),
            "executed": executed_steps,
        },
        events=tuple(event.to_json() for event in events),
        accountant={"name": accountant.name, "version": accountant.version},
        random_source=random_source,
        training=dict(training),
        configuration=dict(configuration),
        outputs={"covered": COVERED, "not_covered": NOT_COVERED},
        metrics=None if public_metrics is None else dict(public_metrics),
        weights={"file": weights_name, "sha256": weights_sha256},
        warnings=tuple(_warnings(mechanism, events, total, executed_steps)),
        software={"python": platform.python_version(), **_versions()},
    )


def _warnings(
    mechanism: MechanismConfig, events: Sequence[Event], total: Spent, executed: int
) -> list[str]:
    warnings: list[str] = []
    if total.unprotected_runs:
        warnings.append(
            f"{total.unprotected_runs} earlier or present runs on these images had no protection "
            "at all: what became public of them is not bounded by any ε"
        )
    charged = sum(event.steps for event in events)
    if executed < charged:
        warnings.append(
            f"{charged - executed} of {charged} charged steps are not in the weights: they were "
            "lost in a crash and stay charged"
        )
    if mechanism.delta >= 1 / mechanism.population:
        warnings.append("δ is not below 1/n: publishing one image in the open would satisfy it")
    return warnings


def _finite(epsilon: float) -> float | None:
    return None if math.isinf(epsilon) else epsilon


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in _SOFTWARE:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found
