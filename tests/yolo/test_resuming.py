"""Runs that were interrupted: they go on as they began, with what they charged, or not at all."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from discreet import PrivateYOLO
from discreet.api import train
from discreet.errors import (
    ConfigurationError,
    DiscreetError,
    LedgerError,
    StorageError,
)
from discreet.ledger import BudgetLedger
from discreet.storage import lock_folder
from discreet.terminal import SilentReporter
from discreet.yolo.checkpoint import Checkpoint

from .conftest import ARCHITECTURE, IMGSZ, Run, counts

pytestmark = pytest.mark.usefixtures("unchecked")


class InterruptAt(SilentReporter):
    def __init__(self, step: int) -> None:
        self.at = step

    def step(self, done: int, epsilon: float | None = None) -> None:
        if done == self.at:
            raise KeyboardInterrupt


def interrupted(scenes: Path, tmp_path: Path, at: int) -> Path:
    with pytest.raises(KeyboardInterrupt) as caught:
        train(
            {
                "data": str(scenes), "model": ARCHITECTURE, "epsilon": 8, "batch": 8, "steps": 5,
                "imgsz": IMGSZ, "val": False, "project": str(tmp_path),
            },
            reporter=InterruptAt(at),
        )  # fmt: skip
    assert f"resume={tmp_path / 'train'}" in caught.value.__notes__[0]
    return tmp_path / "train"


def test_ctrl_c_leaves_a_run_that_goes_on(scenes: Path, tmp_path: Path):
    folder = interrupted(scenes, tmp_path, at=2)
    assert not (folder / "release").exists()
    result = train({"resume": str(folder), "amp": "bf16"})  # as another machine might
    assert counts(result) == (5, 5, 5)
    assert result.spent.epsilon <= 8
    assert result.release == folder / "release"


def test_steps_lost_in_a_crash_stay_charged(scenes: Path, tmp_path: Path):
    folder = interrupted(scenes, tmp_path, at=3)
    ledger = folder / "internal" / "ledger.jsonl"
    last = ledger.read_text().splitlines()[-1]
    with ledger.open("a") as stream:
        stream.write(last + "\n")  # charged, then the power went
    result = train({"resume": str(folder)})
    assert counts(result) == (5, 5, 4)


def test_a_run_whose_own_record_is_lost_does_not_go_on(scenes: Path, tmp_path: Path):
    folder = interrupted(scenes, tmp_path, at=2)
    (folder / "internal" / "ledger.jsonl").unlink()
    with pytest.raises(DiscreetError, match="missing"):
        train({"resume": str(folder)})


def test_weights_that_hold_more_than_was_charged_do_not_go_on(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = interrupted(scenes, tmp_path, at=2)
    load = Checkpoint.load

    def ahead(*args: Any, **kwargs: Any) -> Any:
        checkpoint = load(*args, **kwargs)
        assert checkpoint is not None
        return dataclasses.replace(checkpoint, executed=checkpoint.executed + 1)

    monkeypatch.setattr(Checkpoint, "load", ahead)
    with pytest.raises(LedgerError, match="the weights hold 3 steps, the ledger only 2"):
        train({"resume": str(folder)})


def test_a_run_whose_own_record_is_behind_takes_the_larger_count(scenes: Path, tmp_path: Path):
    folder = interrupted(scenes, tmp_path, at=2)
    ledger = folder / "internal" / "ledger.jsonl"
    lines = ledger.read_text().splitlines(keepends=True)
    ledger.write_text("".join(lines[:-1]))
    assert counts(train({"resume": str(folder)})) == (5, 5, 5)


def test_a_new_run_never_takes_over_an_old_one(run: Run):
    first = run(steps=1)
    assert run(steps=1).release != first.release
    with pytest.raises(ConfigurationError, match="a run is there already"):
        run(steps=1, exist_ok=True)


@pytest.mark.parametrize(
    "change",
    [{"batch": 6}, {"epsilon": 4}, {"max_grad_norm": 2}, {"trainable": "head"}, {"lr0": 0.01}],
)
def test_a_resumed_run_goes_on_as_it_began(scenes: Path, tmp_path: Path, change: dict[str, Any]):
    folder = interrupted(scenes, tmp_path, at=1)
    with pytest.raises(ConfigurationError, match=next(iter(change))):
        train({"resume": str(folder), **change})


def test_an_interrupt_before_the_first_charge_leaves_nothing(scenes: Path, tmp_path: Path):
    yolo = PrivateYOLO(ARCHITECTURE)

    def interrupt(_: Any) -> None:
        raise KeyboardInterrupt

    yolo.add_callback("on_train_start", interrupt)
    with pytest.raises(KeyboardInterrupt):
        yolo.train(data=str(scenes), epsilon=8, steps=1, imgsz=IMGSZ, project=str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_run_is_resumed_once_at_a_time(scenes: Path, tmp_path: Path):
    folder = interrupted(scenes, tmp_path, at=1)
    running = lock_folder(folder / "internal")
    with pytest.raises(StorageError, match="already going on"):
        train({"resume": str(folder)})
    running.close()
    assert train({"resume": str(folder)}).record.steps.charged == 5


def test_a_changed_argument_file_changes_nothing_on_resume(scenes: Path, tmp_path: Path):
    arguments = tmp_path / "c.yaml"
    arguments.write_text("insecure_seed: 7\n")
    with pytest.raises(KeyboardInterrupt):
        train(
            {
                "data": str(scenes), "model": ARCHITECTURE, "epsilon": 8, "steps": 3,
                "imgsz": IMGSZ, "val": False, "project": str(tmp_path), "cfg": str(arguments),
            },
            reporter=InterruptAt(1),
        )  # fmt: skip
    arguments.write_text("max_det: 100\n")
    assert train({"resume": str(tmp_path / "train")}).claim_valid is False


def test_a_ledger_of_another_mechanism_is_refused(scenes: Path, tmp_path: Path):
    folder = interrupted(scenes, tmp_path, at=2)
    ledger = folder / "internal" / "ledger.jsonl"
    text = re.sub(r'"noise_multiplier": [0-9.]+', '"noise_multiplier": 100.0', ledger.read_text())
    ledger.write_text(text)
    with pytest.raises(DiscreetError, match="something else than it planned"):
        train({"resume": str(folder)})


@pytest.mark.parametrize("change", ["names", "population"])
def test_a_resumed_run_keeps_its_data_and_its_record(scenes: Path, tmp_path: Path, change: str):
    copy = tmp_path / "copy"
    shutil.copytree(scenes.parent, copy)
    folder = interrupted(copy / "data.yaml", tmp_path, at=1)
    if change == "names":
        described = (copy / "data.yaml").read_text()
        (copy / "data.yaml").write_text(described.replace("red cell", "blue cell"))
    else:
        state = folder / "internal" / "run.json"
        state.write_text(state.read_text().replace('"population": 24', '"population": 2400'))
    with pytest.raises(ConfigurationError, match="resume"):
        train({"resume": str(folder)})


@pytest.mark.parametrize("harm", ["torn", "changed", "of another run's ledger"])
def test_a_harmed_checkpoint_is_named(
    scenes: Path, tmp_path: Path, harm: str, monkeypatch: pytest.MonkeyPatch
):
    folder = interrupted(scenes, tmp_path, at=1)
    checkpoint = folder / "internal" / "checkpoint.pt"
    whole = checkpoint.read_bytes()
    if harm == "torn":
        checkpoint.write_bytes(whole[:1000])
    elif harm == "changed":  # in the middle of a weight: torch would load it
        middle = len(whole) // 2
        checkpoint.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    else:
        monkeypatch.setattr(BudgetLedger, "mac", lambda *_: bytes(32))
    with pytest.raises(DiscreetError, match=r"checkpoint\.pt"):
        train({"resume": str(folder)})


def test_a_full_disk_while_releasing_loses_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from discreet.yolo import release

    def full(*_: Any, **__: Any) -> str:
        raise StorageError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(release, "write_weights", full)
        with pytest.raises(DiscreetError, match="No space left"):
            run(steps=2)
    folder = tmp_path / "runs" / "train"
    assert not (folder / "release").exists()
    result = train({"resume": str(folder)})
    assert result.record.steps.charged == 2
