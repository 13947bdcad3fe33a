"""The form of `privacy.json`, version 2.1: what a record may say, field by field.

Every field is public by configuration, or an output of the mechanism. There is no field for a
path, a file name, a seed, a training loss, a drawn batch size or a digest of an image. The form
is closed: an unknown key, an infinite number or a value of another type is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, JsonValue, model_validator

from discreet.accounting import AccountantName, event_from_json
from discreet.config import ClippingName, NoiseSchedule, SamplingName
from discreet.errors import AccountingError
from discreet.privacy import GroupingName, NeighboringRelation, PrivacyUnit
from discreet.statement.evidence import Audit, Check
from discreet.statement.part import (
    Count,
    CountFromOne,
    Delta,
    NonNegative,
    Part,
    Positive,
    Share,
    Words,
)

SCHEMA_VERSION = "2.1"
SCHEMA_FILE = "privacy.schema.json"

Metric = Literal[
    "precision", "recall", "map50", "map50_95", "mask_map50", "mask_map50_95", "pose_map50",
    "pose_map50_95", "top1", "top5",
]  # fmt: skip

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
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


class TrainingData(Part):
    """The private images."""

    access: Literal["private"]
    """How they are treated."""
    units: CountFromOne
    """Number of privacy units n."""
    units_are_disclosed: Literal[True]
    """n is published, and not protected: it sets the sample rate."""


class ValidationData(Part):
    """The validation images."""

    access: Literal["public", "private", "none"]
    """Public by the user's word; private: looked at, and nothing of it is in the release."""
    metrics_are_released: bool
    """Whether metrics on them are in this record."""


class PretrainingData(Part):
    """What the weights were before the run."""

    access: Literal["public", "none"]
    """Public by assumption, as is all that they were trained on; none: begun from scratch."""
    sha256: Sha256 | None
    """Digest of the file of weights; null where there was none."""


class DataAccesses(Part):
    """All data that the run read."""

    training: TrainingData
    validation: ValidationData
    pretraining: PretrainingData


TeacherTerm = Literal["teacher's classes", "teacher's boxes", "teacher's features"]


class TeacherClaim(Part):
    """The guarantee of a teacher that saw private images, as its own statement has it."""

    claim: Claim
    units: CountFromOne
    """Number of privacy units that it was trained on."""
    unit: Unit
    accountant: AccountantFacts
    events: Events
    """All that its ε follows from."""


class Teacher(Part):
    """A model that this one learnt from."""

    access: Literal["public", "private"]
    """public by the user's word, as is all that it was trained on; private: under its own claim."""
    guides: Literal["loss", "labels"]
    """loss: what it says of each private image is in that image's loss, inside the clipped
    gradient; labels: it labelled public images, and this model saw no others."""
    sha256: Sha256
    """Digest of its file of weights."""
    gain: NonNegative | None
    """Weight of its part of the loss; null where it has none."""
    terms: tuple[TeacherTerm, ...]
    """What of it is matched in the loss."""
    public_images: CountFromOne | None
    """Images that it labelled; null where it guides the loss."""
    claim: TeacherClaim | None
    """Null for a public teacher. Where a private one guides the loss, its events are composed with
    this run's in all figures here; where it labels, its claim is this record's, unchanged."""

    @model_validator(mode="after")
    def _told_in_one_way(self) -> Self:
        labels = self.guides == "labels"
        if (self.access == "private") != (self.claim is not None):
            raise ValueError("a private teacher has a claim, and a public one has none")
        if labels and self.claim is None:
            raise ValueError("a public teacher has no claim that this record could carry")
        guides = self.gain is not None and bool(self.terms)
        if labels != (self.public_images is not None) or labels == guides:
            raise ValueError("what the teacher did is not told in one way")
        return self


