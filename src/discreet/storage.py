"""Files that are either whole or absent, whatever happens to the machine in between."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from discreet.errors import StorageError

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None


def write_atomically(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Write to a temporary file beside `path`, flush it to the disk, then rename it.

    Raises:
        StorageError: If the disk refuses; `path` then is what it was before.
    """
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as stream:
                write(stream)
                stream.flush()
                os.fsync(stream.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        if isinstance(error, RuntimeError) and "write" not in str(error).lower():
            raise
        raise StorageError(
            f"cannot be written ({getattr(error, 'strerror', None) or error})",
            where=str(path),
            do="make room or fix the permissions; what was written before is still there",
        ) from error


SEAL_BYTES = 32

Seal = Callable[[bytes], bytes]
"""From a digest to its seal, `SEAL_BYTES` long, which only the holder of a key can make."""


class _Hashing:
    """A stream that knows the digest of what went through it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.hash = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.hash.update(data)
        return self._stream.write(data)

    def flush(self) -> None:
        self._stream.flush()


def write_sealed(path: Path, write: Callable[[Any], None], *, seal: Seal) -> None:
    """`write_atomically`, with a seal over the content behind it.

    Args:
        path: The file.
        write: Writes the content to a stream that has `write` and `flush`.
        seal: Seals the content's sha256.
    """

    def write_both(stream: BinaryIO) -> None:
        hashing = _Hashing(stream)
        write(hashing)
        stream.write(seal(hashing.hash.digest()))

    write_atomically(path, write_both)


def is_sealed(path: Path, *, seal: Seal) -> bool:
    """Whether a file is, to the last byte, what `write_sealed` wrote.

    Raises:
        OSError: If it cannot be read.
    """
    with path.open("rb") as stream:
        left = max(0, path.stat().st_size - SEAL_BYTES)
        digest = hashlib.sha256()
        while part := stream.read(min(left, 1 << 20)):
            digest.update(part)
            left -= len(part)
        return hmac.compare_digest(stream.read(), seal(digest.digest()))


def write_json(path: Path, value: Any) -> None:
    """Write JSON, indented, sorted by nothing: the order given is the order read."""
    data = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    write_bytes(path, data)


def write_text(path: Path, text: str) -> None:
    """Write text, whole or not at all."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes, whole or not at all."""
    write_atomically(path, lambda stream: _write_all(stream, data))


def _write_all(stream: BinaryIO, data: bytes) -> None:
    stream.write(data)


def make_folder(path: Path) -> None:
    """Make a folder and its parents, and prove that files can be written there.

    Raises:
        StorageError: If not.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path) as probe:
            probe.write(b"\0")
    except OSError as error:
        raise StorageError(
            f"the folder cannot be written ({error.strerror or error})",
            where=str(path),
            do="choose another with project=FOLDER",
        ) from error


def check_space(folder: Path, *, needed: int) -> None:
    """Refuse a disk that has less than `needed` bytes left.

    Raises:
        StorageError: If so.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StorageError(
            f"the disk has {free / 2**20:.0f} MiB left, the run needs {needed / 2**20:.0f}",
            where=str(folder),
            do="make room, or choose another disk with project=FOLDER",
        )


def lock_folder(folder: Path) -> BinaryIO:
    """Claim a folder for this process until the returned file is closed, or the process ends.

    Raises:
        StorageError: If another process holds it, or it cannot be written.
    """
    try:
        stream = (folder / ".lock").open("ab")
    except OSError as error:
        raise StorageError(
            f"cannot be locked ({error.strerror or error})",
            where=str(folder),
            do="fix the permissions",
        ) from error
    if fcntl is not None:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            stream.close()
            raise StorageError(
                "this run is already going on in another process",
                where=str(folder),
                do="wait for it, or stop it first",
            ) from error
    return stream


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries: the name of a new file is durable only then."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
