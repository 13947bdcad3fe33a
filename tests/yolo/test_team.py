"""Several processes train one detector: as one process would, at the same ε."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from ultralytics import YOLO

from discreet import PrivateDetectionTrainer, PrivateYOLO
from discreet.cli.launching import devices_asked
from discreet.errors import ConfigurationError, TeamError
from discreet.launched import Place
from discreet.ledger import RunLedger
from discreet.result import TrainingResult
from discreet.yolo import preparation
from discreet.yolo.devices import device_of, fits
from tests.team import Member, start_team
from tests.yolo.conftest import ARCHITECTURE, IMGSZ
from tests.yolo.test_faults import Visible, charged, wait_for


@pytest.fixture
def given(scenes: Path, tmp_path: Path) -> dict[str, Any]:
    """Arguments of a short run."""
    return {
        "data": str(scenes), "epsilon": 8, "batch": 6, "steps": 6, "imgsz": IMGSZ, "val": False,
        "project": str(tmp_path / "runs"), "ledger": str(tmp_path / "ledger.sqlite"),
        "workers": 0, "device": "cpu", "optimizer": "SGD", "lr0": 0.1, "team_timeout": 300,
        "sign": False,
    }  # fmt: skip


def train_in_team(
    arguments: Mapping[str, Any],
    visible: Visible | None,
    pause: float,
    changes: Mapping[int, Any],
    devices: Mapping[int, str],
) -> TrainingResult:
    """Train; count updates of the weights, the moment they are made.

    Args:
        arguments: For all.
        visible: Counts.
        pause: Seconds that an update of the leader takes longer.
        changes: Arguments of single ranks.
        devices: Names of those of single ranks.
    """
    rank = int(os.environ.get("RANK", 0))
    preparation.rounds_by = lambda _: {"devices": devices.get(rank, "one")}
    yolo = PrivateYOLO(ARCHITECTURE)
    PrivateDetectionTrainer._check_step = lambda _: None  # seconds that are not at stake here

    def made(*_: Any) -> None:
        if visible:
            visible.count_up()
        time.sleep(pause)

    yolo.add_callback("on_train_start", lambda t: t.optimizer.register_step_post_hook(made))
    return yolo.train(**{**arguments, **changes.get(rank, {})})


def start(
    arguments: Mapping[str, Any],
    *,
    size: int = 2,
    visible: Visible | None = None,
    pause: float = 0.0,
    changes: Mapping[int, Any] | None = None,
    devices: Mapping[int, str] | None = None,
) -> list[Member]:
    return start_team(
        train_in_team, dict(arguments), visible, pause, changes or {}, devices or {}, size=size
    )


def weights(run: TrainingResult) -> dict[str, torch.Tensor]:
    return {k: v.double() for k, v in YOLO(str(run.weights)).model.state_dict().items()}


def apart(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> float:
    return float(sum((one[k] - other[k]).square().sum() for k in one)) ** 0.5


@pytest.mark.slow
def test_two_processes_make_the_run_of_one(given: dict[str, Any], tmp_path: Path):
    """Batches of one expected image: often a process has none, or none has any."""
    same = {**given, "batch": 1, "insecure_seed": 3, "noise_multiplier": 0.5, "epsilon": None}
    leader, follower = start({**same, "name": "team"})
    PrivateDetectionTrainer._check_step, check = lambda _: None, PrivateDetectionTrainer._check_step
    try:
        alone = PrivateYOLO(ARCHITECTURE).train(**same, name="alone")
    finally:
        PrivateDetectionTrainer._check_step = check
    team = leader.answer()
    assert isinstance(team, TrainingResult), team
    assert follower.answer() == replace(team, seconds=round(team.seconds, 3))
    moved = apart(weights(alone), {k: torch.zeros(()) for k in weights(alone)})
    # Released weights are in half precision: a last digit of a few of them may differ.
    assert apart(weights(alone), weights(team)) < 3e-5 * moved
    # The statement of a stranger: the same events, the same ε.
    assert team.record.events == alone.record.events
    assert team.spent == alone.spent
    lines = [(r.internal / "steps.csv").read_text().splitlines() for r in (alone, team)]
    drawn = [[line.split(",")[1] for line in run] for run in lines]
    assert drawn[0] == drawn[1]
    assert "0" in drawn[1]
    ledger = RunLedger(team.internal / "ledger.jsonl", new=False)
    assert sum(event.steps for event in ledger.events) == 6


def other_scenes(scenes: Path, folder: Path) -> Path:
    """The same data set with one label changed."""
    shutil.copytree(scenes.parent, folder)
    label = next((folder / "labels" / "train").glob("*.txt"))
    label.write_text(label.read_text().replace("0.", "0.0", 1))
    return folder / scenes.name


@pytest.mark.slow
def test_processes_with_other_images_do_not_begin(given: dict[str, Any], tmp_path: Path):
    other = other_scenes(Path(given["data"]), tmp_path / "other")
    for member in start(given, changes={1: {"data": str(other)}}):
        error = member.answer()
        assert isinstance(error, TeamError)
        assert "process 2 of 2 has other training images, labels or class names" in str(error)
    assert not list((tmp_path / "runs").glob("*"))
    assert charged(tmp_path / "runs", tmp_path / "ledger.sqlite") == (0, 0)


@pytest.mark.parametrize(
    ("amp", "alike"), [("bf16", False), pytest.param(False, True, marks=pytest.mark.slow)]
)
def test_processes_that_would_round_otherwise_do_not_begin(
    given: dict[str, Any], tmp_path: Path, amp: object, alike: bool
):
    """Which of them computes an image depends on who else is drawn."""
    for member in start({**given, "amp": amp, "steps": 1}, devices={1: "another"}):
        answer = member.answer()
        assert isinstance(answer, TrainingResult if alike else TeamError)
        assert alike or "process 2 of 2 has other devices than the first" in str(answer)
    spent = charged(tmp_path / "runs", tmp_path / "ledger.sqlite")
    assert spent == ((1, 1) if alike else (0, 0))


def test_what_one_process_cannot_read_no_process_trains_on(given: dict[str, Any], tmp_path: Path):
    for member in start(given, changes={1: {"data": str(tmp_path / "absent.yaml")}}):
        error = member.answer()
        assert isinstance(error, ConfigurationError | ValueError)
        assert "in process 2 of 2" in str(error) or "absent.yaml" in str(error)
    assert not list((tmp_path / "runs").glob("*"))


def test_an_audit_is_of_one_process(given: dict[str, Any], tmp_path: Path):
    from discreet.yolo.audit import AuditedTrainer

    trainer = AuditedTrainer.__new__(AuditedTrainer)
    trainer.team = cast(Any, SimpleNamespace(place=Place(rank=1, size=2)))
    with pytest.raises(ConfigurationError, match="an audit runs in one process"):
        trainer._prepare(given)


@pytest.mark.parametrize(
    ("devices", "place", "mine"),
    [
        (None, Place(), None),
        ("cpu", Place(size=2, local_rank=1, local_size=2), "cpu"),
        (["cpu", "cpu"], Place(size=2, local_rank=1, local_size=2), "cpu"),
        ([3, 5], Place(size=2, rank=1, local_rank=1, local_size=2), 5),
        (0, Place(size=2, rank=1), 0),  # one process a host
    ],
)
def test_a_process_takes_the_device_of_its_number(devices: object, place: Place, mine: object):
    assert device_of(devices, place) == mine


@pytest.mark.parametrize(
    ("devices", "place", "what"),
    [
        ([0, 1], Place(), "this is one process"),
        ([0, 1, 2], Place(size=2, local_size=2), "3 devices are given, and 2 processes"),
        (0, Place(size=2, local_size=2), "cannot share device 0"),
    ],
)
def test_devices_that_do_not_fit_the_processes_are_refused(
    devices: object, place: Place, what: str
):
    with pytest.raises(ConfigurationError, match=what):
        device_of(devices, place)


@pytest.mark.parametrize(
    ("typed", "count"),
    [
        ("train device=0,1", 2),
        ("train --device=0,1,2", 3),
        ("train device=[0,1]", 2),
        ("train --device cpu,cpu", 2),
        ("train device = 0,1", 2),
        ("train device=0", 1),
        ("train device=cpu,", 1),
        ("train epsilon=8", 1),
        ("check device=0,1", 1),
        ("", 1),
    ],
)
def test_several_devices_ask_for_as_many_processes(
    typed: str, count: int, monkeypatch: pytest.MonkeyPatch
):
    assert devices_asked(typed.split()) == count
    # Whoever is one of them starts no more.
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert devices_asked(typed.split()) == 1


def test_devices_that_a_run_began_on_fit_as_many_processes():
    one, two = Place(), Place(size=2, local_rank=1, local_size=2)
    assert fits("cpu,cpu", two) and fits([0, 1], two)
    assert not fits("cpu,cpu", one) and not fits("0,1,2", two)
    assert fits(None, one) and fits("cpu", one) and fits("cpu", two)


# ---- processes that die, hosts that are cut off ----


def run_of(project: Path) -> Path:
    return next(project.glob("*/internal/run.json")).parent.parent


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1], ids=["the leader", "a follower"])
def test_a_killed_process_ends_all_uncharges_nothing_and_the_run_goes_on(
    given: dict[str, Any], tmp_path: Path, victim: int
):
    project, ledger = tmp_path / "runs", tmp_path / "ledger.sqlite"
    visible, chance = Visible(tmp_path / "visible"), random.Random(victim)
    arguments = {**given, "steps": 40}
    for size in (2, 3, 2):  # each time with another number of processes
        members = start(arguments, size=size, visible=visible, pause=0.02)
        wait_for(visible, members[0].process, more=chance.choice([1, 3, 5]))
        time.sleep(chance.uniform(0, 0.1))
        began = time.monotonic()
        members[victim].kill()
        for rank, member in enumerate(members):
            if rank != victim:
                error = member.answer(within=30)
                assert isinstance(error, TeamError), error
                if rank == 0:
                    assert f"resume={run_of(project)}" in str(error)
        assert time.monotonic() - began < 20
        assert min(charged(project, ledger)) >= int(visible) > 0
        arguments = {"resume": str(run_of(project)), "ledger": str(ledger), "team_timeout": 300}
    result = start(arguments, size=1, visible=visible)[0].answer(within=120)
    assert isinstance(result, TrainingResult), result
    steps = result.record.steps
    assert steps.charged == steps.planned == 40
    assert steps.resumes == 3
    # What the leader had not saved when it was killed is lost, and stays charged.
    assert steps.executed <= int(visible) <= 40
    assert victim == 0 or steps.executed == int(visible)
    assert charged(project, ledger) == (40, 40)


@pytest.mark.slow
def test_a_process_that_fails_in_a_step_ends_all(given: dict[str, Any], tmp_path: Path):
    visible = Visible(tmp_path / "visible")
    leader, follower = start({**given, "steps": 40}, visible=visible, pause=0.05)
    wait_for(visible, leader.process, more=2)
    follower.process.terminate()  # as a launcher does
    error = leader.answer(within=30)
    assert isinstance(error, TeamError)
    assert min(charged(tmp_path / "runs", tmp_path / "ledger.sqlite")) >= int(visible)


# ---- the command line ----


def words(given: Mapping[str, Any]) -> list[str]:
    arguments = {k: v for k, v in given.items() if k != "device"}
    return ["train", f"model={ARCHITECTURE}", *(f"{k}={v}" for k, v in arguments.items())]


def cli(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, check=False, timeout=300
    )


@pytest.mark.slow
def test_devices_start_a_process_each_and_one_speaks(given: dict[str, Any], tmp_path: Path):
    done = cli("discreet", *words(given), "device=cpu,cpu", "name=devices", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    assert '"claim_valid": true' in done.stdout
    assert done.stderr.count("this training spent") == 1
    assert charged(tmp_path / "runs", tmp_path / "ledger.sqlite") == (6, 6)
    # It goes on with any number of processes: here nothing is left to do.
    again = cli("discreet", "train", f"resume={tmp_path / 'runs' / 'devices'}")
    assert again.returncode == 0, again.stderr
    missing = cli("discreet", *words({**given, "data": "absent.yaml"}), "device=cpu,cpu")
    assert missing.returncode == 2
    assert missing.stderr.count("error: ") == 1
    assert "absent.yaml" in missing.stderr
    assert "Traceback" not in missing.stderr


@pytest.mark.slow
def test_torchrun_starts_a_run(given: dict[str, Any], tmp_path: Path):
    torchrun = ("torch.distributed.run", "--nproc-per-node", "2", "-m", "discreet")
    done = cli(*torchrun, *words(given), "device=cpu")
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).count("this training spent") == 1
    assert charged(tmp_path / "runs", tmp_path / "ledger.sqlite") == (6, 6)
    refused = cli(*torchrun, "version")
    assert refused.stderr.count("error: version: runs in one process") == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_in_order_and_tells_how_to_resume(
    given: dict[str, Any], tmp_path: Path, number: signal.Signals
):
    process = subprocess.Popen(
        [sys.executable, "-m", "discreet", *words({**given, "steps": 4000}), "device=cpu,cpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    project, ledger = tmp_path / "runs", tmp_path / "ledger.sqlite"
    limit = time.monotonic() + 400
    while time.monotonic() < limit and not (ledger.exists() and charged(project, ledger)[1] > 3):
        time.sleep(0.2)
    process.send_signal(number)
    told, _ = process.communicate(timeout=200)
    assert process.returncode == 130, told
    assert told.count("resume=") == 1, told
    assert "Traceback" not in told and "torch/" not in told, told
    spent = charged(project, ledger)[1]
    assert len(list(run_of(project).glob("internal/checkpoint.pt"))) == 1, (spent, told)
