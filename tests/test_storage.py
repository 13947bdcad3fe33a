from __future__ import annotations

import errno
import hashlib
from pathlib import Path
from typing import BinaryIO

import pytest

from discreet.errors import StorageError
from discreet.storage import (
    SEAL_BYTES,
    is_sealed,
    make_folder,
    write_atomically,
    write_json,
    write_sealed,
)


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path):
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})

    def full(stream: BinaryIO) -> None:
        stream.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StorageError, match="No space left"):
        write_atomically(path, full)
    assert path.read_text() == '{\n  "old": 1\n}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_other_failures_pass_through(tmp_path: Path):
    def fail(stream: BinaryIO) -> None:
        raise KeyError("bug")

    with pytest.raises(KeyError):
        write_atomically(tmp_path / "a", fail)
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_folder_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="project="):
        make_folder(tmp_path / "file" / "run")


def test_json_with_nan_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": float("nan")})


def seal(digest: bytes) -> bytes:
    return hashlib.blake2b(digest, key=b"key of a ledger").digest()[:SEAL_BYTES]


def test_a_sealed_file_is_whole_or_refused(tmp_path: Path):
    path = tmp_path / "c.pt"
    write_sealed(path, lambda stream: stream.write(b"x" * 3_000_000), seal=seal)
    assert is_sealed(path, seal=seal)
    whole = path.read_bytes()
    for changed in (
        whole[:-1],
        whole[1:],
        whole + b"\0",
        whole[:SEAL_BYTES],
        b"",
        whole[:1000] + b"y" + whole[1001:],
        whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:],
    ):
        path.write_bytes(changed)
        assert not is_sealed(path, seal=seal)
    path.write_bytes(whole)
    assert not is_sealed(path, seal=lambda digest: seal(digest + b"of another ledger"))
