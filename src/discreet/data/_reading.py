"""Read whole files, refusing what is not a plain file, in one wording."""

from __future__ import annotations

import itertools
import os
import stat
from pathlib import Path


class UnreadableError(Exception):
    """A file that cannot be read; the text says why.

    Attributes:
        line: Where in the file, if it is a place in it.
    """

    def __init__(self, what: str, *, line: int | None = None) -> None:
        self.line = line
        super().__init__(what)


def resolved(path: Path) -> Path:
    """The path with links resolved; links in a circle are left, not an error."""
    return Path(os.path.realpath(path))


def exists(path: Path) -> bool:
    """Whether there is something; False where it may not be looked at (Path.exists raises)."""
    return os.path.exists(path)  # noqa: PTH110


def is_folder(path: Path) -> bool:
    """Whether there is a folder; False where it may not be looked at (Path.is_dir raises)."""
    return os.path.isdir(path)  # noqa: PTH112


def names_in(folder: Path, *, at_most: int | None = None) -> list[str]:
    """The sorted names in a folder; none where they may not be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in itertools.islice(entries, at_most))
    except OSError:
        return []


def read_bytes(path: Path) -> bytes:
    """All bytes of a plain file, links followed.

    Raises:
        UnreadableError: There is none, or it may not be read.
    """
    try:
        # Reading a pipe would block, reading a device might not end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise UnreadableError("not a plain file")
        return path.read_bytes()
    except FileNotFoundError as error:
        what = "a link to nothing" if path.is_symlink() else "no such file"
        raise UnreadableError(what) from error
    except OSError as error:
        raise UnreadableError(f"cannot be read: {error.strerror or error}") from error


def read_text(path: Path) -> str:
    """All text of a plain file, UTF-8 with or without a byte-order mark.

    Raises:
        UnreadableError: It cannot be read or is not UTF-8.
    """
    content = read_bytes(path)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UnreadableError("not UTF-8 text", line=line) from error
