"""The whole record, and its form as a JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from typing import Any, Literal

from discreet.statement.evidence import Audit, Check
from discreet.statement.part import (
    Part,
    Share,
    Words,
)
from discreet.statement.schema.claim import AccountantFacts, Adversary, Claim, Events, Outputs, Unit
from discreet.statement.schema.data import (
    DataAccesses,
    Teacher,
)
from discreet.statement.schema.figures import (
    Figures,
    Spending,
)
from discreet.statement.schema.mechanism import Mechanism, RandomSource, Sampling, Steps
from discreet.statement.schema.run import Hardware, Signer, Software, Training, Weights

SCHEMA_VERSION = "2.2"
SCHEMA_FILE = "privacy.schema.json"

Metric = Literal[
    "precision", "recall", "map50", "map50_95", "mask_map50", "mask_map50_95", "pose_map50",
    "pose_map50_95", "top1", "top5",
]  # fmt: skip

Setting = bool | int | float | Words | None


class PrivacyRecord(Part):
    """Everything that a stranger needs to recompute and to judge the claim."""

    schema_version: Literal["2.2"] = SCHEMA_VERSION
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
