"""Many processes on one ledger: no budget is crossed, no charge is lost, nobody is turned away."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from discreet.errors import BudgetError, LedgerError
from discreet.ledger import BudgetLedger, Reservation, changes
from tests.ledger.conftest import DELTA, PLD, STEP, epsilon, images

PROCESSES = 8
forked = multiprocessing.get_context("fork")  # quick, and what a data loader's worker is


def start(target: Callable[..., None], *args: object) -> BaseProcess:
    process = forked.Process(target=target, args=args)
    process.start()
    return process


def reserve(ledger: BudgetLedger, run: str, steps: int, of: range = range(5)):
    return ledger.reserve(
        run_id=run,
        name="blood",
        digests=images(*of),
        planned=[STEP.with_steps(steps)],
        accountant=PLD,
        delta=DELTA,
    )


def charge_one_run(ledger: BudgetLedger, steps: int) -> None:
    run = ledger.reopen("shared")
    for _ in range(steps):
        run.charge(STEP)


def test_charges_of_eight_processes_to_one_run_all_count(ledger: BudgetLedger):
    # The parent's connection is open, and the children inherit it.
    run = reserve(ledger, "shared", 1000)
    workers = [start(charge_one_run, ledger, 25) for _ in range(PROCESSES)]
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0] * PROCESSES
    run.refresh()
    assert run.charged == PROCESSES * 25


def reserve_and_charge(where: str, number: int, folder: str) -> None:
    """Take what there is, in runs of random length on data sets that overlap."""
    chance = random.Random(number)
    ledger = BudgetLedger.open(where)
    log = Path(folder) / f"{number}"
    for attempt in range(30):
        steps = chance.randint(1, 12)
        first = chance.randint(0, 3)
        try:
            run = reserve(ledger, f"{number}-{attempt}", steps, of=range(first, first + 4))
        except BudgetError:
            continue
        for _ in range(steps):
            try:
                run.charge(STEP)
            except BudgetError:
                break
            with log.open("a") as stream:
                stream.write(f"{first}\n")
        if chance.random() < 0.9:
            run.settle()
    ledger.close()


@pytest.mark.slow
def test_eight_processes_never_cross_a_budget(where: str, tmp_path: Path):
    ledger = BudgetLedger.open(where)
    ledger.register(name="all", digests=images(*range(8)))
    ledger.set_budget("all", epsilon(150), DELTA)
    workers = [
        start(reserve_and_charge, where, number, str(tmp_path)) for number in range(PROCESSES)
    ]
    changes = random.Random(0)
    while any(worker.is_alive() for worker in workers):
        ledger.set_budget("all", epsilon(changes.randint(140, 150)), DELTA)
        time.sleep(0.05)
    for worker in workers:
        worker.join(10)
    assert [worker.exitcode for worker in workers] == [0] * PROCESSES
    # Counted beside the ledger: what each image really had.
    charged = [0] * 8
    for number in range(PROCESSES):
        if (tmp_path / f"{number}").exists():
            for line in (tmp_path / f"{number}").read_text().split():
                for image in range(int(line), int(line) + 4):
                    charged[image] += 1
    assert 110 < max(charged) <= 150, charged
    total = ledger.total("all", delta=DELTA, accountant=PLD)
    assert total.epsilon == epsilon(max(charged)) <= epsilon(150)
    reserved = ledger.total("all", delta=DELTA, accountant=PLD, reserved=True)
    assert epsilon(130) < reserved.epsilon <= epsilon(150)
    ledger.close()


def reserve_all(where: str, number: int, barrier: object, results: object) -> None:
    ledger = BudgetLedger.open(where)
    barrier.wait(60)  # type: ignore[attr-defined]
    try:
        reserve(ledger, f"run {number}", 10)
    except BudgetError:
        results.put("refused")  # type: ignore[attr-defined]
    else:
        results.put("reserved")  # type: ignore[attr-defined]
    ledger.close()


def test_the_last_of_a_budget_is_reserved_once(where: str):
    ledger = BudgetLedger.open(where)
    ledger.register(name="blood", digests=images(*range(5)))
    ledger.set_budget("blood", epsilon(19), DELTA)
    ledger.close()
    barrier, results = forked.Barrier(PROCESSES), forked.Queue()
    workers = [start(reserve_all, where, n, barrier, results) for n in range(PROCESSES)]
    told = [results.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join(60)
    assert sorted(told) == ["refused"] * (PROCESSES - 1) + ["reserved"]


def open_new(where: str, barrier: object, results: object) -> None:
    barrier.wait(60)  # type: ignore[attr-defined]
    ledger = BudgetLedger.open(where)
    results.put((ledger.ledger_id, ledger.fingerprint(b"x")))  # type: ignore[attr-defined]
    ledger.close()


def test_a_ledger_is_begun_once(where: str):
    barrier, results = forked.Barrier(PROCESSES), forked.Queue()
    workers = [start(open_new, where, barrier, results) for _ in range(PROCESSES)]
    told = {results.get(timeout=120) for _ in workers}
    for worker in workers:
        worker.join(60)
    assert len(told) == 1


def charge_and_tell(where: str, run_id: str, told: str) -> None:
    ledger = BudgetLedger.open(where)
    run = ledger.reopen(run_id)
    with Path(told).open("ab", buffering=0) as stream:
        while run.remaining:
            run.charge(STEP)
            stream.write(b".")  # the update that becomes visible, after the charge


@pytest.mark.slow
def test_nothing_is_lost_when_processes_are_killed(where: str, tmp_path: Path):
    ledger = BudgetLedger.open(where)
    chance = random.Random(1)
    for number in range(PROCESSES):
        reserve(ledger, f"run {number}", 100_000)
    for _ in range(13):  # 104 kills
        workers = [
            start(charge_and_tell, where, f"run {number}", str(tmp_path / f"{number}"))
            for number in range(PROCESSES)
        ]
        for worker in chance.sample(workers, k=PROCESSES):
            time.sleep(chance.uniform(0.0, 0.12))
            os.kill(worker.pid or 0, signal.SIGKILL)
        for worker in workers:
            worker.join(60)
    visible = 0
    for number in range(PROCESSES):
        file = tmp_path / f"{number}"
        steps = file.stat().st_size if file.exists() else 0
        charged = ledger.reopen(f"run {number}").charged
        assert steps <= charged <= steps + 13
        visible += steps
    assert visible > 100
    ledger.close()


def charge_on_own_connections(ledger: BudgetLedger, inherited: object) -> None:
    charge_one_run(ledger, 10)
    assert ledger.database._own_engine() is not inherited


def test_a_forked_child_has_connections_of_its_own(ledger: BudgetLedger):
    run = reserve(ledger, "shared", 100)
    run.charge(STEP)
    child = start(charge_on_own_connections, ledger, ledger.database._own_engine())
    for _ in range(10):
        run.charge(STEP)
    child.join(60)
    assert child.exitcode == 0
    run.refresh()
    assert run.charged == 21


def test_a_new_budget_loses_no_charge_that_comes_meanwhile(
    ledger: BudgetLedger, where: str, monkeypatch: pytest.MonkeyPatch
):
    reserve(ledger, "shared", 100)
    threads: list[threading.Thread] = []
    charged: list[int] = []

    def charge() -> None:
        other = BudgetLedger.open(where)
        Reservation(other.database, first).charge(STEP)
        charged.append(1)
        other.close()

    first = ledger.reopen("shared")._run
    cut = changes._cut

    def cut_slowly(*arguments: Any) -> Any:
        threads.append(threading.Thread(target=charge))
        threads[-1].start()
        time.sleep(0.4)
        return cut(*arguments)

    monkeypatch.setattr(changes, "_cut", cut_slowly)
    ledger.set_budget("blood", epsilon(50), DELTA)
    for thread in threads:
        thread.join(60)
    assert len(charged) == len(threads)
    assert ledger.reopen("shared").charged == len(charged)


def test_the_database_itself_keeps_a_run_within_its_limit(ledger: BudgetLedger):
    reserve(ledger, "a", 10)
    with pytest.raises(LedgerError), ledger.database.transaction(write=True) as connection:
        connection.execute(text("UPDATE discreet_charges SET position = 11, steps = 20"))
    with pytest.raises(LedgerError), ledger.database.transaction(write=True) as connection:
        connection.execute(text("UPDATE discreet_charges SET allowed = 11"))
    assert ledger.reopen("a").remaining == 10


def test_integrity_errors_are_what_checks_raise(sqlite: BudgetLedger):
    reserve(sqlite, "a", 10)
    engine = sqlite.database._own_engine()
    with pytest.raises(IntegrityError, match="discreet_within"), engine.begin() as connection:
        connection.execute(text("UPDATE discreet_charges SET position = 11, steps = 20"))
