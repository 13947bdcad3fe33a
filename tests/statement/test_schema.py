from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from discreet.statement import strict_json
from discreet.statement.schema import PrivacyRecord, schema_text, shipped_schema, to_json


def test_the_shipped_schema_is_that_of_the_model():
    assert shipped_schema() == schema_text(), "write schema_text() to privacy.schema.json"


def test_a_record_survives_json(record: PrivacyRecord):
    text = json.dumps(to_json(record), allow_nan=False)
    assert PrivacyRecord.model_validate_json(text) == record


def objects_of(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield schema
        for value in schema.values():
            yield from objects_of(value)


def test_every_object_of_the_schema_is_closed_or_a_plain_map():
    for part in objects_of(json.loads(shipped_schema())):
        if "properties" in part:
            assert part["additionalProperties"] is False, part.get("title")


def edited(record: PrivacyRecord, *path: Any, value: Any) -> str:
    content: Any = to_json(record)
    place = content
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return json.dumps(content)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("claim", "epsilon"), float("nan")),
        (("claim", "epsilon"), float("inf")),
        (("claim", "epsilon"), "8"),
        (("claim", "epsilon"), -1),
        (("claim", "delta"), 0),
        (("claim_valid",), 1),
        (("schema_version",), "1.0"),
        (("seed",), 3),
        (("mechanism", "seed"), 3),
        (("events", 0, "steps"), -1),
        (("events", 0, "kind"), "magic"),
        (("weights",), {"file": "weights.pt", "sha256": "x"}),
        (("steps", "planned"), 10**30),
        (("steps", "resumes"), 2**63),
        (("training", "trained_parameters"), 0),
        (("training", "norm"), "batch statistics"),
        (("training", "engine"), "none"),
        (("metrics",), {"precision": 1.0, "approved": 0.5}),
        (("check",), {"passed": "yes", "certified": "by somebody"}),
        (("check",), {"version": "1", "passed": True, "probes": [], "note": ""}),
        (("audit",), {"lower_bound": 50.0, "refuted": False}),
        (("hardware", "system"), "Linux \u202ecba"),
        (("warnings",), ["two\nlines"]),
        (("random_source", "description"), "x" * 1000),
        (
            ("spent", "events"),
            [
                {
                    "kind": "poisson_sampled_gaussian",
                    "noise_multiplier": 1 + i,
                    "steps": 1,
                    "sample_rate": 0.5,
                }
                for i in range(401)
            ],
        ),
    ],
)
def test_what_is_not_a_record_is_refused(record: PrivacyRecord, path: tuple[Any], value: Any):
    with pytest.raises(ValidationError):
        PrivacyRecord.model_validate_json(edited(record, *path, value=value))


@pytest.mark.parametrize(
    "data",
    [b'{"a": 1, "a": 2}', b'{"b": {"a": 1, "a": 1}}', b'{"a": NaN}', b"[-Infinity]", b"\xff", b"{",
     b"[" * 100_000],
)  # fmt: skip
def test_json_that_could_mean_two_things_is_refused(data: bytes):
    with pytest.raises(ValueError):
        strict_json.loads(data)
