"""A stranger finds out: changed bytes, lies that are signed, and what no digest proves."""

from __future__ import annotations

import base64
import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from discreet.config import MechanismConfig
from discreet.errors import ConfigurationError, StorageError
from discreet.ledger import Spent
from discreet.statement.consistency import examine
from discreet.statement.figures import figures_of
from discreet.statement.schema import EpsilonAtDelta, PrivacyRecord, to_json
from discreet.statement.signing import ReleaseKey, open_key, public_pem
from discreet.statement.verify import verify_release

from .conftest import FULL_BATCH, record_of

Reseal = Callable[..., Path]


def test_a_release_is_valid(release: Path):
    found = verify_release(release)
    assert found.valid, found.faults
    assert found.record is not None
    assert any("whose it is" in notice for notice in found.notices)
    json.dumps(found.to_json(), allow_nan=False)


def test_the_key_of_somebody_trusted(release: Path, key: ReleaseKey, tmp_path: Path):
    mine, other = tmp_path / "mine.pem", tmp_path / "other.pem"
    mine.write_text(public_pem(key.signer))
    another = open_key(True)
    assert another is not None
    other.write_text(public_pem(another.signer))
    assert verify_release(release, key=mine).key_is_known is True
    wrong = verify_release(release, key=other)
    assert not wrong.valid
    assert wrong.key_is_known is False
    with pytest.raises(ConfigurationError):
        verify_release(release, key=release / "privacy.json")


def test_unsigned_is_valid_and_said(resealed: Reseal, record: PrivacyRecord):
    found = verify_release(resealed(record, key=None))
    assert found.valid, found.faults
    assert any("not signed" in notice for notice in found.notices)


def test_unsigned_is_not_enough_for_who_gives_a_key(
    resealed: Reseal, record: PrivacyRecord, key: ReleaseKey, tmp_path: Path
):
    (tmp_path / "mine.pem").write_text(public_pem(key.signer))
    assert not verify_release(resealed(record, key=None), key=tmp_path / "mine.pem").valid


def test_a_run_that_is_not_private_verifies_as_just_that(resealed: Reseal):
    # The weights carry the claim of the other run: that alone is wrong.
    found = verify_release(resealed(record_of(reasons=["no noise was added"])))
    assert found.faults == ("weights.pt: the claim inside it is not that of privacy.json",)
    assert any("NOT PRIVATE" in notice for notice in found.notices)


@pytest.mark.parametrize(
    "name", ["weights.pt", "privacy.json", "PRIVACY.md", "report.html", "statement.dsse.json"]
)
def test_a_missing_file_is_named(release: Path, name: str):
    (release / name).unlink()
    assert verify_release(release).faults == (f"{name}: it is missing",)


def test_files_too_many_links_and_folders_are_refused(release: Path, tmp_path: Path):
    (release / "notes.txt").write_text("hello")
    assert not verify_release(release).valid
    (release / "notes.txt").unlink()
    assert verify_release(release).valid
    shutil.move(release / "PRIVACY.md", tmp_path / "page")
    (release / "PRIVACY.md").symlink_to(tmp_path / "page")
    assert not verify_release(release).valid


def test_what_is_no_folder_is_an_error(tmp_path: Path):
    with pytest.raises(StorageError, match=r"privacy\.json"):
        verify_release(tmp_path / "nowhere")


def changed_bytes(release: Path, *, count: int, seed: int) -> Iterator[tuple[str, int]]:
    """Change one byte at a time, and put it back."""
    draw = random.Random(seed)
    files = sorted(release.iterdir())
    for i in range(count):
        path = files[i % len(files)]
        with path.open("r+b") as stream:
            at = draw.randrange(path.stat().st_size)
            stream.seek(at)
            before = stream.read(1)[0]
            stream.seek(at)
            stream.write(bytes([before ^ draw.randrange(1, 256)]))
            stream.flush()
            yield path.name, at
            stream.seek(at)
            stream.write(bytes([before]))


@pytest.mark.parametrize("signed", [True, False])
def test_changed_bytes_are_detected(
    resealed: Reseal, record: PrivacyRecord, key: ReleaseKey, signed: bool
):
    release = resealed(record, key=key if signed else None)
    for name, at in changed_bytes(release, count=50, seed=7):
        found = verify_release(release)
        assert not found.valid, (name, at)
        assert any(name in fault for fault in found.faults)
    assert verify_release(release).valid


@pytest.mark.parametrize("signed", [True, False])
def test_a_thousand_changed_bytes_are_detected(
    resealed: Reseal, record: PrivacyRecord, key: ReleaseKey, signed: bool
):
    release = resealed(record, key=key if signed else None)
    detected = sum(
        not verify_release(release).valid for _ in changed_bytes(release, count=1000, seed=11)
    )
    assert detected == 1000
    assert verify_release(release).valid


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


def test_a_page_of_another_record_is_found(release: Path, record: PrivacyRecord, key: ReleaseKey):
    from discreet.statement import sealing
    from discreet.statement.page import render
    from discreet.statement.scan import PrivateWords

    with pytest.MonkeyPatch.context() as patch:
        other = {name: text.replace("1.", "0.") for name, text in render(record).items()}
        patch.setattr(sealing, "render", lambda _: other)
        sealing.seal(release, record=record, key=key, words=PrivateWords())
    assert any("not the page of this record" in fault for fault in verify_release(release).faults)


