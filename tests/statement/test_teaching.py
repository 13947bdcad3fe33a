"""Records of runs that had a teacher: what of it a verifier believes, and how soon it decides."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pytest

from discreet.accounting import PoissonSampledGaussian, make_accountant
from discreet.ledger import Spent
from discreet.privacy import NeighboringRelation
from discreet.statement.consistency import examine
from discreet.statement.schema import AccountantFacts, PrivacyRecord, Teacher, TeacherClaim

from .conftest import FULL_BATCH, record_of
from .test_lies import altered_all


def taught() -> PrivacyRecord:
    """A run whose teacher saw the same images with a guarantee of its own."""
    theirs = record_of()
    accountant = FULL_BATCH.make_accountant()
    teacher = Teacher(
        access="private",
        guides="loss",
        sha256="cd" * 32,
        gain=1.0,
        terms=("teacher's classes",),
        public_images=None,
        claim=TeacherClaim(
            claim=theirs.claim,
            units=theirs.data.training.units,
            unit=theirs.unit,
            accountant=AccountantFacts(name=FULL_BATCH.accountant, version=accountant.version),
            events=theirs.events,
        ),
    )
    (event,) = FULL_BATCH.planned_events()
    both = (event.with_steps(2 * event.steps),)
    total = Spent(
        epsilon=accountant.epsilon(both, delta=FULL_BATCH.delta),
        delta=FULL_BATCH.delta,
        runs=2,
        unprotected_runs=0,
        events=both,
    )
    return record_of(teacher=teacher, total=total)


def test_what_a_teacher_spent_counts_and_is_found_to_be_right():
    record = taught()
    assert (record.claim.epsilon or 0) > 1.2 * FULL_BATCH.planned().epsilon
    assert examine(record).faults == []


LIES: dict[str, Any] = {
    "teacher": None,
    "teacher.gain": 1e300,
    "teacher.claim.claim.epsilon": 0.1,
    "teacher.claim.claim.reasons_against": ["no noise was added"],
    "teacher.claim.events.0.noise_multiplier": 50.0,
    "teacher.claim.unit.kind": "group",
    "training.engine": "ultralytics",  # as if no private image had been seen
    "training.norm": "batch",
    "configuration.epochs": 3,  # of a student
    "spent.runs": 1,
}


@pytest.mark.parametrize("path", LIES)
def test_a_lie_about_a_teacher_is_found(path: str):
    assert examine(altered_all(taught(), {path: LIES[path]})).faults


def test_a_teacher_teaches_by_known_terms():
    with pytest.raises(ValueError, match="teacher's classes"):
        altered_all(taught(), {"teacher.terms": ["certified"]})


@pytest.mark.slow
def test_a_teacher_of_very_many_events_is_judged_soon():
    events = [
        PoissonSampledGaussian(noise_multiplier=1 + i / 999, steps=1, sample_rate=0.5).to_json()
        for i in range(399)
    ]
    lie = altered_all(taught(), {"teacher.claim.events": events})
    began = time.process_time()
    assert examine(lie).faults
    assert time.process_time() - began < 20


def test_a_total_over_other_units_is_told_and_has_to_be_told():
    events = FULL_BATCH.planned_events()
    mechanism = FULL_BATCH
    replaced = make_accountant("pld", relation=NeighboringRelation.REPLACE_ONE)
    total = Spent(
        epsilon=replaced.epsilon(events, delta=mechanism.delta),
        delta=mechanism.delta,
        runs=1,
        unprotected_runs=0,
        events=events,
        mixed=True,
    )
    record = record_of(total=total)
    assert any("the total over all runs is of one image" in warning for warning in record.warnings)
    assert examine(record).faults == []
    assert examine(altered_all(record, {"warnings": []})).faults


def test_a_long_list_over_other_units_is_shortened_under_their_relation():
    many = tuple(
        dataclasses.replace(FULL_BATCH.planned_events()[0], noise_multiplier=9 + i / 1e4)
        for i in range(201)
    )
    total = Spent(
        epsilon=1.0,
        delta=FULL_BATCH.delta,
        runs=202,
        unprotected_runs=0,
        events=(*FULL_BATCH.planned_events(), *many),
        mixed=True,
    )
    record = record_of(total=total)
    assert len(record.spent.events) < 200
    assert examine(record).faults == []
