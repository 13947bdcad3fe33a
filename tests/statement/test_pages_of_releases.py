"""The pages of a release say what its record says."""

from __future__ import annotations

from pathlib import Path

import pytest

from discreet.statement.schema import PrivacyRecord
from discreet.statement.signing import ReleaseKey
from discreet.statement.verify import verify_release

PASSED, FAILED = ({"name": "noise", "verdict": verdict} for verdict in ("passed", "failed"))


def test_a_page_of_another_record_is_found(release: Path, record: PrivacyRecord, key: ReleaseKey):
    from discreet.statement import sealing
    from discreet.statement.page import render
    from discreet.statement.scan import PrivateWords

    with pytest.MonkeyPatch.context() as patch:
        other = {name: text.replace("1.", "0.") for name, text in render(record).items()}
        patch.setattr(sealing, "render", lambda _: other)
        sealing.seal(release, record=record, key=key, words=PrivateWords())
    assert any("not the page of this record" in fault for fault in verify_release(release).faults)


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
