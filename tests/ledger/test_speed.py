"""A ledger with a million charges is as quick as an empty one, as far as anybody notices."""

from __future__ import annotations

import json
import statistics
import time

import pytest

from discreet.accounting import PoissonSampledGaussian
from discreet.ledger import BudgetLedger
from discreet.ledger.curves import curve_of, pack
from discreet.ledger.rows import Rows, Run
from discreet.ledger.tables import ENDED
from tests.ledger.conftest import DELTA, PLD, images

RUNS, STEPS = 1000, 1000


def planned(noise_multiplier: float) -> PoissonSampledGaussian:
    return PoissonSampledGaussian(sample_rate=0.001, noise_multiplier=noise_multiplier, steps=STEPS)


def fill(ledger: BudgetLedger) -> None:
    """A thousand runs of a thousand steps on one data set, each with noise of its own."""
    with ledger.database.transaction(write=True) as connection:
        rows = Rows(connection, key=ledger.database.key, location=ledger.location)
        for number in range(1, RUNS + 1):
            event = planned(2 + number / 1000)
            run = Run(
                number=number, id=f"run {number}", dataset=1, label="", private=True,
                planned=json.dumps([event.to_json()]), accountant="pld",
                relation="add_or_remove_one", delta=DELTA, started="", steps=STEPS,
                position=STEPS, allowed=STEPS, state=ENDED, curve=pack(curve_of([event])),
                updated="",
            )  # fmt: skip
            rows.add_run(run, rows.datasets()[1])


@pytest.mark.slow
def test_a_new_runs_check_among_a_million_charges(ledger: BudgetLedger, where: str):
    digests = images(*range(1000))
    ledger.register(name="blood", digests=digests)
    fill(ledger)
    ledger.set_budget("blood", 1000.0, DELTA, accountant=PLD.coarse())
    taken: list[float] = []
    for number in range(5):
        opened = BudgetLedger.open(where)
        start = time.process_time()  # of this process: others may share the machine
        opened.reserve(
            run_id=f"new {number}", name="blood", digests=digests, planned=[planned(3.14)],
            accountant=PLD, delta=DELTA,
        )  # fmt: skip
        taken.append(time.process_time() - start)
        opened.close()
    print(f"reserve among {RUNS * STEPS} charges: {[round(1e3 * t, 1) for t in taken]} ms")
    assert min(taken) < 0.1
    run = ledger.reopen("new 0")
    taken = []
    for _ in range(200):
        start = time.process_time()
        run.charge(planned(3.14), steps=1)
        taken.append(time.process_time() - start)
    print(f"charge: {1e3 * statistics.median(taken):.2f} ms")
    assert statistics.median(taken) < 0.003


@pytest.mark.slow
def test_a_hundred_thousand_images(ledger: BudgetLedger):
    first, second = images(*range(100_000)), images(*range(50_000, 150_000))
    taken: list[float] = []
    for name, digests in (("first", first), ("second", second)):
        start = time.perf_counter()
        ledger.reserve(
            run_id=name, name=name, digests=digests, planned=[planned(3.0)],
            accountant=PLD, delta=DELTA,
        )  # fmt: skip
        taken.append(time.perf_counter() - start)
    print(f"reserve with 100,000 new images: {taken} s")
    assert max(taken) < 2
