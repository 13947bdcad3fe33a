from __future__ import annotations

import errno
from pathlib import Path
from typing import BinaryIO

import pytest

from discreet.errors import StorageError
from discreet.storage import make_folder, write_atomically, write_json


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
