"""The form of `privacy.json`, version 2.0: what a record may say, field by field.

Every field is public by configuration, or an output of the mechanism. There is no field for a
path, a file name, a seed, a training loss, a drawn batch size or a digest of an image. The form
is closed: an unknown key, an infinite number or a value of another type is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue

from discreet.accounting import AccountantName, event_from_json
from discreet.config import ClippingName, NoiseSchedule, SamplingName
from discreet.errors import AccountingError
from discreet.privacy import GroupingName, NeighboringRelation, PrivacyUnit

SCHEMA_VERSION = "2.0"
SCHEMA_FILE = "privacy.schema.json"

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Delta = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=0)]
CountFromOne = Annotated[int, Field(ge=1)]


def _known_event(event: dict[str, JsonValue]) -> dict[str, JsonValue]:
    try:
        event_from_json(event)
    except AccountingError as error:
        raise ValueError(error.what) from error
    return event


EventRecord = Annotated[dict[str, JsonValue], AfterValidator(_known_event)]
"""One event as `discreet.accounting.Event.to_json` writes it."""


class _Part(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        # The shipped schema explains each field in the words of these classes.
        use_attribute_docstrings=True,
    )


class Claim(_Part):
    """The guarantee, in one place."""

    epsilon: NonNegative | None
    """ε over all charged steps; null where there is no bound."""
    delta: Delta
    """δ at which it holds."""
    reasons_against: tuple[str, ...]
    """Why the run is not private; empty where it is."""


class Unit(_Part):
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


class Adversary(_Part):
    """Against whom the guarantee holds."""

    sees: tuple[str, ...]
    """What the adversary may know."""
    does_not_see: tuple[str, ...]
    """What the guarantee needs to stay hidden."""


class Outputs(_Part):
    """What the guarantee speaks of."""

    covered: tuple[str, ...]
    """Outputs under the guarantee."""
    not_covered: tuple[str, ...]
    """What is published, or may be seen, without it."""


class TrainingData(_Part):
    """The private images."""

    access: Literal["private"]
    """How they are treated."""
    units: CountFromOne
    """Number of privacy units n."""
    units_are_disclosed: Literal[True]
    """n is published, and not protected: it sets the sample rate."""


class ValidationData(_Part):
    """The validation images."""

    access: Literal["public", "private", "none"]
    """Public by the user's word; private: looked at, and nothing of it is in the release."""
    metrics_are_released: bool
    """Whether metrics on them are in this record."""


class PretrainingData(_Part):
    """What the weights were before the run."""

    access: Literal["public", "none"]
    """Public by assumption, as is all that they were trained on; none: begun from scratch."""
    sha256: Sha256 | None
    """Digest of the file of weights; null where there was none."""


class DataAccesses(_Part):
    """All data that the run read."""

    training: TrainingData
    validation: ValidationData
    pretraining: PretrainingData


class Mechanism(_Part):
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


class Sampling(_Part):
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


class Steps(_Part):
    """Steps of the run."""

    planned: Count
    charged: Count
    """Counted in ε: each before its update was visible."""
    executed: Count
    """In the weights. Charged steps that a crash lost are not, and stay charged."""
    resumes: Count
    """How often the run went on after an interruption."""


class AccountantFacts(_Part):
    """Who computed ε."""

    name: AccountantName
    version: str
    """Library and version."""


class EpsilonAtDelta(_Part):
    """One point of the privacy curve."""

    delta: Delta
    epsilon: NonNegative | None
    """Null where there is no bound, or the accountant has none at this δ."""


class DeltaAtEpsilon(_Part):
    """One point of the privacy profile."""

    epsilon: NonNegative
    delta: Share


class GroupGuarantee(_Part):
    """The guarantee for several units at once, such as all images of one person."""

    size: CountFromOne
    """Units in the group."""
    epsilon: NonNegative | None
    """ε at the claim's δ, an upper bound; null where there is none."""


class GaussianDp(_Part):
    """The same guarantee as that of one Gaussian mechanism (Dong et al. 2022), always by PLD."""

    mu: NonNegative
    """μ: the run is at most as revealing as N(0, 1) against N(μ, 1)."""
    delta_floor: Delta
    """Below this δ nothing is claimed of μ."""
    regret: NonNegative
    """How much μ exaggerates; under 0.01 it stands for the whole curve (Gomez et al. 2025)."""


class TruePositiveRate(_Part):
    """How many members an attacker finds at a given rate of false alarms."""

    false_positive_rate: Share
    at_most: Share


class AttackBounds(_Part):
    """The most that any attacker can do who asks whether one given unit was used."""

    balanced_accuracy: Share
    """Share of right answers where "used" and "not used" are equally likely; a coin has 0.5."""
    true_positive_rates: tuple[TruePositiveRate, ...]


class Figures(_Part):
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


class Spending(_Part):
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
    events: tuple[EventRecord, ...]
    """All that ran on it, without the unprotected runs."""


class RandomSource(_Part):
    """Where noise and sampling come from."""

    description: str
    secure: bool
    """Whether nobody without the process's memory can predict it."""


class Training(_Part):
    """What was trained."""

    trainable: str
    trained_parameters: Count
    norm: str
    """How normalisation is kept from mixing images."""
    engine: str
    """What computed the gradients of single images."""


class Weights(_Part):
    """The released weights, beside this record."""

    file: str
    sha256: Sha256


class Software(_Part):
    """Versions of what the guarantee rests on."""

    python: str
    packages: dict[str, str]


class Hardware(_Part):
    """The kind of machine, no more."""

    system: str
    machine: str
    accelerator: str | None
    """Model of the GPU; null where the run used the CPU."""


class Signer(_Part):
    """Whose key signs the release."""

    algorithm: Literal["ed25519"]
    key_id: Sha256
    public_key: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """32 bytes, hexadecimal."""


Setting = bool | int | float | str | None


class PrivacyRecord(_Part):
    """Everything that a stranger needs to recompute and to judge the claim."""

    schema_version: Literal["2.0"] = SCHEMA_VERSION
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
    events: tuple[EventRecord, ...]
    """All that ran, as it was charged: ε follows from these."""
    accountant: AccountantFacts
    figures: Figures
    spent: Spending
    random_source: RandomSource
    floating_point: str
    """What holds of exact numbers and is only nearly true of a computer's."""
    training: Training
    configuration: dict[str, Setting | tuple[Setting, ...]]
    """The other public settings: no path, no name, no seed."""
    metrics: dict[str, Share] | None
    """Detection metrics on public validation images; null where there are none."""
    check: dict[str, JsonValue] | None
    """What the check of the wiring found; null where none was made."""
    audit: dict[str, JsonValue] | None
    """What an audit found; null where none was made."""
    weights: Weights | None
    """Null only until they are written."""
    signer: Signer | None
    """Null where the release is not signed."""
    warnings: tuple[str, ...]
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
