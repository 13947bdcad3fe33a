"""What a database says when something is wrong, in words that name the file and the way out."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.exc import DBAPIError

from discreet.errors import LedgerError

_NOT_APPLIED = "Nothing was recorded, and no step may run on it. "

_SQLITE: tuple[tuple[str, str, str], ...] = (
    (
        "SQLITE_READONLY",
        "the ledger is read-only",
        "Give yourself write permission on the file and its folder, or choose another ledger "
        "with ledger=.",
    ),
    (
        "SQLITE_CANTOPEN",
        "the ledger cannot be opened",
        "Check that the folder is there and that you may write in it, or choose another ledger "
        "with ledger=.",
    ),
    (
        "SQLITE_PERM",
        "the ledger cannot be opened",
        "Check the permissions of the file and its folder.",
    ),
    (
        "SQLITE_FULL",
        "the disk is full",
        "Make room, then start again or resume the run: what was charged before is still there.",
    ),
    (
        "SQLITE_IOERR",
        "the disk refused to read or write",
        "Make room and check the disk, then start again or resume the run: what was charged "
        "before is still there.",
    ),
    (
        "SQLITE_NOTADB",
        "not a ledger: the file is no SQLite database",
        "Name another file with ledger=, or restore this one from a backup.",
    ),
    (
        "SQLITE_CORRUPT",
        "the ledger is damaged",
        "Restore the file from a backup; runs that are resumed bring it up to date. Do not begin "
        "a new one: what was spent would be forgotten.",
    ),
    (
        "SQLITE_BUSY",
        "another program has held the ledger for 30 seconds",
        "Find out which (backup tools, database browsers), close it, then start again.",
    ),
    (
        "SQLITE_LOCKED",
        "another program holds the ledger",
        "Find out which (backup tools, database browsers), close it, then start again.",
    ),
)


def translate(error: DBAPIError, *, location: str, secrets: Sequence[str]) -> LedgerError:
    """The error to raise in place of the database's own.

    Args:
        error: What SQLAlchemy raised.
        location: The ledger, without a password.
        secrets: Left out of the message where they occur.
    """
    name = getattr(error.orig, "sqlite_errorname", None)
    # Text that is none, or tables that are not as they were made.
    if "Could not decode" in str(error.orig) or name == "SQLITE_ERROR":
        name = "SQLITE_CORRUPT"
    if isinstance(name, str):
        for prefix, what, do in _SQLITE:
            if name.startswith(prefix):
                return LedgerError(what, where=location, do=_NOT_APPLIED + do)
    text = " ".join(str(error.orig).split())
    for secret in secrets:
        text = text.replace(secret, "***")
    if isinstance(name, str) or not location.startswith("postgresql"):
        what, do = f"the database refused ({text})", "Check the file, then start again."
    elif getattr(error.orig, "sqlstate", None) == "55P03":
        what = "another program has held the ledger for 30 seconds"
        do = "Find out which, end it, then start again."
    elif getattr(error.orig, "sqlstate", None) in (None, "57P01", "57P02", "57P03", "08006"):
        what = f"the database server cannot be reached ({text})"
        do = "Start the server and check its address, then start again or resume the run."
    else:
        what, do = f"the database refused ({text})", "Check the rights of the user on the database."
    return LedgerError(what, where=location, do=_NOT_APPLIED + do)


def damaged(location: str, what: str) -> LedgerError:
    """The error for a row that is not what was written, or is gone."""
    return LedgerError(
        f"the ledger is damaged: {what}",
        where=location,
        do="Restore it from a backup; runs that are resumed bring it up to date. Do not begin a "
        "new one: what was spent would be forgotten.",
    )
