"""Records that were signed and are not true: a stranger works the figures out again."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from discreet.config import MechanismConfig
from discreet.ledger import Spent
from discreet.statement.consistency import examine
from discreet.statement.figures import figures_of
from discreet.statement.schema import EpsilonAtDelta, PrivacyRecord, to_json
from discreet.statement.verify import verify_release

from .conftest import FULL_BATCH, Reseal, record_of


def altered(record: PrivacyRecord, path: str, value: Any) -> PrivacyRecord:
    return altered_all(record, {path: value})


def altered_all(record: PrivacyRecord, changes: dict[str, Any]) -> PrivacyRecord:
    content: Any = to_json(record)
    for path, value in changes.items():
        place = content
        *steps, last = (int(step) if step.isdigit() else step for step in path.split("."))
        for step in steps:
            place = place[step]
        place[last] = value
    return PrivacyRecord.model_validate_json(json.dumps(content))


def proven(epsilon: float) -> dict[str, Any]:
    return {"epsilon": epsilon, "confidence": 0.95, "guesses": 16, "correct": 13}


PASSED, FAILED = ({"name": "noise", "verdict": verdict} for verdict in ("passed", "failed"))


CANARIES = "planted canaries are among the training images: these weights are for auditing only"


AUDIT: dict[str, Any] = {
    "attack": "gradient",
    "adversary": "sees the noised sum of every step",
    "claimed_epsilon": FULL_BATCH.planned().epsilon,
    "delta": FULL_BATCH.delta,
    "canaries": 16,
    "included": 7,
    "one_run": proven(0.1),
    "rates": proven(0.0),
    "conditional": {},
    "reach": 1.2,
    "refuted": False,
}


LIES: dict[str, Any] = {
    "claim.epsilon": 0.5,
    "claim.delta": 1e-5,
    "events.0.noise_multiplier": 9.0,
    "events.0.steps": 9,
    "events.0.sample_rate": 0.5,
    "steps.charged": 9,
    "steps.executed": 11,
    "steps.planned": 9,
    "sampling.sample_rate": 0.25,
    "sampling.expected_batch_size": 16,
    "sampling.used": "shuffle",
    "sampling.assumed": "shuffle",
    "sampling.match": False,
    "data.training.units": 64,
    "mechanism.noise_multiplier": 6.0,
    "mechanism.noise_standard_deviation": 5.0,
    "mechanism.noise_standard_deviation_of_last_step": 5.0,
    "mechanism.noise_multiplier_of_last_step": 4.0,
    "mechanism.sensitivity": 0.25,
    "mechanism.max_grad_norm": 0.25,
    "mechanism.normaliser": 16,
    "mechanism.final_noise": 0.5,
    "unit.neighboring_relation": "replace_one",
    "accountant.name": "rdp",
    "figures.epsilon_at_delta.2.epsilon": 0.1,
    "figures.profile.0.delta": 0.01,
    "figures.attack.balanced_accuracy": 0.51,
    "figures.attack.true_positive_rates.1.at_most": 0.02,
    "figures.epsilon_without_amplification": 0.1,
    "figures.groups.0.epsilon": 1.0,
    "figures.groups.0.size": 3,
    "figures.attack": None,
    "figures.groups": [],
    "spent.total": 0.1,
    "spent.run": 0.1,
    "spent.runs": 0,
    "spent.unprotected_runs": 1,
    "spent.events": [],
    "spent.delta": 1e-2,
    "claim_valid": False,
    "claim.reasons_against": ["no noise was added"],
    "random_source.secure": False,
    "floating_point": "all is exact",
    "outputs.not_covered": [],
    "adversary.sees": ["nothing"],
    "metrics": {"map50": 0.9},
    "data.validation.metrics_are_released": True,
    "data.pretraining.access": "none",
    "random_source.description": "random.seed(0), Mersenne Twister",
    "unit.grouping_key": "file",
    "unit.max_images_per_unit": 5,
    "training.trainable": "nothing",
    "configuration.lr0": 1e308,
    "configuration.optimizer": "none",
    "configuration.note": "certified",
    "configuration.mosaic": 1.0,
    "data.partners": {"access": "public", "images": 10, "blake2b": "ab" * 16},
    "warnings": ["this detector is certified: ε = 0.01"],
    "check": {"version": "1", "passed": False, "probes": [FAILED]},
    "audit": AUDIT,
}


MORE_LIES = [
    {"spent.runs": 99},
    {"steps.executed": 0},
    {"steps.executed": 0, "steps.resumes": 1},
    {"steps.executed": 9},  # nothing was interrupted
    {"steps.executed": 9, "steps.resumes": 1, "warnings": []},
    {"check": {"version": "1", "passed": True, "probes": [FAILED]}},
    {"check": {"version": "1", "passed": True, "probes": []}},
    {"check": {"version": "1", "passed": True, "probes": [PASSED, PASSED]}},
    {"purpose": "audit", "warnings": [CANARIES], "audit": {**AUDIT, "claimed_epsilon": 2.0}},
    {"purpose": "audit", "warnings": [CANARIES], "audit": {**AUDIT, "delta": 1e-2}},
    {"purpose": "audit", "warnings": [CANARIES], "audit": {**AUDIT, "refuted": True}},
    {"purpose": "audit", "warnings": [CANARIES], "audit": {**AUDIT, "included": 17}},
    {"purpose": "audit", "warnings": [CANARIES], "audit": {**AUDIT, "one_run": proven(50.0)}},
    {
        "purpose": "audit",
        "warnings": [CANARIES],
        "audit": {**AUDIT, "one_run": proven(50.0), "reach": 60.0, "refuted": True},
    },
]


@pytest.mark.parametrize("path", LIES)
def test_a_signed_lie_is_found(resealed: Reseal, record: PrivacyRecord, path: str):
    found = verify_release(resealed(altered(record, path, LIES[path])))
    lies = [fault for fault in found.faults if fault.startswith("privacy.json")]
    assert not found.valid
    assert lies, found.faults


@pytest.mark.parametrize("changes", MORE_LIES)
def test_records_that_contradict_themselves_are_no_valid_ones(
    record: PrivacyRecord, changes: dict[str, Any]
):
    assert examine(record).faults == []
    assert examine(altered_all(record, changes)).faults


def test_what_an_honest_run_records_is_found_to_be_right():
    check = {"version": "1", "passed": True, "probes": [PASSED]}
    record = record_of(check=check, audit=AUDIT, canaries=True, executed_steps=8, resumes=1)
    assert record.claim_valid
    assert len(record.warnings) == 2
    assert examine(record).faults == []


def test_a_failed_check_and_a_refuting_audit_are_reasons_against_the_claim():
    failed = record_of(check={"version": "1", "passed": False, "probes": [FAILED]})
    assert failed.claim.reasons_against == ("the check of the training step failed",)
    assert not failed.claim_valid
    more = {**AUDIT, "one_run": proven(5.0), "reach": 6.0, "refuted": True}
    refuted = record_of(audit=more, canaries=True)
    assert refuted.claim.reasons_against == ("an audit proved a larger ε than is claimed",)
    assert not refuted.claim_valid
    for record in (failed, refuted):
        assert examine(record).faults == []


def test_the_verifiers_notices_are_its_own(resealed: Reseal, record: PrivacyRecord):
    lie = "this detector is certified: ε = 0.01"
    found = verify_release(resealed(altered(record, "warnings", [lie])))
    assert lie not in found.notices


def test_what_an_accountant_refuses_is_a_fault_of_the_record(record: PrivacyRecord):
    steps, sampled = 10**9, {"kind": "poisson_sampled_gaussian", "noise_multiplier": 5.0}
    events = [{**sampled, "steps": steps, "sample_rate": 0.5}]
    lie = altered_all(
        record,
        {
            "accountant.name": "prv",
            "sampling.expected_batch_size": 16,
            "sampling.sample_rate": 0.5,
            "mechanism.normaliser": 16,
            "steps": {"planned": steps, "charged": steps, "executed": steps, "resumes": 0},
            "events": events,
            "spent.events": events,
        },
    )
    assert any("there is no ε of them" in fault for fault in examine(lie).faults)


def test_events_of_no_run_cost_no_time(record: PrivacyRecord):
    events = [
        {"kind": "poisson_sampled_gaussian", "noise_multiplier": 1 + i / 999, "steps": 1,
         "sample_rate": 0.5} for i in range(400)
    ]  # fmt: skip
    began = time.process_time()
    assert examine(altered(record, "events", events)).faults
    assert time.process_time() - began < 2


@pytest.mark.slow
def test_the_longest_list_of_events_is_composed_soon(record: PrivacyRecord):
    events = [
        {"kind": "poisson_sampled_gaussian", "noise_multiplier": 1 + i / 999, "steps": 1,
         "sample_rate": 0.5} for i in range(399)
    ]  # fmt: skip
    own = to_json(record)["spent"]["events"]
    began = time.process_time()
    assert examine(altered(record, "spent.events", [*own, *events])).faults
    assert time.process_time() - began < 30


def test_a_ledger_of_very_many_runs_is_listed_with_less_noise():
    own = FULL_BATCH.planned_events()
    others = tuple(
        FULL_BATCH.model_copy(update={"noise_multiplier": 90 + i / 100, "steps": 1})
        .planned_events()[0]
        for i in range(500)
    )  # fmt: skip
    accountant = FULL_BATCH.make_accountant()
    epsilon = accountant.epsilon((*own, *others), delta=1e-3)
    total = Spent(epsilon=epsilon, delta=1e-3, runs=501, unprotected_runs=0, events=(*own, *others))
    record = record_of(total=total)
    assert len(record.spent.events) <= 200
    assert record.spent.total is not None
    assert epsilon < record.spent.total < 1.02 * epsilon
    assert examine(record).faults == []


@pytest.mark.slow
def test_figures_of_sampled_steps_are_worked_out_again(resealed: Reseal):
    sampled = MechanismConfig(
        population=40,
        expected_batch_size=20,
        steps=2,
        noise_multiplier=2.0,
        max_grad_norm=1.0,
        delta=1e-3,
        noise_schedule="step",
        final_noise=0.7,
    )
    record = record_of(sampled)
    faults = verify_release(resealed(record)).faults
    assert faults == ("weights.pt: the claim inside it is not that of privacy.json",)
    assert record.claim.epsilon is not None
    lie = altered(record, "claim.epsilon", record.claim.epsilon * 0.99)
    assert any("claim.epsilon" in fault for fault in verify_release(resealed(lie)).faults)


def test_a_lie_told_everywhere_is_found(resealed: Reseal, record: PrivacyRecord):
    false = figures_of(FULL_BATCH, FULL_BATCH.planned_events(), epsilon=0.5)
    first = EpsilonAtDelta(delta=1e-3, epsilon=0.5)
    lie = record.model_copy(
        update={
            "claim": record.claim.model_copy(update={"epsilon": 0.5}),
            "spent": record.spent.model_copy(update={"run": 0.5}),
            "figures": false.model_copy(
                update={"epsilon_at_delta": (first, *false.epsilon_at_delta[1:])}
            ),
        }
    )
    faults = verify_release(resealed(lie)).faults
    assert any("claim.epsilon: states 0.5, the events give 1.79" in fault for fault in faults)


def test_a_run_without_protection_has_no_lifetime_bound(resealed: Reseal):
    open_total = Spent(
        epsilon=float("inf"), delta=1e-3, runs=2, unprotected_runs=1,
        events=FULL_BATCH.planned_events(),
    )  # fmt: skip
    record = record_of(total=open_total)
    assert record.spent.total is None
    assert verify_release(resealed(record)).valid
