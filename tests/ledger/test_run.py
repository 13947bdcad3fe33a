from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from discreet.accounting import PoissonSampledGaussian
from discreet.errors import LedgerError
from discreet.ledger import RunLedger

STEP = PoissonSampledGaussian(sample_rate=0.1, noise_multiplier=1.2, steps=1)


def steps(ledger: RunLedger) -> int:
    return sum(event.steps for event in ledger.events)


def test_charges_survive_and_add_up(tmp_path: Path):
    ledger = RunLedger(tmp_path / "ledger.jsonl", new=True)
    for _ in range(3):
        ledger.charge(STEP)
    again = RunLedger(tmp_path / "ledger.jsonl", new=False)
    again.charge(STEP)
    assert again.events == (STEP.with_steps(4),)
    assert RunLedger(tmp_path / "ledger.jsonl", new=False).events == again.events


def test_each_charge_is_flushed_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ledger = RunLedger(tmp_path / "ledger.jsonl", new=True)
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda fd: flushed.append(os.fstat(fd).st_size))
    ledger.charge(STEP)
    assert flushed == [(tmp_path / "ledger.jsonl").stat().st_size]


def test_a_torn_line_counts_as_a_charge_and_does_not_swallow_the_next(tmp_path: Path):
    path = tmp_path / "ledger.jsonl"
    ledger = RunLedger(path, new=True)
    ledger.charge(STEP)
    ledger.charge(STEP)
    path.write_bytes(path.read_bytes()[:-20])
    torn = RunLedger(path, new=False)
    assert steps(torn) == 2
    torn.charge(STEP)
    assert steps(RunLedger(path, new=False)) == 3


def test_a_process_killed_after_the_charge_has_charged(tmp_path: Path):
    code = (
        "import os, sys; from pathlib import Path; from discreet.ledger import RunLedger; "
        "from discreet.accounting import PoissonSampledGaussian as P; "
        "l = RunLedger(Path(sys.argv[1]), new=True); "
        "l.charge(P(sample_rate=0.1, noise_multiplier=1.2, steps=1)); os._exit(9)"
    )
    path = tmp_path / "ledger.jsonl"
    assert subprocess.run([sys.executable, "-c", code, str(path)], timeout=60).returncode == 9
    assert steps(RunLedger(path, new=False)) == 1


@pytest.mark.parametrize("length", [0, 1, 20, 38])
def test_a_torn_header_is_written_anew(tmp_path: Path, length: int):
    path = tmp_path / "ledger.jsonl"
    RunLedger(path, new=True)
    whole = path.read_bytes()
    path.write_bytes(whole[:length])
    ledger = RunLedger(path, new=False)
    assert path.read_bytes() == whole
    ledger.charge(STEP)
    assert steps(RunLedger(path, new=False)) == 1


def test_a_torn_first_charge_counts_where_it_is_known_what_it_was(tmp_path: Path):
    path = tmp_path / "ledger.jsonl"
    RunLedger(path, new=True).charge(STEP)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(LedgerError, match=r"ledger\.jsonl:2"):
        RunLedger(path, new=False)
    assert RunLedger(path, new=False, first=STEP).events == (STEP,)


@pytest.mark.parametrize("content", ["not json\n", '{"ledger": "other"}\n', "[]\n"])
def test_another_file_is_not_taken_for_a_ledger(tmp_path: Path, content: str):
    path = tmp_path / "ledger.jsonl"
    path.write_text(content)
    with pytest.raises(LedgerError, match="not a ledger"):
        RunLedger(path, new=False)
    assert path.read_text() == content


def test_an_unreadable_first_charge_is_named(tmp_path: Path):
    path = tmp_path / "ledger.jsonl"
    RunLedger(path, new=True).charge(STEP)
    path.write_text(path.read_text().replace("poisson_sampled_gaussian", "guesswork"))
    with pytest.raises(LedgerError, match=r"ledger\.jsonl:2"):
        RunLedger(path, new=False)


def test_a_charge_that_is_not_understood_is_never_taken_for_a_torn_one(tmp_path: Path):
    path = tmp_path / "ledger.jsonl"
    ledger = RunLedger(path, new=True)
    ledger.charge(STEP)
    line = path.read_text().splitlines()[-1]
    with path.open("a") as stream:
        stream.write(line.replace("poisson_sampled_gaussian", "of_a_later_version") + "\n")
    with pytest.raises(LedgerError, match=r"ledger\.jsonl:3"):
        RunLedger(path, new=False)


def test_an_unwritable_ledger_says_that_the_step_was_not_applied(tmp_path: Path):
    folder = tmp_path / "run"
    folder.mkdir()
    ledger = RunLedger(folder / "ledger.jsonl", new=True)
    (folder / "ledger.jsonl").unlink()
    folder.rmdir()
    with pytest.raises(LedgerError, match="not applied"):
        ledger.charge(STEP)


def test_a_lost_ledger_is_not_begun_again(tmp_path: Path):
    with pytest.raises(LedgerError, match="missing"):
        RunLedger(tmp_path / "ledger.jsonl", new=False)
    RunLedger(tmp_path / "ledger.jsonl", new=True)
    with pytest.raises(LedgerError, match="already"):
        RunLedger(tmp_path / "ledger.jsonl", new=True)
