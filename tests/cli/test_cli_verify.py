"""`discreet verify`: what it prints, and the status that scripts go by."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from discreet.cli import main
from discreet.statement.signing import ReleaseKey, public_pem
from tests.statement.conftest import (  # noqa: F401
    _key_of_its_own,
    _original,
    key,
    model,
    record,
    release,
)


def test_a_valid_release_ends_with_status_0(release: Path, capsys: pytest.CaptureFixture[str]):  # noqa: F811
    assert main(["verify", str(release)]) == 0
    told = capsys.readouterr().out
    assert told.startswith("valid")
    assert "ε = 1.80 at δ = 1e-03, per image, add or remove one" in told


@pytest.mark.parametrize("words", [["verify", "release={}"], ["verify", "--release", "{}"]])
def test_the_folder_may_be_an_argument(release: Path, words: list[str]):  # noqa: F811
    assert main([word.format(release) for word in words]) == 0


def test_a_changed_release_ends_with_status_2_and_says_what_differs(
    release: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
):
    with (release / "weights.pt").open("ab") as stream:
        stream.write(b"\0")
    assert main(["verify", str(release)]) == 2
    told = capsys.readouterr().err
    assert "NOT VALID" in told
    assert "weights.pt: it was changed" in told
    assert "\n  ask whoever gave it to you" in told


def test_an_export_beside_the_weights_is_the_readers_own_to_remove(
    release: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
):
    (release / "weights.onnx").write_bytes(b"")
    assert main(["verify", str(release)]) == 2
    told = capsys.readouterr().err
    assert "weights.onnx: it does not belong" in told
    assert "remove what does not belong if you put it there, as an export does; else ask" in told


def test_json_tells_the_same(
    release: Path,  # noqa: F811
    key: ReleaseKey,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    (tmp_path / "key.pem").write_text(public_pem(key.signer))
    assert main(["verify", str(release), f"key={tmp_path / 'key.pem'}", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (
        facts["valid"] is facts["claim_valid"] is facts["signed"] is facts["key_is_known"] is True
    )
    (release / "PRIVACY.md").write_text("trust me")
    assert main(["verify", str(release), "--json"]) == 2
    facts = json.loads(capsys.readouterr().out)
    assert facts["valid"] is False
    assert facts["faults"] == facts["error"]["problems"]


@pytest.mark.parametrize(
    "words",
    [["verify"], ["verify", "a", "release=b"], ["verify", "a", "seed=1"], ["verify", "/no"]],
)
def test_mistakes_are_told(words: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(words) == 2
    assert capsys.readouterr().err.startswith("error:")


def test_help_tells_how(capsys: pytest.CaptureFixture[str]):
    assert main(["help", "verify"]) == 0
    assert "discreet verify FOLDER [key=PUBLIC.pem]" in capsys.readouterr().out
