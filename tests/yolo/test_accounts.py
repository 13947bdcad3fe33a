"""Runs and the ledger of their data set: what is refused, where a run stops, what is told."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from discreet import PrivateYOLO
from discreet.accounting import event_from_json, make_accountant
from discreet.api import train
from discreet.demo.dataset import write_dataset
from discreet.demo.scenes import PRIVATE
from discreet.errors import BudgetError, ConfigurationError, DiscreetError, LedgerError
from discreet.ledger import BudgetLedger, without_secrets
from discreet.result import TrainingResult
from discreet.terminal import SilentReporter
from discreet.yolo.checking import check_arguments
from discreet.yolo.checkpoint import RunState

from .conftest import ARCHITECTURE, IMGSZ, counts

pytestmark = pytest.mark.usefixtures("unchecked")

Run = Callable[..., TrainingResult]
DELTA = 1e-5


@pytest.fixture
def run(scenes: Path, tmp_path: Path) -> Run:
    def start(reporter: Any = None, **arguments: Any) -> TrainingResult:
        given = {
            "data": str(scenes), "model": ARCHITECTURE, "noise_multiplier": 2.0, "delta": DELTA,
            "batch": 8, "steps": 4, "imgsz": IMGSZ, "val": False, "project": str(tmp_path / "runs"),
        }  # fmt: skip
        return train({**given, **arguments}, reporter=reporter)

    return start


@pytest.fixture
def ledger() -> BudgetLedger:
    return BudgetLedger.open(os.environ["DISCREET_LEDGER"])


def set_budget(ledger: BudgetLedger, epsilon: float) -> None:
    ledger.set_budget(ledger.datasets()[0].id, epsilon, DELTA)


def begun(run: Run, **arguments: Any) -> None:
    """Start a run and interrupt it after its second step."""

    class InterruptAt(SilentReporter):
        def step(self, done: int, epsilon: float | None = None) -> None:
            if done == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(InterruptAt(), **arguments)


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.slow
def test_the_total_is_over_all_runs_composed_at_once(run: Run):
    first, second = run(), run(noise_multiplier=3.0, steps=6)
    spent = second.record.spent
    assert spent.run == pytest.approx(second.spent.epsilon)
    events = [event_from_json(dict(e)) for r in (first, second) for e in r.record.events]
    together = make_accountant("pld").epsilon(events, delta=DELTA)
    assert spent.total == pytest.approx(together, rel=1e-3)
    assert spent.total < first.spent.epsilon + second.spent.epsilon
    assert spent.runs == 2


@pytest.mark.slow
def test_a_copy_of_the_data_set_is_charged_too(run: Run, scenes: Path, tmp_path: Path):
    run()
    copy = tmp_path / "renamed"
    shutil.copytree(scenes.parent, copy)
    images = sorted((copy / "images" / "train").iterdir())
    for number, image in enumerate(images):  # other names, one image less
        label = copy / "labels" / "train" / image.with_suffix(".txt").name
        if number == 0:
            image.unlink()
            label.unlink()
            continue
        image.rename(image.with_stem(f"x{number}"))
        label.rename(label.with_stem(f"x{number}"))
    assert run(data=str(copy / "data.yaml")).record.spent.runs == 2


def test_a_run_that_would_cross_the_budget_is_refused_before_it_starts(
    run: Run, ledger: BudgetLedger, tmp_path: Path
):
    spent = run().spent.epsilon
    set_budget(ledger, spent * 1.2)
    folders = sorted((tmp_path / "runs").iterdir())
    with pytest.raises(BudgetError) as caught:
        run()
    assert caught.value.do
    assert sorted((tmp_path / "runs").iterdir()) == folders
    assert sum(r.position for r in ledger.runs()) == 4
    assert run(steps=1).record.spent.total <= spent * 1.2  # what fits may run


class LowerAt(SilentReporter):
    """Lowers the budget of the data set after a step, as a colleague would."""

    def __init__(self, step: int, ledger: BudgetLedger, epsilon: float) -> None:
        self.at, self.ledger, self.epsilon = step, ledger, epsilon
        self.warnings: list[str] = []

    def step(self, done: int, epsilon: float | None = None) -> None:
        if done == self.at:
            set_budget(self.ledger, self.epsilon)

    def warning(self, text: str) -> None:
        self.warnings.append(text)


@pytest.mark.slow
def test_a_run_stops_exactly_at_a_budget_that_was_lowered_meanwhile(run: Run, ledger: BudgetLedger):
    three = run(steps=3, insecure_seed=None)
    budget = make_accountant("pld").epsilon(
        [event_from_json(dict(three.record.events[0])).with_steps(3 + 5)], delta=DELTA
    )
    reporter = LowerAt(2, ledger, budget)
    result = run(reporter, steps=20)
    assert counts(result) == (20, 5, 5)
    assert result.record.spent.total <= budget * (1 + 1e-9)
    assert result.claim_valid
    assert any("budget" in text for text in reporter.warnings)


def test_a_run_that_ends_early_gives_back_what_it_did_not_use(
    scenes: Path, tmp_path: Path, ledger: BudgetLedger
):
    yolo = PrivateYOLO(ARCHITECTURE)
    yolo.add_callback("on_train_batch_end", lambda trainer: setattr(trainer, "stop", True))
    result = yolo.train(
        data=str(scenes), epsilon=8, batch=8, steps=5, imgsz=IMGSZ, val=False,
        project=str(tmp_path / "runs"),
    )  # fmt: skip
    assert counts(result) == (5, 1, 1)
    assert [(run.position, run.allowed) for run in ledger.runs()] == [(1, 1)]


def test_a_run_without_protection_is_told_by_all_later_ones(run: Run, ledger: BudgetLedger):
    run(noise_multiplier=0)
    later = run()
    assert later.claim_valid
    assert later.record.spent.total is None
    assert later.record.spent.unprotected_runs == 1
    assert any("no protection" in text for text in later.record.warnings)
    set_budget(ledger, 1e6)
    with pytest.raises(BudgetError):
        run(insecure_seed=1)


def test_a_run_is_resumed_with_the_ledger_it_was_charged_in(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    begun(run, ledger="mine.sqlite")
    folder = tmp_path / "runs" / "train"
    with pytest.raises(LedgerError, match=r"not on record|no ledger"):
        train({"resume": str(folder), "ledger": str(tmp_path / "another.sqlite")})
    monkeypatch.chdir(tmp_path.parent)  # it was given as a relative path
    done = train({"resume": str(folder)})
    assert done.record.steps.charged == 4


@pytest.mark.slow
def test_a_check_reserves_nothing(run: Run, scenes: Path, ledger: BudgetLedger):
    run()
    set_budget(ledger, 1e-3)  # not a step fits any more
    before = Path(ledger.location).read_bytes()
    report = check_arguments(
        {"data": str(scenes), "model": ARCHITECTURE, "epsilon": 8, "batch": 8, "imgsz": IMGSZ}
    )
    assert report.passed
    assert Path(ledger.location).read_bytes() == before


def test_a_password_is_never_written_down():
    assert without_secrets("postgresql://host/name") == "postgresql://host/name"
    assert without_secrets("postgresql://me:secret@host/name") is None
    assert without_secrets("postgresql://host/name?sslpassword=secret") is None


@pytest.mark.parametrize("harm", ["deleted", "replaced by a backup"])
def test_a_ledger_that_is_lost_meanwhile_stops_the_run(
    run: Run, ledger: BudgetLedger, tmp_path: Path, harm: str
):
    class Lose(SilentReporter):
        def step(self, done: int, epsilon: float | None = None) -> None:
            path = Path(ledger.location)
            if done == 2:
                backup = path.with_suffix(".backup")
                shutil.copy(path, backup)
                path.unlink()
                if harm != "deleted":
                    backup.rename(path)

    with pytest.raises(LedgerError, match="deleted or replaced"):
        run(Lose())
    own = (tmp_path / "runs/train/internal/ledger.jsonl").read_text().splitlines()
    assert len(own) == 1 + 2  # its header, and the two steps that were applied


def test_a_seeded_run_does_not_become_private(run: Run, tmp_path: Path):
    begun(run, insecure_seed=1)
    folder = tmp_path / "runs" / "train"
    edit(folder / "internal" / "run.json", lambda c: c["given"].pop("insecure_seed"))
    with pytest.raises(LedgerError, match="without a guarantee"):
        train({"resume": str(folder)})


def test_a_run_does_not_go_on_with_images_that_it_does_not_charge(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    begun(run)
    other = write_dataset(tmp_path / "other", style=PRIVATE, train=24, val=8, size=IMGSZ, seed=6)
    folder = tmp_path / "runs" / "train"
    edit(folder / "internal" / "run.json", lambda c: c["given"].update(data=str(other)))
    monkeypatch.setattr(RunState, "check_unchanged", lambda *_: None)
    with pytest.raises(LedgerError, match="other images"):
        train({"resume": str(folder)})


def test_a_checkpoint_of_another_run_is_refused(run: Run, tmp_path: Path):
    run(noise_multiplier=0)
    begun(run)
    other, mine = (tmp_path / "runs" / name / "internal" for name in ("train", "train-2"))
    shutil.copy(other / "checkpoint.pt", mine / "checkpoint.pt")
    with pytest.raises(DiscreetError, match=r"checkpoint\.pt"):
        train({"resume": str(mine.parent)})


def test_an_argument_may_be_written_otherwise_on_resume(run: Run, tmp_path: Path):
    begun(run)
    folder = tmp_path / "runs" / "train"
    with pytest.raises(ConfigurationError, match="unknown argument"):
        train({"resume": str(folder), "bogus": 1})
    again = {"noise_multiplier": "2.00", "batch": "8", "sampling": "poisson", "lr0": None}
    done = train({"resume": str(folder), **{k: v for k, v in again.items() if v}})
    assert counts(done) == (4, 4, 4)


def test_a_ledger_password_is_never_written(run: Run, tmp_path: Path):
    address = "postgresql://user:hunter2@localhost:1/x"
    with pytest.raises(DiscreetError) as caught:
        run(ledger=address)
    assert "hunter2" not in str(caught.value)
    assert not any(b"hunter2" in p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())


def test_an_unwritable_ledger_stops_a_run_before_it_starts(run: Run, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match="file"):
        run(ledger=str(tmp_path / "file" / "ledger.sqlite"))
    assert not list((tmp_path / "runs").glob("*"))


# ---- samplers and schedules, through whole runs ----


def test_a_shuffled_run_uses_every_image_once_an_epoch_and_says_what_is_proven(
    run: Run, tmp_path: Path
):
    result = run(sampling="shuffle", steps=7)
    drawn = np.loadtxt(tmp_path / "runs/train/internal/steps.csv", delimiter=",", skiprows=1)[:, 1]
    assert drawn[:3].sum() == drawn[3:6].sum() == 24
    unamplified = make_accountant("pld").epsilon(
        [event_from_json({"kind": "shuffled_gaussian", "noise_multiplier": 2.0,
                          "steps_per_epoch": 1, "steps": 3})], delta=DELTA
    )  # fmt: skip
    assert result.spent.epsilon == pytest.approx(unamplified, rel=1e-6)
    assert result.record.sampling.used == "shuffle"
    assert result.record.figures.epsilon_without_amplification == pytest.approx(unamplified)


def test_a_shuffled_run_that_is_resumed_deals_anew_and_charges_the_rest(run: Run, tmp_path: Path):
    begun(run, sampling="shuffle", steps=6)
    result = train({"resume": str(tmp_path / "runs" / "train")})
    assert counts(result) == (6, 6, 5)
    drawn = np.loadtxt(tmp_path / "runs/train/internal/steps.csv", delimiter=",", skiprows=1)[:, 1]
    assert drawn[-3:].sum() == 24  # the second epoch has all images


def test_a_truncated_draw_is_never_above_its_cap(run: Run, tmp_path: Path):
    result = run(sampling="truncated_poisson", batch=8, largest_batch=9, steps=12)
    drawn = np.loadtxt(tmp_path / "runs/train/internal/steps.csv", delimiter=",", skiprows=1)[:, 1]
    assert drawn.max() <= 9
    assert result.record.sampling.largest_batch == 9


@pytest.mark.slow
def test_a_noise_schedule_is_charged_as_what_ran(run: Run):
    result = run(noise_schedule="step", final_noise=0.5, steps=8)
    sigmas = [event["noise_multiplier"] for event in result.record.events]
    assert sigmas[0] == 2.0
    assert sigmas[-1] == pytest.approx(1.0)
    assert result.record.mechanism.noise_multiplier_of_last_step == pytest.approx(1.0)


@pytest.mark.slow
def test_replacing_neighbours_cost_more_and_are_named(run: Run):
    replaced = run(relation="replace_one")
    assert replaced.spent.epsilon > 1.5 * run().spent.epsilon
    assert replaced.record.unit.neighboring_relation == "replace_one"
