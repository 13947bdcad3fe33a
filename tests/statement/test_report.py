"""The report as a file: what it tells, and what cannot be in it."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from discreet.errors import ReleaseError
from discreet.randomness import InsecureSource
from discreet.statement.files import RELEASED
from discreet.statement.page import percent
from discreet.statement.report import render_report
from discreet.statement.report.charts import spending_chart, ticks, trade_off_chart
from discreet.statement.report.embedding import extract
from discreet.statement.report.page import MOST_BYTES
from discreet.statement.report.repeating import report_faults
from discreet.statement.scan import PrivateWords, scan_release
from discreet.statement.schema import PrivacyRecord, ValidationData
from discreet.statement.sealing import seal, sha256
from discreet.statement.signing import ReleaseKey, make_envelope, make_statement
from discreet.statement.verify import verify_release
from discreet.terminal import format_epsilon

from .conftest import FULL_BATCH, record_of
from .figures import picture, validation_figures

PUBLIC = ValidationData(access="public", metrics_are_released=True)
METRICS = {"precision": 0.81, "recall": 0.77, "map50": 0.787, "map50_95": 0.49}


def proven(epsilon: float) -> dict[str, Any]:
    """A lower bound as an audit gives it."""
    return {"epsilon": epsilon, "confidence": 0.95, "guesses": 300, "correct": 290}


AUDIT: dict[str, Any] = {
    "attack": "gradient",
    "adversary": "sees the noised sum of every step",
    "claimed_epsilon": FULL_BATCH.planned().epsilon,
    "delta": FULL_BATCH.delta,
    "canaries": 5000,
    "included": 2490,
    "one_run": proven(1.13),
    "rates": proven(0.94),
    "conditional": {"gaussian_rates": proven(1.41), "gaussian_one_run": proven(1.2)},
    "reach": 1.68,
    "refuted": False,
    "verdict": "Not refuted.",
}
CHECK: dict[str, Any] = {
    "version": "1",
    "passed": True,
    "probes": [
        {"name": "sensitivity", "verdict": "passed"},
        {"name": "engines", "verdict": "not run"},
    ],
}


class Document(HTMLParser):
    """The elements of a page and its text by language."""

    VOID = frozenset({"meta", "rect", "path", "line", "circle", "image", "use"})

    def __init__(self, html: bytes) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html.decode())
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


def public_record(**changes: Any) -> PrivacyRecord:
    given: dict[str, Any] = {"validation": PUBLIC, "metrics": METRICS, "check": CHECK}
    return record_of(**{**given, "audit": AUDIT, "canaries": True, **changes})


def pages(html: bytes) -> dict[str, str]:
    """The text of each language."""
    parts = re.split(r'<div class="page[^"]*" id="([\w-]+)" lang="\1">', html.decode())
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("language", ["en", "zh-CN"])
def test_both_languages_tell_the_claim_and_its_figures(language: str):
    record = public_record()
    page = pages(render_report(record, validation_figures()))[language]
    attack, epsilon = record.figures.attack, record.claim.epsilon
    assert attack is not None
    assert epsilon is not None
    told = [
        format_epsilon(epsilon),
        percent(attack.balanced_accuracy),
        *(percent(rate.at_most) for rate in attack.true_positive_rates),
        *(format_epsilon(group.epsilon or 0) for group in record.figures.groups),
        *("0.787", "red cell", "white cell", "1.13", "0.94", "1.68", "1.41"),
        *("AdamW", "0, 1", "torch", "ab" * 32, "discreet verify"),
    ]
    for fact in told:
        assert fact in page, fact
    assert page.count('href="#sample-') == 2


def test_a_page_is_whole_small_and_asks_for_nothing():
    html = render_report(public_record(), validation_figures())
    document = Document(html)
    assert len(html) < MOST_BYTES
    assert not re.search(rb"https?:|url\(|@import|javascript:", html)
    assert "//" not in document.text
    names = {name for name, _ in document.elements}
    assert not names & {"script", "link", "iframe", "object", "embed", "form", "base", "img"}
    ids = [attributes["id"] for _, attributes in document.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for name, attributes in document.elements:
        assert not [key for key in attributes if key.startswith("on")]
        source = attributes.get("href") or attributes.get("src")
        assert (
            source is None
            or source[1:] in ids
            or (name == "image" and source.startswith("data:image/jpeg"))
        )
    policy = [a["content"] for _, a in document.elements if "http-equiv" in a]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


def test_names_of_classes_and_settings_are_text():
    hostile = '<script>alert(1)</script>"><b onclick=x>{{ 7*7 }}'
    record = public_record(
        configuration={hostile: hostile},
    )
    html = render_report(record, validation_figures(hostile, "other"))
    document = Document(html)
    assert "script" not in {name for name, _ in document.elements}
    assert not any("onclick" in attributes for _, attributes in document.elements)
    assert hostile in document.text


def test_the_largest_report_is_under_two_megabytes():
    heavy = picture() + b"\0" * 400_000
    names = [f"class {i}" for i in range(80)]
    html = render_report(public_record(), validation_figures(*names, samples=9, jpeg=heavy))
    assert len(html) < MOST_BYTES
    assert html.count(b"data:image/jpeg") == 1
    assert "11 most frequent of 80 classes" in pages(html)["en"]


@pytest.mark.parametrize("access", ["private", "none"])
def test_there_is_no_figure_of_images_that_are_not_public(access: Any):
    record = record_of(validation=ValidationData(access=access, metrics_are_released=False))
    with pytest.raises(ValueError, match="not public"):
        render_report(record, validation_figures())
    html = render_report(record)
    assert b"<image" not in html
    assert b'class="small"' not in html
    assert ("validation images are private" in pages(html)["en"]) is (access == "private")


def test_not_private_is_said_at_the_top():
    reasons = ["noise and sampling are seeded: anyone can repeat them"]
    found = pages(render_report(record_of(source=InsecureSource(1), reasons=reasons)))
    assert found["en"].index("Not private") < found["en"].index("<h1")
    assert reasons[0] in found["en"]
    assert "任何人都能重现" in found["zh-CN"]
    assert "Private, as accounted" not in found["en"]


def test_without_a_bound_there_is_no_curve():
    record = record_of(FULL_BATCH.model_copy(update={"noise_multiplier": 0.0}))
    assert spending_chart(record) is None
    assert trade_off_chart(record) is None
    for page in pages(render_report(record)).values():
        assert "<svg" not in page
        assert "∞" in page


def test_an_audit_that_refutes_says_so():
    refuted = {**AUDIT, "one_run": proven(3.0), "reach": 4.0, "refuted": True}
    record = public_record(audit=refuted)
    assert not record.claim_valid
    page = pages(render_report(record))["en"]
    assert "proves more than is claimed" in page
    assert 'class="fill" width="100.00%"' in page


def test_the_curve_of_spending_ends_at_the_claim():
    chart = spending_chart(record_of())
    assert chart is not None
    heights = [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", chart.line)]
    assert heights[0] == chart.frame.bottom
    assert heights == sorted(heights, reverse=True)  # ε never falls
    assert chart.dots == ((chart.frame.right, heights[-1]),)


def test_the_curve_of_attacks_passes_the_figures_of_the_table(record: PrivacyRecord):
    chart = trade_off_chart(record)
    attack = record.figures.attack
    assert chart is not None
    assert attack is not None
    for dot, rate in zip(chart.dots, attack.true_positive_rates, strict=True):
        assert dot == chart.frame.place((rate.false_positive_rate, rate.at_most))


@pytest.mark.parametrize(
    ("largest", "whole", "expected"),
    [
        (8.6, False, [0, 2, 4, 6, 8]),
        (1.0, False, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (3, True, [0, 1, 2, 3]),
        (1, True, [0, 1]),
        (100, True, [0, 20, 40, 60, 80, 100]),
        (0.003, False, [0, 0.001, 0.002, 0.003]),
    ],
)
def test_ticks_are_round(largest: float, whole: bool, expected: list[float]):
    assert ticks(largest, whole=whole) == pytest.approx(expected)


def test_a_release_with_pictures_verifies_and_any_change_of_them_is_found(
    release: Path, key: ReleaseKey
):
    record = public_record()
    words = PrivateWords(names=frozenset({"patient"}))
    seal(release, record=record, key=key, words=words, validation=validation_figures())
    assert scan_release(release) == []
    path = release / "report.html"
    data = path.read_bytes()
    at = data.index(b"base64,") + 40
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    assert "report.html: it was changed, or is not stated" in verify_release(release).faults


def test_a_picture_that_carries_words_is_not_released(release: Path, key: ReleaseKey):
    comment = b"\xff\xfe" + (2 + 7).to_bytes(2, "big") + b"patient"
    plain = picture()
    spoken = validation_figures(jpeg=plain[:2] + comment + plain[2:])
    assert base64.b64encode(comment)[:8] not in base64.b64encode(plain)
    with pytest.raises(ReleaseError) as refused:
        seal(release, record=public_record(), key=key, words=PrivateWords(), validation=spoken)
    assert "more than pixels" in str(refused.value)


def resigned(release: Path, change: Callable[[bytes], bytes], key: ReleaseKey) -> tuple[str, ...]:
    """Faults of a release whose publisher changed the report and signed it as it is."""
    path = release / "report.html"
    data = path.read_bytes()
    changed = change(data)
    assert changed != data
    path.write_bytes(changed)
    record = PrivacyRecord.model_validate_json((release / "privacy.json").read_bytes())
    names = [name for name in RELEASED if name != "statement.dsse.json"]
    digests = {name: sha256(release / name) for name in sorted(names)}
    envelope = make_envelope(make_statement(record, digests), key)
    (release / "statement.dsse.json").write_bytes(envelope)
    return verify_release(release).faults


@pytest.mark.parametrize(
    "change",
    [
        lambda html: html.replace(b"at most <", b"never <").replace(b"<dd>each", b"<dd>no"),
        lambda html: re.sub(rb'(<dt>..</dt><dd>)[\d.]+', rb"\g<1>0.10", html, count=1),
        lambda html: html.replace(b"</main>", b"<p>Approved.</p></main>"),
        lambda html: re.sub(rb'class="line" d="M', b'class="line" d="M1 1L', html, count=1),
        lambda html: html.replace(b"data-validation=\"{", b"data-validation=\"[{"),
        lambda html: html.replace(b"red cell 0.90", b"red cell 0.99"),
        lambda html: html + b"\n" * MOST_BYTES,
    ],
)  # fmt: skip
def test_a_report_that_says_something_else_is_found_though_it_is_signed(
    release: Path, key: ReleaseKey, change: Callable[[bytes], bytes]
):
    seal(
        release,
        record=public_record(),
        key=key,
        words=PrivateWords(),
        validation=validation_figures(),
    )
    faults = resigned(release, change, key)
    assert [fault for fault in faults if fault.startswith("report.html: ")]


def test_another_accountant_may_draw_other_curves_and_no_more(record: PrivacyRecord):
    html = render_report(record)
    other = re.sub(rb'class="line" d="M', b'class="line" d="M1 1L', html, count=1)
    assert report_faults(html, record, same_accountant=True) == []
    assert report_faults(other, record, same_accountant=True)
    assert report_faults(other, record, same_accountant=False) == []
    assert report_faults(html.replace(b"at most", b"never"), record, same_accountant=False)


def test_figures_survive_the_way_into_a_report_and_out():
    figures = validation_figures("<a href='x'>&\"", "b")
    assert extract(render_report(public_record(), figures).decode()) == figures
    assert extract(render_report(record_of()).decode()) is None