class Mechanism(Part):
    """What was done to each step's sum of gradients."""

    name: Literal["DP-SGD"]
    noise: Literal["gaussian"]
    clipping: ClippingName
    """flat: one L2 bound on the whole gradient of a unit; automatic: every unit's whole gradient
    normalised to that bound; per_layer, per_block: a bound for each part, of which C is the L2
    norm; adaptive: flat, the bound following a noised quantile that the events account for."""
    max_grad_norm: Positive
    """Clip norm C."""
    sensitivity: Positive
    """L2 bound on the change of the sum when one unit is added or removed."""
    noise_multiplier: NonNegative
    """σ, of the first step."""
    noise_schedule: NoiseSchedule
    """How σ moves from the first step to the last."""
    final_noise: Positive
    """σ of the schedule's last part over σ of its first."""
    noise_multiplier_of_last_step: NonNegative
    noise_standard_deviation: NonNegative
    """Of the noise on each coordinate of the sum, in the first step: σ times the sensitivity."""
    noise_standard_deviation_of_last_step: NonNegative
    normaliser: CountFromOne
    """What the noisy sum is divided by: the expected batch size, never the drawn one."""


class Sampling(Part):
    """How the units of a step were drawn."""

    used: SamplingName
    """What ran."""
    assumed: SamplingName | None
    """What the accountant took it for; null where it is none of these."""
    match: bool
    """Whether these are the same."""
    sample_rate: Annotated[float, Field(gt=0, le=1)]
    """Probability q of a unit to be drawn in a step."""
    expected_batch_size: CountFromOne
    """q · n."""
    largest_batch: CountFromOne | None
    """Cap on the drawn units of truncated Poisson sampling."""


class Steps(Part):
    """Steps of the run."""

    planned: Count
    charged: Count
    """Counted in ε: each before its update was visible."""
    executed: Count
    """In the weights. Charged steps that a crash lost are not, and stay charged."""
    resumes: Count
    """How often the run went on after an interruption."""


class EpsilonAtDelta(Part):
    """One point of the privacy curve."""

    delta: Delta
    epsilon: NonNegative | None
    """Null where there is no bound, or the accountant has none at this δ."""


class DeltaAtEpsilon(Part):
    """One point of the privacy profile."""

    epsilon: NonNegative
    delta: Share


class GroupGuarantee(Part):
    """The guarantee for several units at once, such as all images of one person."""

    size: CountFromOne
    """Units in the group."""
    epsilon: NonNegative | None
    """ε at the claim's δ, an upper bound; null where there is none."""


class GaussianDp(Part):
    """The same guarantee as that of one Gaussian mechanism (Dong et al. 2022), always by PLD."""

    mu: NonNegative
    """μ: the run is at most as revealing as N(0, 1) against N(μ, 1)."""
    delta_floor: Delta
    """Below this δ nothing is claimed of μ."""
    regret: NonNegative
    """How much μ exaggerates; under 0.01 it stands for the whole curve (Gomez et al. 2025)."""


class TruePositiveRate(Part):
    """How many members an attacker finds at a given rate of false alarms."""

    false_positive_rate: Share
    at_most: Share


class AttackBounds(Part):
    """The most that any attacker can do who asks whether one given unit was used."""

    balanced_accuracy: Share
    """Share of right answers where "used" and "not used" are equally likely; a coin has 0.5."""
    true_positive_rates: tuple[TruePositiveRate, ...]


class Figures(Part):
    """All that follows from the events, the accountant and δ."""

    epsilon_at_delta: tuple[EpsilonAtDelta, ...]
    profile: tuple[DeltaAtEpsilon, ...]
    """δ at ε from 0 to the claim's; empty where there is no bound."""
    attack: AttackBounds | None
    """Null where there is no bound."""
    gaussian_dp: GaussianDp | None
    """Null where there is no bound, or it was not worked out."""
    epsilon_without_amplification: NonNegative | None
    """ε of the same run if its units had been dealt out once an epoch, not drawn at random."""
    groups: tuple[GroupGuarantee, ...]


