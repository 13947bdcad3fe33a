"""The claim in a few words, where the whole record cannot go: inside weights and exports."""

from __future__ import annotations

import json
from typing import Any

from discreet.statement.schema import PrivacyRecord

KEY = "privacy"
"""Where the summary lies in the checkpoint of released weights."""


def summarise(record: PrivacyRecord) -> dict[str, Any]:
    """The claim as a plain dict of numbers, strings and truth values."""
    return {
        "schema_version": record.schema_version,
        "claim_valid": record.claim_valid,
        "purpose": record.purpose,
        "epsilon": record.claim.epsilon,
        "delta": record.claim.delta,
        "unit": record.unit.kind.value,
        "neighboring_relation": record.unit.neighboring_relation.value,
        "accountant": record.accountant.name,
        "steps": record.steps.charged,
        "sampling": record.sampling.used,
        "noise_multiplier": record.mechanism.noise_multiplier,
        "max_grad_norm": record.mechanism.max_grad_norm,
    }


def as_model_name(record: PrivacyRecord) -> str:
    """The summary as the name of a model, which stock exporters copy into the file's metadata.

    Ultralytics writes "Ultralytics NAME model" into every format that it exports to, where NAME
    is the stem of the architecture's file. So the text has no slash, and ends as such a file.
    """
    text = json.dumps(summarise(record), ensure_ascii=False)
    assert not set("/\\") & set(text)
    return f"detector, privacy {text}.yaml"


def from_description(description: str) -> dict[str, Any] | None:
    """The summary in the description of an exported model; None where there is none."""
    start, end = description.find("privacy {"), description.rfind("}")
    if start < 0 or end < start:
        return None
    try:
        found = json.loads(description[start + len("privacy ") : end + 1])
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
