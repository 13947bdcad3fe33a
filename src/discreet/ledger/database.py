"""Where a data set ledger lies: a SQLite file, or a PostgreSQL database by URL, in one code.

A transaction that writes has the ledger for itself from its first statement: `BEGIN IMMEDIATE`
on SQLite, row locks on PostgreSQL. A commit returns once it would survive a power cut.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
from collections.abc import Generator
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import platformdirs
from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, select
from sqlalchemy.exc import ArgumentError, DBAPIError

from discreet.errors import ConfigurationError, LedgerError
from discreet.ledger.faults import damaged, translate
from discreet.ledger.tables import READABLE, SCHEMA, meta, metadata

VARIABLE = "DISCREET_LEDGER"
BUSY_SECONDS = 30
KEY_BYTES = 32
_WRITES = "discreet_writes"  # execution option of a transaction
_POSTGRES_SETTINGS = {
    "synchronous_commit": "on",
    "lock_timeout": f"{BUSY_SECONDS}s",
    # A client that froze in the middle must not hold the others up for ever.
    "idle_in_transaction_session_timeout": "120s",
}
_CREATION_LOCK = 0x64697363  # any number that is ours, for PostgreSQL's advisory lock

# Engines inherited over a fork: never used, never closed, as SQLite asks of a child.
_abandoned: list[Engine] = []


def default_location() -> str:
    """`DISCREET_LEDGER` if it is set, else `ledger.sqlite` in the user's data directory."""
    return os.environ.get(VARIABLE) or str(
        Path(platformdirs.user_data_dir("discreet", appauthor=False)) / "ledger.sqlite"
    )


def now() -> str:
    """The time in UTC, as information: nothing depends on the order of clocks."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Database:
    """A ledger's database, its key, and its transactions.

    Args:
        where: A path, or a `postgresql://` URL; `default_location()` if not given.
        create: Whether to begin the ledger where there is none.

    Raises:
        LedgerError: If it cannot be opened, is not there, or is of an unknown schema.
        ConfigurationError: If the URL is not one of PostgreSQL, or its driver is not installed.
    """

    def __init__(self, where: str | Path | None = None, *, create: bool = True) -> None:
        self._url = _parse(default_location() if where is None else where)
        self.is_sqlite = self._url.get_backend_name() == "sqlite"
        if self.is_sqlite:
            _make_file(Path(self.location), create=create)
        self._file = _identity(Path(self.location)) if self.is_sqlite else None
        self._engine = self._make_engine()
        self._pid = os.getpid()
        try:
            self.key, self.ledger_id = self._identity(create=create)
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"Database({self.location!r})"

    @property
    def location(self) -> str:
        """The file, or the URL without its password."""
        if self.is_sqlite:
            return str(self._url.database)
        # Without the query too: it may hold a password as well.
        url = self._url
        return URL.create(
            "postgresql",
            username=url.username,
            host=url.host,
            port=url.port,
            database=url.database,
        ).render_as_string()

    @contextlib.contextmanager
    def transaction(self, *, write: bool = False) -> Generator[Connection]:
        """A transaction: committed and durable when the block ends, undone if it raises.

        Args:
            write: Whether it writes, and must be alone from the start.

        Raises:
            LedgerError: If the database refuses.
        """
        self._refuse_another_file()
        try:
            with self._own_engine().connect() as connection:
                connection = connection.execution_options(**{_WRITES: write})
                if not write and not self.is_sqlite:
                    # One view for all that is read, as SQLite gives by itself.
                    connection = connection.execution_options(isolation_level="REPEATABLE READ")
                with connection.begin():
                    yield connection
        except UnicodeDecodeError:  # of SQLite's own message, about a schema that is no text
            raise damaged(self.location, "its tables cannot be read") from None
        except DBAPIError as error:
            # Without the cause: it may hold the URL, and what was to be written.
            raise translate(error, location=self.location, secrets=_secrets_of(self._url)) from None
        if write:
            self._refuse_another_file()  # what was written to a file without a name is lost

    def lock(self, connection: Connection) -> None:
        """Wait for all others that reserve, settle or change budgets, and keep them out.

        SQLite needs nothing: there, a transaction that writes is alone.
        """
        connection.execute(select(meta.c.value).where(meta.c.key == "schema").with_for_update())

    def close(self) -> None:
        """Close the connections of this process."""
        if os.getpid() == self._pid:
            self._engine.dispose()

    def _refuse_another_file(self) -> None:
        """An open connection goes on with a file that was deleted: nobody would see its charges."""
        if self._file is not None and _identity(Path(self.location)) != self._file:
            raise LedgerError(
                "the ledger was deleted or replaced while it was in use",
                where=self.location,
                do="put it back, then resume the run: its own ledger tells how far it went",
            )

    def _own_engine(self) -> Engine:
        if os.getpid() != self._pid:
            _abandoned.append(self._engine)
            self._engine, self._pid = self._make_engine(), os.getpid()
        return self._engine

    def _make_engine(self) -> Engine:
        if self.is_sqlite:
            engine = create_engine(
                self._url, hide_parameters=True, connect_args={"timeout": BUSY_SECONDS}
            )
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
            return engine
        engine = create_engine(
            self._url,
            hide_parameters=True,
            isolation_level="READ COMMITTED",
            pool_pre_ping=True,
            connect_args={"connect_timeout": BUSY_SECONDS},
        )
        event.listen(engine, "connect", _prepare_postgres)
        return engine

    def _identity(self, *, create: bool) -> tuple[bytes, str]:
        """The ledger's key and name, once its tables are there and of this schema."""
        self._begin(create=create)
        with self.transaction() as connection:
            values = dict(connection.execute(select(meta.c.key, meta.c.value)).tuples().all())
            if not self.is_sqlite:
                self._refuse_forgetful_server(connection)
        if values.get("schema") not in READABLE:
            raise LedgerError(
                f"ledger of schema {values.get('schema')}, this version reads {SCHEMA}",
                where=self.location,
                do="use the version of discreet that wrote it",
            )
        try:
            return bytes.fromhex(values["key"]), values["ledger_id"]
        except (KeyError, ValueError):
            raise damaged(self.location, "its key cannot be read") from None

    def _begin(self, *, create: bool) -> None:
        """Make the tables and the key where there are none, in one transaction."""
        with self.transaction(write=create) as connection:
            if not self.is_sqlite and create:
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_CREATION_LOCK})")
            tables = inspect(connection).get_table_names()
            if meta.name in tables:
                return
            if not create:
                raise _no_ledger(self.location)
            if self.is_sqlite and tables:
                raise LedgerError(
                    "not a ledger: the database holds other tables",
                    where=self.location,
                    do="name another file with ledger=",
                )
            metadata.create_all(connection)
            values = {
                "schema": str(SCHEMA),
                "ledger_id": secrets.token_hex(8),
                "key": secrets.token_hex(KEY_BYTES),
                "created": now(),
                "datasets": "0",
            }
            connection.execute(
                meta.insert(), [{"key": key, "value": value} for key, value in values.items()]
            )

    def _refuse_forgetful_server(self, connection: Connection) -> None:
        if connection.exec_driver_sql("SHOW fsync").scalar() != "on":
            raise LedgerError(
                "the server runs with fsync off: a charge would not survive a power cut",
                where=self.location,
                do="set fsync = on in the server's configuration",
            )


