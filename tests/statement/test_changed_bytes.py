"""Every changed byte of a release is found."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from discreet.statement.schema import PrivacyRecord
from discreet.statement.signing import ReleaseKey
from discreet.statement.verify import verify_release

from .conftest import Reseal


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


PASSED, FAILED = ({"name": "noise", "verdict": verdict} for verdict in ("passed", "failed"))
