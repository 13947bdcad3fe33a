"""What goes wrong on disks and servers: a clear error that names the ledger, and nothing lost."""

from __future__ import annotations

import os
import random
import resource
import shutil
import sqlite3
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

import discreet.ledger.database as database_module
from discreet.errors import ConfigurationError, LedgerError
from discreet.ledger import BudgetLedger, RunLedger, reconcile
from tests.ledger.conftest import DELTA, PASSWORD, PLD, STEP, epsilon, images


def reserve(ledger: BudgetLedger, run: str = "a", steps: int = 50, of: range = range(5)):
    return ledger.reserve(
        run_id=run,
        name="blood",
        digests=images(*of),
        planned=[STEP.with_steps(steps)],
        accountant=PLD,
        delta=DELTA,
    )


def spent(ledger: BudgetLedger) -> float:
    return ledger.total("blood", delta=DELTA, accountant=PLD).epsilon


def as_nobody(action: Callable[[], None]) -> str:
    """Run `action` without root's rights, for which no file is read-only; what it raised."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            action()
            text = "nothing was raised"
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as stream:
        return stream.read()


@pytest.fixture
def open_folder(tmp_path: Path) -> Path:
    """A folder that others may enter."""
    for folder in (tmp_path, *tmp_path.parents):
        if "pytest" in str(folder):
            folder.chmod(0o755)
    return tmp_path


def test_a_read_only_file(open_folder: Path):
    path = open_folder / "ledger.sqlite"
    reserve(BudgetLedger.open(path))
    path.chmod(0o444)
    told = as_nobody(lambda: reserve(BudgetLedger.open(path), "b") and None)
    assert told.startswith("LedgerError") and str(path) in told and "permission" in told


def test_a_read_only_folder(open_folder: Path):
    path = open_folder / "ledger.sqlite"
    open_folder.chmod(0o555)
    told = as_nobody(lambda: reserve(BudgetLedger.open(path)) and None)
    assert told.startswith("LedgerError") and str(path) in told and "permission" in told.lower()


def test_a_file_that_becomes_read_only_under_way(open_folder: Path):
    path = open_folder / "ledger.sqlite"
    if os.getuid() == 0:
        os.chown(open_folder, 65534, 65534)

    def action() -> None:
        ledger = BudgetLedger.open(path)
        run = reserve(ledger)
        run.charge(STEP)
        ledger.close()
        path.chmod(0o444)
        run.charge(STEP)

    told = as_nobody(action)
    assert told.startswith("LedgerError") and str(path) in told and "read-only" in told
    assert "no step may run" in told


def test_the_file_is_for_its_owner_only(sqlite: BudgetLedger, tmp_path: Path):
    run = reserve(sqlite)
    run.charge(STEP)
    modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    assert set(modes) >= {"ledger.sqlite", "ledger.sqlite-wal"} and set(modes.values()) == {0o600}


def test_a_full_disk(sqlite: BudgetLedger, tmp_path: Path):
    run = reserve(sqlite, steps=10_000)
    run.charge(STEP)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        size = max(file.stat().st_size for file in tmp_path.iterdir())
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20_000, size + 20_000))
        done, text = 0, ""
        try:
            for done in range(5000):  # noqa: B007
                run.charge(STEP)
        except LedgerError as error:
            text = str(error)
        except BaseException as error:
            text = repr(error)
        os.write(writer, f"{done}\n{text}".encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as stream:
        done, _, text = stream.read().partition("\n")
    assert (
        "disk" in text and str(tmp_path / "ledger.sqlite") in text and "make room" in text.lower()
    )
    # All that was confirmed is there, and the run goes on once there is room.
    run.refresh()
    assert run.charged == 1 + int(done)
    run.charge(STEP)


def test_damage_is_noticed_wherever_it_is(tmp_path: Path):
    whole = tmp_path / "whole.sqlite"
    ledger = BudgetLedger.open(whole)
    for number in range(40):
        run = reserve(ledger, f"run {number}", of=range(number % 3, 200 + number % 3))
        run.charge(STEP, steps=number + 1)
    ledger.set_budget(ledger.datasets()[0].id, 1000.0, DELTA)
    true = [spent_of(ledger, dataset.id) for dataset in ledger.datasets()]
    state = ledger.datasets(), ledger.runs()
    ledger.close()
    content = whole.read_bytes()
    chance = random.Random(0)
    noticed = 0
    for attempt in range(150):
        path = tmp_path / f"damaged-{attempt}.sqlite"
        start = chance.randrange(100, len(content) - 64)
        length = chance.choice([1, 8, 64])
        path.write_bytes(content[:start] + chance.randbytes(length) + content[start + length :])
        try:
            damaged = BudgetLedger.open(path)
            told = [spent_of(damaged, dataset.id) for dataset in state[0]]
            now = damaged.datasets(), damaged.runs()
            damaged.close()
        except LedgerError as error:
            assert str(path) in str(error), error
            assert "backup" in str(error) or "version" in str(error), error
            noticed += 1
        else:  # unused space, or something that nothing rests on
            assert told == true and now == state, f"attempt {attempt}: damage was taken for truth"
        path.unlink()
    assert noticed > 50


def spent_of(ledger: BudgetLedger, dataset: str) -> float:
    return ledger.total(dataset, delta=DELTA, accountant=PLD).epsilon


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE discreet_charges SET position = 1",
        "UPDATE discreet_runs SET private = 1 - private",
        "UPDATE discreet_datasets SET epsilon = 1e9",
        "UPDATE discreet_datasets SET epsilon = NULL",
        "DELETE FROM discreet_runs",
        "DELETE FROM discreet_charges",
        "DELETE FROM discreet_datasets",
        "UPDATE discreet_meta SET value = '00' WHERE key = 'key'",
        "DELETE FROM discreet_meta WHERE key = 'key'",
    ],
)
def test_rows_that_were_changed_or_taken_out_are_noticed(
    sqlite: BudgetLedger, tmp_path: Path, change: str
):
    reserve(sqlite).charge(STEP.with_steps(5))
    sqlite.set_budget("blood", 1000.0, DELTA)
    sqlite.close()
    connection = sqlite3.connect(tmp_path / "ledger.sqlite")
    connection.execute(change)
    connection.commit()
    connection.close()
    with pytest.raises(LedgerError, match="damaged") as caught:
        reserve(BudgetLedger.open(tmp_path / "ledger.sqlite"), "b")
    assert "ledger.sqlite" in str(caught.value) and "backup" in str(caught.value)


def test_another_schema_is_refused(sqlite: BudgetLedger, tmp_path: Path):
    sqlite.close()
    connection = sqlite3.connect(tmp_path / "ledger.sqlite")
    connection.execute("UPDATE discreet_meta SET value = '3' WHERE key = 'schema'")
    connection.commit()
    connection.close()
    with pytest.raises(LedgerError, match="ledger of schema 3, this version reads 2"):
        BudgetLedger.open(tmp_path / "ledger.sqlite")


def test_what_is_no_ledger_is_left_alone(tmp_path: Path):
    text, other = tmp_path / "notes.txt", tmp_path / "other.sqlite"
    text.write_text("shopping list\n" * 100)
    with pytest.raises(LedgerError, match="not a ledger"):
        BudgetLedger.open(text)
    assert text.read_text() == "shopping list\n" * 100
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE shopping (item)")
    connection.commit()
    connection.close()
    with pytest.raises(LedgerError, match="other tables"):
        BudgetLedger.open(other)
    with pytest.raises(LedgerError, match="cannot be opened"):
        BudgetLedger.open(tmp_path)
    with pytest.raises(LedgerError, match="there is no ledger"):
        BudgetLedger.open(tmp_path / "missing.sqlite", create=False)
    assert not (tmp_path / "missing.sqlite").exists()


def test_a_ledger_that_somebody_holds(
    sqlite: BudgetLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = reserve(sqlite)
    holder = sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    monkeypatch.setattr(database_module, "BUSY_SECONDS", 0.2)
    other = BudgetLedger.open(tmp_path / "ledger.sqlite", create=False)
    with pytest.raises(LedgerError, match="another program has held the ledger") as caught:
        other.reopen(run.run_id).charge(STEP)
    assert "ledger.sqlite" in str(caught.value)
    holder.execute("COMMIT")
    holder.close()
    run.charge(STEP)
    other.close()


def test_a_clock_that_is_set_back_changes_nothing(
    ledger: BudgetLedger, monkeypatch: pytest.MonkeyPatch
):
    times = iter(f"20{year:02}-01-01T00:00:00+00:00" for year in range(99, 0, -1))
    for module in ("budget", "reservation", "overlaps"):
        monkeypatch.setattr(f"discreet.ledger.{module}.now", lambda: next(times))
    first, second = reserve(ledger, "a", 10), reserve(ledger, "b", 10)
    first.charge(STEP)
    second.charge(STEP)
    assert ledger.set_budget("blood", epsilon(15), DELTA).limits == {"b": 5}
    assert [run.id for run in ledger.runs()] == ["a", "b"]
    assert spent(ledger) == epsilon(2)


def test_an_old_backup_is_noticed_by_a_run_under_way(sqlite: BudgetLedger, tmp_path: Path):
    run = reserve(sqlite)
    sqlite.close()
    shutil.copy(tmp_path / "ledger.sqlite", tmp_path / "backup.sqlite")
    run.charge(STEP, steps=5)
    sqlite.close()
    shutil.copy(tmp_path / "backup.sqlite", tmp_path / "ledger.sqlite")
    with pytest.raises(LedgerError, match="had charged 5 steps, and the ledger now says 0"):
        run.charge(STEP)


# ---- a run's own ledger and its data set's ----


@pytest.mark.parametrize(("ours", "theirs"), [(3, 3), (4, 3), (3, 4), (0, 9), (9, 0)])
def test_both_ledgers_come_to_the_larger_count(
    ledger: BudgetLedger, tmp_path: Path, ours: int, theirs: int
):
    other = STEP.__class__(sample_rate=1.0, noise_multiplier=30.0, steps=1)
    plan = [STEP.with_steps(4), other.with_steps(6)]
    run = ledger.reserve(
        run_id="a", name="blood", digests=images(1), planned=plan, accountant=PLD, delta=DELTA
    )
    own = RunLedger(tmp_path / "ledger.jsonl", new=True)
    for number in range(max(ours, theirs)):
        step = STEP if number < 4 else other
        if number < ours:
            run.charge(step)
        if number < theirs:
            own.charge(step)
    assert reconcile(run, own) == max(ours, theirs)
    assert run.charged == max(ours, theirs)
    assert RunLedger(tmp_path / "ledger.jsonl", new=False).events == own.events == run.events
    assert ledger.reopen("a").charged == max(ours, theirs)


def test_steps_that_ran_are_on_record_whatever_the_budget_says(
    ledger: BudgetLedger, tmp_path: Path
):
    run = reserve(ledger, "a", 10)
    own = RunLedger(tmp_path / "ledger.jsonl", new=True)
    own.charge(STEP.with_steps(8))
    ledger.set_budget("blood", epsilon(5), DELTA)
    assert reconcile(run, own) == 8
    assert (run.charged, run.remaining) == (8, 0)
    assert spent(ledger) == epsilon(8)


def test_a_run_ledger_of_another_plan_is_refused(ledger: BudgetLedger, tmp_path: Path):
    run = reserve(ledger, "a", 10)
    own = RunLedger(tmp_path / "ledger.jsonl", new=True)
    own.charge(STEP.__class__(sample_rate=0.5, noise_multiplier=1.0, steps=1))
    with pytest.raises(LedgerError, match="something else than it planned"):
        reconcile(run, own)
    own_longer = RunLedger(tmp_path / "longer.jsonl", new=True)
    own_longer.charge(STEP.with_steps(11))
    with pytest.raises(LedgerError, match="something else"):
        reconcile(run, own_longer)


# ---- servers ----


def test_a_server_that_is_not_there():
    with pytest.raises(LedgerError, match="cannot be reached") as caught:
        BudgetLedger.open(f"postgresql://tester:{PASSWORD}@127.0.0.1:1/ledger")
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))
    assert "postgresql://tester@127.0.0.1:1/ledger" in str(caught.value)


def test_a_server_that_refuses_the_password(postgres: str):
    url = postgres.replace(PASSWORD, "wrong-password") + "postgres"
    with pytest.raises(LedgerError) as caught:
        BudgetLedger.open(url)
    assert "wrong-password" not in "".join(traceback.format_exception(caught.value))


def test_passwords_are_never_shown(postgres_database: str):
    ledger = BudgetLedger.open(postgres_database)
    run = reserve(ledger)
    for text in (repr(ledger), ledger.location, repr(run), repr(ledger.database)):
        assert PASSWORD not in text
    assert ledger.location.startswith("postgresql://tester@127.0.0.1:")
    ledger.close()


@pytest.mark.parametrize(
    "url", ["mysql://u:hidden@h/d", "postgresql://u:hidden@h:no/d", "://hidden", "http://hidden/x"]
)
def test_other_urls_are_refused_without_repeating_them(url: str):
    with pytest.raises(ConfigurationError) as caught:
        BudgetLedger.open(url)
    assert "hidden" not in str(caught.value)


def test_a_missing_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(database_module, "find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match="psycopg") as caught:
        BudgetLedger.open("postgresql://u@h/d")
    assert ".[postgres]" in str(caught.value)


def test_a_server_that_restarts_is_found_again(postgres_database: str):
    import psycopg

    ledger = BudgetLedger.open(postgres_database)
    run = reserve(ledger)
    run.charge(STEP)
    with psycopg.connect(postgres_database, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    run.charge(STEP)
    assert run.charged == 2
    ledger.close()


# ---- where it lies ----


def test_where_a_ledger_lies_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("DISCREET_LEDGER", raising=False)
    monkeypatch.setattr(
        database_module.platformdirs, "user_data_dir", lambda name, **_: str(tmp_path / name)
    )
    ledger = BudgetLedger.open()
    assert ledger.location == str(tmp_path / "discreet" / "ledger.sqlite")
    ledger.close()
    monkeypatch.setenv("DISCREET_LEDGER", str(tmp_path / "mine.sqlite"))
    ledger = BudgetLedger.open()
    assert ledger.location == str(tmp_path / "mine.sqlite")
    ledger.close()


def test_a_charge_is_flushed_to_the_disk(tmp_path: Path):
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    script = (
        "import sys; from tests.ledger.test_faults import *; "
        "run = reserve(BudgetLedger.open(sys.argv[1])); os.write(2, b'CHARGE'); "
        "run.charge(STEP); os.write(2, b'CHARGED'); os._exit(0)"
    )
    done = subprocess.run(
        ["strace", "-f", "-e", "trace=fsync,fdatasync,write", sys.executable, "-c", script,
         str(tmp_path / "l.sqlite")],
        capture_output=True, encoding="utf-8", timeout=120,
    )  # fmt: skip
    between = done.stderr.split('"CHARGE"')[-1].split('"CHARGED"')[0]
    assert "sync(" in between


def test_a_secret_that_a_driver_repeats_is_left_out():
    from sqlalchemy.exc import OperationalError

    from discreet.ledger.faults import translate

    told = OperationalError("SELECT", None, Exception("cannot use password=hunter2 there"))
    error = translate(told, location="postgresql://u@h/d", secrets=["hunter2"])
    assert "hunter2" not in str(error) and "cannot use" in str(error)
