"""A stranger verifies a release: its files, its seal, its keys and its weights."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from discreet.errors import ConfigurationError, StorageError
from discreet.statement.schema import PrivacyRecord
from discreet.statement.signing import ReleaseKey, open_key, public_pem
from discreet.statement.verify import verify_release

from .conftest import Reseal, record_of


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


PASSED, FAILED = ({"name": "noise", "verdict": verdict} for verdict in ("passed", "failed"))


def _claim_less(content: dict[str, Any]) -> None:
    content["privacy"]["epsilon"] = 0.1


def _let_exports_claim_less(content: dict[str, Any]) -> None:
    content["model"].yaml["yaml_file"] = 'detector, privacy {"epsilon": 0.1}.yaml'


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
