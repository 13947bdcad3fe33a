"""Ledgers to test on: a SQLite file, and a PostgreSQL server of our own where it is installed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from discreet.accounting import PoissonSampledGaussian, make_accountant
from discreet.ledger import BudgetLedger

# Full batches have a closed form: ε is exact and instant.
STEP = PoissonSampledGaussian(sample_rate=1.0, noise_multiplier=20.0, steps=1)
DELTA = 1e-5
PLD = make_accountant("pld")
PASSWORD = "very-secret-password"


def images(*numbers: int) -> list[bytes]:
    """Content digests of made-up images."""
    return [hashlib.blake2b(str(n).encode(), digest_size=16).digest() for n in numbers]


def epsilon(steps: int, step: PoissonSampledGaussian = STEP) -> float:
    return PLD.epsilon([step.with_steps(steps)], delta=DELTA)


def _binaries() -> Path | None:
    def version(folder: Path) -> float:
        with contextlib.suppress(ValueError):
            return float(folder.parent.name)
        return 0.0

    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=version)
    on_path = shutil.which("initdb")
    return found[-1] if found else Path(on_path).parent if on_path else None


def _as_user() -> list[str]:
    """PostgreSQL refuses to run as root: a prefix that makes it run as somebody else."""
    if os.getuid() != 0:
        return []
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        pytest.skip("needs PostgreSQL: root has no user postgres to run it as")
    if shutil.which("setpriv") is None:
        pytest.skip("needs PostgreSQL: root has no setpriv to run it as somebody else")
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a server's databases, to which a name is appended."""
    pytest.importorskip("psycopg", reason="needs psycopg: pip install '.[postgres]'")
    binaries = _binaries()
    if binaries is None:
        pytest.skip("needs PostgreSQL: no /usr/lib/postgresql/*/bin (apt install postgresql)")
    prefix = _as_user()
    # Not below pytest's own folder, which only root may enter.
    folder = Path(tempfile.mkdtemp(prefix="discreet-postgres-"))
    try:
        (folder / "password").write_text(PASSWORD)
        if prefix:
            shutil.chown(folder, "postgres", "postgres")
            shutil.chown(folder / "password", "postgres", "postgres")
        data, port = folder / "data", _free_port()

        def call(*words: str) -> None:
            with (folder / "output").open("ab") as output:
                done = subprocess.run(
                    [*prefix, str(binaries / words[0]), *words[1:]],
                    cwd=folder, stdout=output, stderr=output, timeout=120,
                )  # fmt: skip
            assert done.returncode == 0, (folder / "output").read_text()

        call(
            "initdb", "-D", str(data), "-U", "tester", "--auth=scram-sha-256",
            f"--pwfile={folder / 'password'}", "--encoding=UTF8", "--locale=C",
        )  # fmt: skip
        options = f"-p {port} -c listen_addresses=127.0.0.1 -k {folder}"
        call("pg_ctl", "-D", str(data), "-l", str(folder / "log"), "-o", options, "-w", "start")
        try:
            yield f"postgresql://tester:{PASSWORD}@127.0.0.1:{port}/"
        finally:
            call("pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_database(postgres: str) -> str:
    """URL of a new, empty database."""
    import psycopg

    name = f"ledger_{secrets.token_hex(6)}"
    with psycopg.connect(f"{postgres}postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
    return f"{postgres}{name}"


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a ledger may lie, on both databases."""
    if request.param == "sqlite":
        return str(tmp_path / "ledger.sqlite")
    return request.getfixturevalue("postgres_database")


@pytest.fixture
def ledger(where: str) -> Iterator[BudgetLedger]:
    opened = BudgetLedger.open(where)
    yield opened
    opened.close()


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[BudgetLedger]:
    opened = BudgetLedger.open(tmp_path / "ledger.sqlite")
    yield opened
    opened.close()
