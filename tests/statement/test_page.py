from __future__ import annotations

from pathlib import Path

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
