"""The durable record of a run's steps: a line is on disk before its update is visible.

A crash can therefore over-count a step that never took effect, but never under-count one that
did. The file is append-only JSON lines: a header, then one line per charged event.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from discreet.accounting import Event, event_from_json, merge
from discreet.errors import AccountingError, LedgerError
from discreet.storage import sync_folder, write_bytes

SCHEMA = 1
_HEADER: dict[str, object] = {"ledger": "discreet", "schema": SCHEMA}


class Ledger(Protocol):
    """Where steps are charged."""

    def charge(self, event: Event) -> None:
        """Record `event` durably; returns only when it would survive a power cut."""
        ...

    @property
    def events(self) -> tuple[Event, ...]:
        """All that was charged, in order."""
        ...


class RunLedger:
    """A run's own ledger, one file.

    Args:
        path: The file.
        new: Whether to begin it. A ledger that should be there and is not is never begun
            again: what it charged would be forgotten.
        first: What the first step is charged as: so a first charge that a crash tore counts.

    Raises:
        LedgerError: If the file cannot be written, is missing, is there though it should be
            new, or holds something else than a ledger.
    """

    def __init__(self, path: Path, *, new: bool, first: Event | None = None) -> None:
        self._path = path
        self._events: tuple[Event, ...] = ()
        if path.exists() == new:
            raise LedgerError(
                "a ledger is there already" if new else "the ledger is missing",
                where=str(path),
                do="choose another name"
                if new
                else "restore the file from a backup; without it the run cannot be continued",
            )
        try:
            if new:
                _append(path, _HEADER)
                sync_folder(path.parent)
            else:
                _mend_torn_header(path)
                self._events = merge(list(_read(path, first=first)))
                _mend_torn_tail(path)
        except OSError as error:
            raise self._unwritable(error) from error

    def charge(self, event: Event) -> None:
        """Append one line and flush it to the disk.

        Raises:
            LedgerError: If the line cannot be made durable; the step must not go on.
        """
        try:
            _append(self._path, {"charge": event.to_json()})
        except OSError as error:
            raise self._unwritable(error) from error
        self._events = merge([*self._events, event])

    @property
    def events(self) -> tuple[Event, ...]:
        """All that was charged, in order, equal neighbours merged."""
        return self._events

    def _unwritable(self, error: OSError) -> LedgerError:
        return LedgerError(
            f"the ledger cannot be written ({error.strerror or error}); the step was not applied",
            where=str(self._path),
            do="make room or fix the permissions, then resume the run",
        )


def _append(path: Path, line: dict[str, object]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        data = _encoded(line)
        if os.write(descriptor, data) != len(data):
            raise OSError("the disk took only part of the line")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _encoded(line: dict[str, object]) -> bytes:
    return (json.dumps(line, allow_nan=False, sort_keys=True) + "\n").encode()


def _mend_torn_header(path: Path) -> None:
    # A crash while the ledger was begun: nothing was charged in it, its header is written anew.
    header, found = _encoded(_HEADER), path.read_bytes()
    if len(found) < len(header) and header.startswith(found):
        write_bytes(path, header)


def _mend_torn_tail(path: Path) -> None:
    # A torn last line was read as a charge; ending it keeps the next line apart from it.
    if not path.read_bytes().endswith(b"\n"):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _read(path: Path, *, first: Event | None) -> Iterator[Event]:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    try:
        header = json.loads(lines[0]) if lines else {}
    except ValueError:
        header = {}
    if not isinstance(header, dict) or header.get("ledger") != "discreet":
        raise LedgerError("not a ledger", where=str(path), do="name the folder of a run")
    if header.get("schema") != SCHEMA:
        raise LedgerError(
            f"ledger of schema {header.get('schema')}, this version reads {SCHEMA}",
            where=str(path),
            do="use the version that wrote it",
        )
    last = first
    for number, line in enumerate(lines[1:], start=2):
        try:
            content = json.loads(line)
        except ValueError as error:
            # A torn line is a charge whose step may have run: counted as the one before it.
            if last is None:
                raise _unreadable(path, number, error) from error
        else:
            try:
                last = event_from_json(content["charge"])
            except (AccountingError, KeyError, TypeError) as error:
                # Whole but not understood, as from a later version: never guessed.
                raise _unreadable(path, number, error) from error
        yield last


def _unreadable(path: Path, number: int, error: Exception) -> LedgerError:
    return LedgerError(
        f"the line cannot be read ({error})",
        where=f"{path}:{number}",
        do="restore the file from a backup; without it the run cannot be continued",
    )