class Spending(Part):
    """What was spent of the most charged unit, by the ledger of its data set."""

    run: NonNegative | None
    """ε of this run alone."""
    total: NonNegative | None
    """ε of all runs on it, composed at once; null where there is no bound."""
    unit: PrivacyUnit
    """Whose total it is: that of this run's unit, or of one image where runs on the same images had
    different units."""
    neighboring_relation: NeighboringRelation
    """Under which it is composed: that of this run, or replace_one where units differed, since an
    image that is taken out of a group changes the group and does not remove it."""
    delta: Delta
    runs: Count
    """Runs that charged that unit, this one among them: tuning runs count like any other."""
    unprotected_runs: Count
    """Those of them that had no guarantee."""
    events: Events
    """All that ran on it, without the unprotected runs."""


class RandomSource(Part):
    """Where noise and sampling come from."""

    description: Words
    secure: bool
    """Whether nobody without the process's memory can predict it."""


class Training(Part):
    """What was trained."""

    trainable: Words
    """Parts of the model, joined by +."""
    trained_parameters: CountFromOne
    norm: Literal["frozen", "group", "batch"]
    """How normalisation is kept from mixing images: public statistics, or GroupNorm. batch: it is
    not, as nothing private was seen."""
    engine: Literal["discreet", "opacus", "reference", "ultralytics"]
    """What computed the gradients of single images; ultralytics: nothing, as none was private."""


class Weights(Part):
    """The released weights, beside this record."""

    file: str
    sha256: Sha256


class Software(Part):
    """Versions of what the guarantee rests on."""

    python: Words
    packages: dict[Words, Words]


class Hardware(Part):
    """The kind of machine, no more."""

    system: Words
    machine: Words
    accelerator: Words | None
    """Model of the GPU; null where the run used the CPU."""


class Signer(Part):
    """Whose key signs the release."""

    algorithm: Literal["ed25519"]
    key_id: Sha256
    public_key: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """32 bytes, hexadecimal."""


Setting = bool | int | float | Words | None


class PrivacyRecord(Part):
    """Everything that a stranger needs to recompute and to judge the claim."""

    schema_version: Literal["2.1"] = SCHEMA_VERSION
    claim_valid: bool
    """Whether the run was private, as accounted."""
    purpose: Literal["release", "audit"]
    """audit: the run trained on planted canaries, and its weights are for auditing only."""
    claim: Claim
    unit: Unit
    adversary: Adversary
    outputs: Outputs
    data: DataAccesses
    mechanism: Mechanism
    sampling: Sampling
    steps: Steps
    events: Events
    """All that ran, as it was charged: ε follows from these, and from a private teacher's."""
    teacher: Teacher | None
    """Null where the labels of the training images were all there was to learn from."""
    accountant: AccountantFacts
    figures: Figures
    spent: Spending
    random_source: RandomSource
    floating_point: str
    """What holds of exact numbers and is only nearly true of a computer's."""
    training: Training
    configuration: dict[str, Setting | tuple[Setting, ...]]
    """The other public settings, of a closed list: no path, no name, no seed."""
    metrics: dict[Metric, Share] | None
    """The task's metrics on public validation images; null where there are none."""
    check: Check | None
    """What the check of the training step found; null where none was made."""
    audit: Audit | None
    """What an audit found; null where none was made."""
    weights: Weights | None
    """Null only until they are written."""
    signer: Signer | None
    """Null where the release is not signed."""
    warnings: tuple[Words, ...]
    """What follows for the reader from the rest of the record, in this program's words."""
    software: Software
    hardware: Hardware


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a record."""
    schema = PrivacyRecord.model_json_schema(mode="validation")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": f"privacy.json {SCHEMA_VERSION}",
    }


def schema_text() -> str:
    """The JSON Schema as the package ships it."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def shipped_schema() -> str:
    """The text of the schema file in this package."""
    file = resources.files("discreet.statement").joinpath(SCHEMA_FILE)
    return file.read_text(encoding="utf-8")


def to_json(record: PrivacyRecord) -> Mapping[str, Any]:
    """The record as plain JSON values, keys in the order of the schema."""
    return record.model_dump(mode="json")
