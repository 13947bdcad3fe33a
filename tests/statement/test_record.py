from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from discreet.config import MechanismConfig
from discreet.ledger import Spent
from discreet.randomness import InsecureSource
from discreet.statement.record import mechanism_of
from discreet.statement.schema import PrivacyRecord, to_json

from .conftest import FULL_BATCH, record_of


def test_a_private_run_has_a_valid_claim(record: PrivacyRecord):
    assert record.claim_valid
    assert not record.claim.reasons_against
    assert record.claim.epsilon == FULL_BATCH.planned().epsilon
    assert record.mechanism.noise_standard_deviation == 5.0 * 0.5
    assert record.mechanism.normaliser == 32
    assert record.sampling.match


def test_the_mechanism_can_be_read_back(record: PrivacyRecord):
    assert mechanism_of(record) == FULL_BATCH


def test_no_noise_no_claim():
    record = record_of(FULL_BATCH.model_copy(update={"noise_multiplier": 0.0}))
    assert not record.claim_valid
    assert record.claim.epsilon is None
    assert record.figures.attack is None
    json.dumps(to_json(record), allow_nan=False)


def test_seeded_no_claim():
    record = record_of(source=InsecureSource(3), reasons=["noise and sampling are seeded"])
    assert not record.claim_valid
    assert not record.random_source.secure


def test_events_of_another_sampling_void_the_claim():
    sampled = MechanismConfig(**{**FULL_BATCH.model_dump(), "expected_batch_size": 8})
    record = record_of(FULL_BATCH, events=sampled.planned_events())
    assert not record.claim_valid
    assert not record.sampling.match


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"executed_steps": 8}, "lost in a crash"),
        ({"canaries": True}, "auditing only"),
        (
            {"total": Spent(epsilon=9.0, delta=1e-3, runs=2, unprotected_runs=1, events=())},
            "no pro",
        ),
    ],
)
def test_what_a_reader_should_know_is_a_warning(changes: dict[str, Any], word: str):
    assert any(word in warning for warning in record_of(**changes).warnings)


def test_the_record_says_nothing_of_this_machine(record: PrivacyRecord):
    import getpass
    import platform
    from pathlib import Path

    text = json.dumps(to_json(record))
    assert str(Path.home()) not in text
    assert f'"{getpass.getuser()}"' not in text
    assert f'"{platform.node()}"' not in text
    assert "seed" not in text


def test_spent_is_composed_not_added():
    twice = FULL_BATCH.planned_events() + FULL_BATCH.planned_events()
    total = Spent(epsilon=1.0, delta=1e-3, runs=2, unprotected_runs=0, events=twice)
    record = record_of(total=replace(total, epsilon=2.0))
    assert record.spent.runs == 2
    assert len(record.spent.events) == 2
