"""A run that is killed, starved or tampered with: what was visible is charged, nothing is lost."""

from __future__ import annotations

import mmap
import multiprocessing
import random
import time
from pathlib import Path
from typing import Any

import pytest

from discreet import PrivateDetectionTrainer, PrivateYOLO
from discreet.ledger import BudgetLedger, RunLedger
from tests.yolo.conftest import ARCHITECTURE, IMGSZ

KILLS, STEPS = 100, 40
# Imports take seconds: each process is forked from one that has done them.
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["discreet.yolo.train"])


class Visible:
    """A counter that survives the death of the process that counts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.write_bytes(bytes(1024))

    def count_up(self) -> None:
        """Count one more, as a byte of shared memory."""
        with self._path.open("r+b") as stream, mmap.mmap(stream.fileno(), 1024) as memory:
            memory[memory[:].index(0)] = 1

    def __int__(self) -> int:
        return sum(self._path.read_bytes())


def train_counting(arguments: dict[str, Any], visible: Visible) -> None:
    """Train, counting each update of the weights the moment that it is made."""
    yolo = PrivateYOLO(ARCHITECTURE)
    PrivateDetectionTrainer._check_step = lambda _: None  # seconds that are not killed in

    def watch(trainer: Any) -> None:
        trainer.optimizer.register_step_post_hook(lambda *_: visible.count_up())

    yolo.add_callback("on_train_start", watch)
    yolo.train(**arguments)


def charged(project: Path, ledger: Path) -> tuple[int, int]:
    """Steps charged by the runs of a project: in their own records, and in the data set's."""
    own = [RunLedger(path, new=False) for path in project.glob("*/internal/ledger.jsonl")]
    runs = BudgetLedger.open(ledger).runs() if ledger.exists() else ()
    return (
        sum(event.steps for record in own for event in record.events),
        sum(run.position for run in runs if run.label.startswith(str(project))),
    )


def wait_for(visible: Visible, process: Any, *, more: int) -> None:
    """Wait until the process has made that many more updates, or ended."""
    goal = int(visible) + more
    while process.is_alive() and int(visible) < goal:
        time.sleep(0.002)


@pytest.mark.slow
def test_kill_at_random_moments_never_undercharges(scenes: Path, tmp_path: Path):
    chance = random.Random(7)
    ledger = tmp_path / "ledger.sqlite"
    kills = finished = 0
    resumed = 0
    while kills < KILLS:
        project = tmp_path / f"project{finished}"
        visible = Visible(tmp_path / f"visible{finished}")
        arguments: dict[str, Any] = {
            "data": str(scenes), "noise_multiplier": 2, "batch": 8, "steps": STEPS, "imgsz": IMGSZ,
            "val": False, "project": str(project), "ledger": str(ledger), "workers": 0,
        }  # fmt: skip
        done = False
        while not done and kills < KILLS:
            process = FORKED.Process(target=train_counting, args=(arguments, visible))
            process.start()
            wait_for(visible, process, more=chance.choice([0, 0, 1, 2, 3, 5]))
            process.join(chance.uniform(0.0, 0.1) if int(visible) else chance.uniform(0.0, 3.0))
            done = process.exitcode is not None
            if done:
                assert process.exitcode == 0
            else:
                kills += 1
                process.kill()
                process.join()
            assert min(charged(project, ledger)) >= int(visible)
            if runs := list(project.glob("*/internal/run.json")):
                arguments = {"resume": str(runs[0].parent.parent), "ledger": str(ledger)}
                resumed += 1
        finished += 1
    assert resumed > KILLS / 2
    assert finished > 1
