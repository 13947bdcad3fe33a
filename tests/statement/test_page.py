from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from discreet.randomness import InsecureSource
from discreet.statement.page import percent, render
from discreet.statement.schema import PrivacyRecord
from discreet.terminal import format_epsilon

from .conftest import FULL_BATCH, record_of

BOTH = ("PRIVACY.md", "PRIVACY.zh-CN.md")


@pytest.mark.parametrize("name", BOTH)
def test_a_page_tells_what_the_standards_ask_for(record: PrivacyRecord, name: str):
    page = render(record)[name]
    attack, epsilon = record.figures.attack, record.claim.epsilon
    assert attack is not None
    assert epsilon is not None
    told = [
        f"ε = {format_epsilon(epsilon)}",
        "δ = 1e-03",
        percent(attack.balanced_accuracy),
        *(percent(rate.at_most) for rate in attack.true_positive_rates),
        *(format_epsilon(group.epsilon or 0) for group in record.figures.groups),
        "n = 32",
        "PLD",
        record.accountant.version,
        "DP-SGD",
        "ab" * 32,
        "statement.dsse.json",
    ]
    for fact in told:
        assert fact in page, fact
    assert len(page.splitlines()) < 70  # one printed page


@pytest.mark.parametrize("name", BOTH)
def test_tables_are_whole(record: PrivacyRecord, name: str):
    lines = render(record)[name].splitlines()
    rules = [i for i, line in enumerate(lines) if line.startswith("|---")]
    assert len(rules) == 3
    for i in rules:
        columns = lines[i].count("|")
        assert lines[i - 1].count("|") == columns
        assert lines[i + 1].count("|") == columns


def test_no_law_is_claimed_to_be_complied_with(record: PrivacyRecord):
    text = "".join(render(record).values()).lower()
    assert "not a statement that any law is complied with" in text
    assert "不代表符合任何法律法规" in text
    for word in ("gdpr", "hipaa", "compliant", "anonymous", "匿名"):
        assert word not in text


def test_not_private_is_said_first():
    reasons = ["noise and sampling are seeded: anyone can repeat them"]
    record = record_of(source=InsecureSource(1), reasons=reasons)
    english, chinese = (render(record)[name] for name in BOTH)
    assert english.split("\n\n")[1].startswith("**Not private.** This run carries no guarantee")
    assert reasons[0] in english
    assert chinese.split("\n\n")[1].startswith("**不具备隐私保护。**")
    assert "任何人都能重现" in chinese


def test_without_noise_there_is_no_figure():
    record = record_of(FULL_BATCH.model_copy(update={"noise_multiplier": 0.0}))
    for page in render(record).values():
        assert "∞" in page
        assert "at most" not in page


def test_canaries_and_lost_steps_are_told():
    for page in render(record_of(canaries=True, executed_steps=7)).values():
        assert "3" in page
    assert "For auditing only" in render(record_of(canaries=True))["PRIVACY.md"]


@pytest.mark.parametrize("name", BOTH)
def test_an_unsigned_page_says_so_and_a_signed_one_names_the_key(
    record: PrivacyRecord, release: Path, name: str
):
    assert ("not signed" in render(record)[name]) or ("没有签名" in render(record)[name])
    signer = PrivacyRecord.model_validate_json((release / "privacy.json").read_bytes()).signer
    assert signer is not None
    assert signer.key_id in (release / name).read_text()


def test_shares_are_rounded_against_the_claim():
    assert percent(0.5) == "50 %"
    assert percent(0.87310) == "87.4 %"
    assert percent(1.0) == "100 %"
    assert percent(0.99999) == "100 %"


def proven(epsilon: float) -> dict[str, Any]:
    """A lower bound as an audit gives it."""
    return {"epsilon": epsilon, "confidence": 0.95, "guesses": 16, "correct": 13}


def audited(epsilon: float) -> PrivacyRecord:
    """A run with an audit that proved so much."""
    claimed = FULL_BATCH.planned().epsilon
    audit = {
        "attack": "gradient", "adversary": "sees all", "claimed_epsilon": claimed, "delta": 1e-3,
        "canaries": 16, "included": 7, "one_run": proven(epsilon), "rates": proven(0.0),
        "conditional": {}, "reach": 5.0, "refuted": epsilon > claimed,
    }  # fmt: skip
    return record_of(audit=audit, canaries=True)


@pytest.mark.parametrize("name", BOTH)
def test_what_check_and_audit_found_is_told(name: str):
    names = ("noise", "once", "norms", "charge")
    verdicts = ("passed", "passed", "passed", "not run")
    probes = [{"name": n, "verdict": v} for n, v in zip(names, verdicts, strict=True)]
    page = render(record_of(check={"version": "1", "passed": True, "probes": probes}))[name]
    assert ("3 probes passed, none failed, 1 not run" in page) or ("3 项通过" in page)
    probes[0]["verdict"] = "failed"
    page = render(record_of(check={"version": "1", "passed": False, "probes": probes}))[name]
    assert ("**1 FAILED**" in page) or ("**1 项未通过**" in page)
    assert page.split("\n\n")[1].startswith(("**Not private.**", "**不具备隐私保护。**"))
    assert "ε ≥ 0.42" in render(audited(0.42))[name]
    refuted = render(audited(3.0))[name]
    assert "ε ≥ 3.00" in refuted
    assert ("**the claim is REFUTED**" in refuted) or ("**所声明的保证已被推翻**" in refuted)
    assert any(word in refuted for word in ("an audit proved a larger ε", "审计证明的 ε 大于"))


@pytest.mark.parametrize("name", BOTH)
def test_other_deltas_and_resumes_are_told(name: str):
    record = record_of(executed_steps=9, resumes=2)
    page = render(record)[name]
    for at in record.figures.epsilon_at_delta:
        assert at.epsilon is not None
        assert f"{format_epsilon(at.epsilon)} (δ = {at.delta:.0e})" in page or at.delta == 1e-3
    assert ("times resumed: 2" in page) or ("继续 2 次" in page)
    assert "e^ε" in page