def _parse(where: str | Path) -> URL:
    text = str(where)
    if "\0" in text:
        raise ConfigurationError("a file name holds no NUL", where="ledger")
    if "://" not in text:
        return URL.create("sqlite", database=str(Path(text).expanduser().absolute()))
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        # Without the text: it may hold a password.
        raise ConfigurationError(
            "not a URL of a database", where="ledger", do="Write postgresql://USER@HOST/NAME."
        ) from None
    if url.drivername not in ("postgresql", "postgres", "postgresql+psycopg"):
        raise ConfigurationError(
            f"a ledger cannot lie at {url.drivername}://",
            where="ledger",
            do="Give the path of a file (SQLite), or postgresql://USER@HOST/NAME.",
        )
    if find_spec("psycopg") is None:
        raise ConfigurationError(
            "PostgreSQL needs the package psycopg",
            where="ledger",
            do='Install it with `pip install ".[postgres]"` in the checkout.',
        )
    return url.set(drivername="postgresql+psycopg")


def without_secrets(where: str | Path) -> str | None:
    """The same place, to be written down: an absolute path, a URL; None if it holds a password."""
    url = _parse(where)
    if url.get_backend_name() == "sqlite":
        return url.database
    return None if _secrets_of(url) else str(where)


def _secrets_of(url: URL) -> list[str]:
    """What no message may repeat."""
    queried = [value for key, value in url.query.items() if "password" in key]
    return [text for text in (url.password, *queried) if isinstance(text, str) and text]


def _no_ledger(location: str) -> LedgerError:
    return LedgerError(
        "there is no ledger",
        where=location,
        do="The first run or budget begins it; name another one with ledger=.",
    )


def _make_file(path: Path, *, create: bool) -> None:
    """Make the file for its owner's eyes only; SQLite's side files take over its permissions."""
    if not create and not path.exists():
        raise _no_ledger(str(path))
    try:
        if create:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        else:
            os.close(os.open(path, os.O_RDONLY))
    except OSError as error:
        raise LedgerError(
            f"the ledger cannot be opened ({error.strerror or error})",
            where=str(path),
            do="Check the permissions of the file and its folder, or choose another ledger with "
            "ledger=.",
        ) from error


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _prepare_sqlite(connection: sqlite3.Connection, record: object) -> None:
    del record
    connection.isolation_level = None  # BEGIN is ours: see `_begin_sqlite`
    cursor = connection.cursor()
    # The mode is a property of the file: asking for it again would need a writable one.
    if cursor.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA fullfsync=ON")  # macOS: through the drive's own cache
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, True)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _prepare_postgres(connection: Any, record: object) -> None:
    del record
    with connection.cursor() as cursor:
        for name, value in _POSTGRES_SETTINGS.items():
            cursor.execute(f"SET {name} TO '{value}'")
    connection.commit()