def _claim_less(content: dict[str, Any]) -> None:
    content["privacy"]["epsilon"] = 0.1


def _let_exports_claim_less(content: dict[str, Any]) -> None:
    content["model"].yaml["yaml_file"] = 'detector, privacy {"epsilon": 0.1}.yaml'


ELSEWHERE = "0.0.9"


def of_another_version(record: PrivacyRecord) -> PrivacyRecord:
    packages = {**record.software.packages, "discreet": ELSEWHERE}
    software = record.software.model_copy(update={"packages": packages})
    return record.model_copy(update={"software": software})


def sealed_with(release: Path, record: PrivacyRecord, key: ReleaseKey, **pages: str) -> Path:
    """A release whose publisher wrote these files by hand: `report` and `page`."""
    from discreet.statement import sealing
    from discreet.statement.page import render
    from discreet.statement.scan import PrivateWords

    with pytest.MonkeyPatch.context() as patch:
        if "report" in pages:
            patch.setattr(sealing, "render_report", lambda *_: pages["report"].encode())
        if "page" in pages:
            texts = {**render(record), "PRIVACY.md": pages["page"]}
            patch.setattr(sealing, "render", lambda _: texts)
        patch.setattr(sealing, "scan_release", lambda *_, **__: [])
        sealing.seal(release, record=record, key=key, words=PrivateWords())
    return release


def test_pages_that_were_drawn_again_are_said_to_be(release: Path):
    assert verify_release(release).pages == "redrawn"
    assert verify_release(release).to_json()["pages"] == "redrawn"


def test_pages_of_another_version_are_not_said_to_be_checked(
    release: Path, record: PrivacyRecord, key: ReleaseKey, capsys: pytest.CaptureFixture[str]
):
    other = of_another_version(record)
    lie = "# Perfectly private\n\nε = 0.01, certified.\n"
    found = verify_release(sealed_with(release, other, key, page=lie))
    assert found.valid, found.faults
    assert found.pages == "not checked"
    assert found.to_json()["pages"] == "not checked"
    from discreet.cli.app import main

    assert main(["verify", str(release)]) == 0
    said = capsys.readouterr().out
    assert "NOT CHECKED" in said
    assert "every byte is as stated, and every figure follows" not in said
    # Drawn the same by this version, they were checked after all.
    sealed_with(release, other, key)
    assert verify_release(release).pages == "redrawn"


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("report", "<script>fetch('https://evil.example/')</script><h1>ε = 0.01</h1>"),
        ("page", "<img src=x onerror=alert(1)>\n"),
        ("page", "[certificate](https://evil.example/)\n"),
        ("page", "https://evil.example/\n"),
        ("page", "[certificate]\n\n[certificate]: evil.example/x\n"),
    ],
)
def test_pages_that_act_are_refused_of_any_version(
    release: Path, record: PrivacyRecord, key: ReleaseKey, own: bool, name: str, text: str
):
    told = record if own else of_another_version(record)
    found = verify_release(sealed_with(release, told, key, **{name: text}))
    file = "report.html" if name == "report" else "PRIVACY.md"
    assert not found.valid
    assert any(fault.startswith(f"{file}: it holds") for fault in found.faults), found.faults


def rewritten_envelope(release: Path, **changes: Any) -> Path:
    path = release / "statement.dsse.json"
    content = {**json.loads(path.read_bytes()), **changes}
    path.write_bytes(json.dumps(content, indent=2).encode() + b"\n")
    return release


def test_envelopes_that_break_readers_are_faults(release: Path):
    deep = base64.b64encode(b"[" * 100_000).decode()
    good = (release / "statement.dsse.json").read_bytes()
    for changes in ({"payloadType": 5}, {"payload": deep}, {"payload": 5}, {"signatures": 5}):
        (release / "statement.dsse.json").write_bytes(good)
        assert not verify_release(rewritten_envelope(release, **changes)).valid, changes
    (release / "statement.dsse.json").write_bytes(b"[" * 200_000)
    assert not verify_release(release).valid
    (release / "statement.dsse.json").write_bytes(b" " * 300_000 + good)
    assert any("larger" in fault for fault in verify_release(release).faults)


@pytest.mark.parametrize("change", [_claim_less, _let_exports_claim_less])
def test_another_claim_inside_the_weights_is_found(
    release: Path,
    resealed: Reseal,
    record: PrivacyRecord,
    change: Callable[[dict[str, Any]], None],
):
    content = torch.load(release / "weights.pt", weights_only=False)
    change(content)
    with (release / "weights.pt").open("wb") as stream:
        torch.save(content, stream)
    found = verify_release(resealed(record))
    assert found.faults == ("weights.pt: the claim inside it is not that of privacy.json",)


def test_a_key_given_twice_is_found(release: Path):
    text = (release / "privacy.json").read_text()
    (release / "privacy.json").write_text(text.replace("{", '{"claim_valid": false,', 1))
    assert any("twice" in fault for fault in verify_release(release).faults)


def test_verifying_needs_no_ultralytics(release: Path):
    code = f"""
import sys
class Refuse:
    def find_spec(self, name, *rest):
        if name.split('.')[0] in ('ultralytics', 'torchvision'):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
from pathlib import Path
from discreet.statement.verify import verify_release
found = verify_release(Path({str(release)!r}))
assert found.valid, found.faults
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
