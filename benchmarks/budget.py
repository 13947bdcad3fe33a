"""What the budget costs: finding σ, and checking and charging in a ledger that is full.

    python -m benchmarks.budget                     SQLite, in a temporary folder
    python -m benchmarks.budget --ledger URL        another ledger, new: this one fills it
    python -m benchmarks.budget --json FILE

A run waits for its noise multiplier and for one check before it starts, and for one charge in
each step.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.machine import describe
from discreet.accounting import (
    PoissonSampledGaussian,
    calibrate_noise_multiplier,
    make_accountant,
)
from discreet.config import MechanismConfig
from discreet.ledger import BudgetLedger
from discreet.ledger.curves import curve_of, pack
from discreet.ledger.rows import Rows, Run
from discreet.ledger.tables import ENDED

TARGET = 8.0
DELTA = 1e-6
RUNS, STEPS, IMAGES = 1000, 1000, 1000
SIZES = ((1008, 256, 160, 1e-4), (100_000, 1024, 1000, 1e-6), (1_000_000, 4096, 2500, 1e-7))


def images(start: int, stop: int) -> list[bytes]:
    """Content digests of made-up images."""
    return [hashlib.blake2b(str(i).encode(), digest_size=16).digest() for i in range(start, stop)]


def step(noise_multiplier: float) -> PoissonSampledGaussian:
    """A thousand steps of a run."""
    return PoissonSampledGaussian(sample_rate=0.001, noise_multiplier=noise_multiplier, steps=STEPS)


def fill(ledger: BudgetLedger, *, runs: int = RUNS) -> None:
    """Runs of a thousand steps on one data set, each with noise of its own."""
    with ledger.database.transaction(write=True) as connection:
        rows = Rows(connection, key=ledger.database.key, location=ledger.location)
        for number in range(1, runs + 1):
            event = step(2 + number / runs)
            run = Run(
                number=number, id=f"run {number}", dataset=1, label="", private=True,
                planned=json.dumps([event.to_json()]), accountant="pld",
                relation="add_or_remove_one", delta=DELTA, started="", steps=STEPS,
                position=STEPS, allowed=STEPS, state=ENDED, curve=pack(curve_of([event])),
                updated="",
            )  # fmt: skip
            rows.add_run(run, rows.datasets()[1])


def finding_noise() -> list[dict[str, Any]]:
    """Seconds to find σ for ε = 8: sizes of data, kinds of sampling, schedules, accountants."""
    rows: list[dict[str, Any]] = []
    for population, batch, steps, delta in SIZES:
        base = MechanismConfig(
            population=population, expected_batch_size=batch, steps=steps, delta=delta,
            noise_multiplier=1.0, max_grad_norm=1.0,
        )  # fmt: skip
        kinds: dict[str, dict[str, Any]] = {
            "pld": {},
            "rdp": {"accountant": "rdp"},
            "prv": {"accountant": "prv"},
            "pld, batches cut at 1.5 B": {
                "sampling": "truncated_poisson", "largest_batch": 3 * batch // 2,
            },
            "pld, noise in four steps": {"noise_schedule": "step", "final_noise": 0.5},
            "pld, noise falling exponentially": {
                "noise_schedule": "exponential", "final_noise": 0.5,
            },
        }  # fmt: skip
        for kind, changes in kinds.items():
            mechanism = MechanismConfig(**{**base.model_dump(), **changes})
            began = time.perf_counter()
            found = calibrate_noise_multiplier(
                target_epsilon=TARGET,
                delta=delta,
                events=lambda sigma, m=mechanism: m.with_noise(sigma).planned_events(),
                accountant=mechanism.make_accountant(),
            )
            seconds = time.perf_counter() - began
            rows.append({"n": population, "kind": kind, "sigma": found, "seconds": seconds})
    return rows


def among_a_million(where: str) -> dict[str, float]:
    """Seconds of a new run's check and of a charge, in a ledger of a million charges."""
    ledger, digests = BudgetLedger.open(where), images(0, IMAGES)
    ledger.register(name="blood", digests=digests)
    fill(ledger)
    ledger.set_budget("blood", 1000.0, DELTA, accountant=make_accountant("pld").coarse())
    ledger.close()

    def check(number: int) -> float:
        opened = BudgetLedger.open(where)
        began = time.perf_counter()
        opened.reserve(
            run_id=f"new {number}", name="blood", digests=digests, planned=[step(3.14)],
            accountant=make_accountant("pld"), delta=DELTA,
        )  # fmt: skip
        seconds = time.perf_counter() - began
        opened.close()
        return seconds

    checks = [check(number) for number in range(5)]
    opened = BudgetLedger.open(where)
    run = opened.reopen("new 0")
    charge = _seconds(lambda: run.charge(step(3.14).with_steps(1)), times=200)
    new, shared = images(IMAGES, 101_000), images(51_000, 151_000)
    begins = [
        _seconds(
            lambda name=name, digests=digests: opened.reserve(
                run_id=name, name=name, digests=digests, planned=[step(3.0)],
                accountant=make_accountant("pld"), delta=DELTA,
            ),
            times=1,
        )
        for name, digests in (("first", new), ("second", shared))
    ]  # fmt: skip
    opened.close()
    return {
        "check": statistics.median(checks),
        "charge": charge,
        "begin_100000_new_images": begins[0],
        "begin_100000_half_known": begins[1],
    }


def _seconds(work: Callable[[], object], *, times: int) -> float:
    seconds: list[float] = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--ledger", metavar="PATH|URL", help="a new ledger, to be filled")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args(argv)
    machine = describe(torch.device("cpu"))
    console = Console(width=100)
    console.print("  ".join(f"{name} {value}" for name, value in machine.items()))
    noise = finding_noise()
    for row in noise:
        console.print(f"σ for n = {row['n']:>9,} {row['kind']:34} {row['seconds']:6.2f} s")
    with tempfile.TemporaryDirectory() as folder:
        where = arguments.ledger or str(Path(folder) / "ledger.sqlite")
        ledger = among_a_million(where)
    console.print(
        f"among {RUNS * STEPS:,} charges: check {1e3 * ledger['check']:.0f} ms, charge "
        f"{1e3 * ledger['charge']:.1f} ms; begin with 100,000 images: new "
        f"{ledger['begin_100000_new_images']:.2f} s, half of them known "
        f"{ledger['begin_100000_half_known']:.2f} s"
    )
    if arguments.json:
        content = {"machine": machine, "noise": noise, "ledger": ledger}
        arguments.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
