"""`privacy.json`: what ran and what it guarantees, filled in from a run."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, cast

from discreet.accounting import Event, make_accountant
from discreet.config import MechanismConfig
from discreet.ledger import Spent
from discreet.privacy import GroupingName, NeighboringRelation, PrivacyUnit
from discreet.randomness import RandomSource
from discreet.statement import schema
from discreet.statement.composing import listed
from discreet.statement.evidence import CHECK_FAILED, REFUTED, read_audit, read_check, refutes
from discreet.statement.figures import assumed_sampling, figures_of, finite
from discreet.statement.schema import (
    AccountantFacts,
    Adversary,
    Claim,
    DataAccesses,
    Hardware,
    Mechanism,
    Outputs,
    PartnerData,
    PretrainingData,
    PrivacyRecord,
    Sampling,
    Software,
    Spending,
    Steps,
    Teacher,
    Training,
    TrainingData,
    Unit,
    ValidationData,
)
from discreet.statement.teaching import spent_by
from discreet.terminal import count

__all__ = [
    "PrivacyRecord",
    "as_json",
    "make_record",
    "mechanism_of",
    "this_machine",
    "this_software",
    "warnings_of",
    "with_audit",
]

_PACKAGES = ("discreet", "torch", "ultralytics", "dp-accounting", "opacus", "numpy", "randomgen")

ADVERSARY = Adversary(
    sees=(
        "the weights after every step, not only those released",
        "all other images and labels of the training set",
        "the code, all settings, the starting weights and the number of privacy units",
    ),
    does_not_see=(
        "the random numbers of the noise and of the sampling, and the memory of the machine "
        "while it trained",
        "the run's `internal` folder",
    ),
)
OUTPUTS = Outputs(
    covered=("the weights of every step, if all were published",),
    not_covered=(
        "the number of privacy units n, which is disclosed: it sets the sample rate",
        "class names, image size and all settings listed in `configuration`",
        "everything in the run's `internal` folder",
        "`spent.total`, which tells whether earlier runs used some of the same images",
    ),
)
FLOATING_POINT = (
    "The guarantee is proven for real numbers. Noise is drawn in double precision, as a sum of "
    "four Gaussians, against attacks on floating-point noise (Holohan and Braghin 2021); "
    "gradients, clipping and sums are single precision, whose rounding the proof leaves out. "
    "ε itself is rounded towards more loss."
)


def make_record(
    *,
    mechanism: MechanismConfig,
    events: Sequence[Event],
    total: Spent,
    executed_steps: int,
    resumes: int,
    source: RandomSource,
    reasons: Sequence[str],
    training: Training,
    validation: ValidationData,
    pretraining: PretrainingData,
    configuration: Mapping[str, Any],
    metrics: Mapping[str, float] | None,
    accelerator: str | None = None,
    check: Mapping[str, Any] | None = None,
    audit: Mapping[str, Any] | None = None,
    canaries: bool = False,
    grouping: GroupingName | None = None,
    teacher: Teacher | None = None,
    partners: PartnerData | None = None,
) -> PrivacyRecord:
    """Put a run on record. The release adds the weights' digest and the signer.

    Args:
        mechanism: What was planned.
        events: What was charged; ε is computed from these, not from the plan.
        total: What all runs together have spent of the data set, by its ledger.
        executed_steps: Steps whose update is in the weights.
        resumes: How often the run went on after an interruption.
        source: Source of noise and sampling.
        reasons: Why the run is not private, if it is not.
        training: What was trained, by which engine.
        validation: How the validation images were treated.
        pretraining: What the run started from.
        configuration: The remaining public settings, scrubbed of paths and seeds.
        metrics: Metrics on public validation data; None where there are none.
        accelerator: Model of the GPU, if one was used.
        check: Result of the check of the wiring, as JSON.
        audit: Result of an audit, as JSON.
        grouping: How images came to groups; None where each is its own unit.
        canaries: Whether planted canaries are among the training images.
        teacher: The model that guided the loss. What a private one spent counts in ε.
        partners: The public images that private ones were mixed with.
    """
    accountant = mechanism.make_accountant()
    before = spent_by(teacher)
    epsilon = accountant.epsilon((*before, *events), delta=mechanism.delta)
    assumed = assumed_sampling(mechanism, events)
    against = list(reasons)
    if math.isinf(epsilon):
        against.append("the noise does not bound ε")
    if assumed != mechanism.sampling:
        against.append("the sampling that ran is not the sampling that was accounted")
    checked = read_check(check)
    if checked is not None and not checked.passed:
        against.append(CHECK_FAILED)
    if total.mixed:
        accountant_of_all = make_accountant("pld", relation=NeighboringRelation.REPLACE_ONE)
    else:
        accountant_of_all = accountant
    total = listed(total, (*before, *events), accountant_of_all)
    record = PrivacyRecord(
        claim_valid=not against,
        purpose="audit" if canaries else "release",
        claim=Claim(epsilon=finite(epsilon), delta=mechanism.delta, reasons_against=tuple(against)),
        unit=Unit(
            kind=mechanism.unit,
            grouping_key=grouping,
            max_images_per_unit=mechanism.max_images_per_unit,
            neighboring_relation=mechanism.relation,
        ),
        adversary=ADVERSARY,
        outputs=OUTPUTS,
        data=DataAccesses(
            training=TrainingData(
                access="private", units=mechanism.population, units_are_disclosed=True
            ),
            validation=validation,
            pretraining=pretraining,
            partners=partners,
        ),
        mechanism=_mechanism(mechanism),
        sampling=Sampling(
            used=mechanism.sampling,
            assumed=assumed,
            match=assumed == mechanism.sampling,
            sample_rate=mechanism.sample_rate,
            expected_batch_size=mechanism.expected_batch_size,
            largest_batch=mechanism.largest_batch,
        ),
        steps=Steps(
            planned=mechanism.steps,
            charged=sum(event.steps for event in events),
            executed=executed_steps,
            resumes=resumes,
        ),
        events=tuple(as_json(event) for event in events),
        teacher=teacher,
        accountant=AccountantFacts(name=mechanism.accountant, version=accountant.version),
        figures=figures_of(mechanism, events, epsilon=epsilon, before=before),
        spent=Spending(
            run=finite(epsilon),
            total=finite(max(total.epsilon, epsilon)),
            unit=PrivacyUnit.IMAGE if total.mixed else mechanism.unit,
            neighboring_relation=NeighboringRelation.REPLACE_ONE
            if total.mixed
            else mechanism.relation,
            delta=total.delta,
            runs=total.runs,
            unprotected_runs=total.unprotected_runs,
            events=tuple(as_json(event) for event in total.events),
        ),
        random_source=schema.RandomSource(description=source.description, secure=source.secure),
        floating_point=FLOATING_POINT,
        training=training,
        configuration={key: _setting(value) for key, value in configuration.items()},
        metrics=None if metrics is None else cast(Any, dict(metrics)),
        check=checked,
        audit=None,
        weights=None,
        signer=None,
        warnings=(),
        software=this_software(),
        hardware=this_machine(accelerator=accelerator),
    )
    record = record.model_copy(update={"warnings": tuple(warnings_of(record))})
    return record if audit is None else with_audit(record, audit)


def with_audit(record: PrivacyRecord, audit: Mapping[str, Any]) -> PrivacyRecord:
    """The record with the result of an audit, which may be a reason against the claim.

    Args:
        record: A run with canaries.
        audit: The result, as `AuditResult.to_json` gives it.
    """
    found = read_audit(audit)
    against = [why for why in record.claim.reasons_against if why != REFUTED]
    if refutes(found):
        against.append(REFUTED)
    claim = record.claim.model_copy(update={"reasons_against": tuple(against)})
    return record.model_copy(update={"audit": found, "claim": claim, "claim_valid": not against})


def warnings_of(record: PrivacyRecord) -> list[str]:
    """What its reader should know, as follows from the rest of a record."""
    warnings: list[str] = []
    if record.purpose == "audit":
        warnings.append(
            "planted canaries are among the training images: these weights are for auditing only"
        )
    unprotected = record.spent.unprotected_runs
    if unprotected:
        warnings.append(
            f"{count(unprotected, 'earlier or present run')} on these images had no protection "
            "at all: what became public of them is not bounded by any ε"
        )
    if total_is_of_an_image(record):
        warnings.append(
            "earlier runs on these images had other privacy units: the total over all runs is of "
            "one image, taken as replaced by another"
            + (
                ""
                if record.unit.kind is PrivacyUnit.IMAGE
                else "; for a whole group it is no bound"
            )
        )
    charged, executed = record.steps.charged, record.steps.executed
    if executed < charged:
        warnings.append(
            f"{charged - executed} of {charged} charged steps are not in the weights: they were "
            "lost in a crash and stay charged"
        )
    if record.claim.delta >= 1 / record.data.training.units:
        warnings.append("δ is not below 1/n: publishing one unit in the open would satisfy it")
    return warnings


def total_is_of_an_image(record: PrivacyRecord) -> bool:
    """Whether `spent.total` speaks of one image because this run's unit is not that of all runs.

    Not told of a run on single images under replace-one, whose total reads the same either way.
    """
    spent, unit = record.spent, record.unit
    return (spent.unit, spent.neighboring_relation) != (unit.kind, unit.neighboring_relation)


def mechanism_of(record: PrivacyRecord) -> MechanismConfig:
    """The configuration of the mechanism that a record describes.

    Raises:
        ValueError: If the record's numbers are not those of any configuration.
    """
    return MechanismConfig(
        population=record.data.training.units,
        expected_batch_size=record.sampling.expected_batch_size,
        steps=record.steps.planned,
        noise_multiplier=record.mechanism.noise_multiplier,
        noise_schedule=record.mechanism.noise_schedule,
        final_noise=record.mechanism.final_noise,
        max_grad_norm=record.mechanism.max_grad_norm,
        delta=record.claim.delta,
        clipping=record.mechanism.clipping,
        accountant=record.accountant.name,
        unit=record.unit.kind,
        max_images_per_unit=record.unit.max_images_per_unit,
        relation=record.unit.neighboring_relation,
        sampling=record.sampling.used,
        largest_batch=record.sampling.largest_batch,
    )


def _mechanism(mechanism: MechanismConfig) -> Mechanism:
    sensitivity = mechanism.make_clipping().sensitivity
    last = mechanism.noise_multiplier_at(mechanism.steps)
    return Mechanism(
        name="DP-SGD",
        noise="gaussian",
        clipping=mechanism.clipping,
        max_grad_norm=mechanism.max_grad_norm,
        sensitivity=sensitivity,
        noise_multiplier=mechanism.noise_multiplier,
        noise_schedule=mechanism.noise_schedule,
        final_noise=mechanism.final_noise,
        noise_multiplier_of_last_step=last,
        noise_standard_deviation=mechanism.noise_multiplier * sensitivity,
        noise_standard_deviation_of_last_step=last * sensitivity,
        normaliser=mechanism.expected_batch_size,
    )


def as_json(event: Event) -> dict[str, Any]:
    """An event as a record has it."""
    return dict(event.to_json())


def _setting(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def this_software() -> Software:
    """Versions of what is installed here."""
    return Software(python=platform.python_version(), packages=_versions())


def this_machine(*, accelerator: str | None) -> Hardware:
    """This kind of machine.

    Args:
        accelerator: Model of the GPU, if one was used.
    """
    return Hardware(system=platform.system(), machine=platform.machine(), accelerator=accelerator)


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found
