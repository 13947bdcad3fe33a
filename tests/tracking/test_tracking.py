"""Experiment trackers receive the public facts of a run and nothing else."""

from __future__ import annotations

import getpass
import importlib
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from discreet.errors import ConfigurationError
from discreet.statement.record import PrivacyRecord
from discreet.statement.schema import ValidationData
from discreet.tracking import PublicRun, open_trackers, public_run
from tests.statement.conftest import record_of

NAMES = ("tensorboard", "mlflow", "wandb")


@pytest.fixture
def public_record() -> PrivacyRecord:
    return record_of(
        validation=ValidationData(access="public", metrics_are_released=True),
        metrics={"map50": 0.5, "map50_95": 0.25},
    )


@pytest.fixture
def run(public_record: PrivacyRecord) -> PublicRun:
    return public_run(
        public_record, epsilons={2: 0.5, 10**9: 9.0}, learning_rates={2: 0.05, 10**9: 0.005}
    )


def test_a_run_ends_with_the_claim(run: PublicRun, public_record: PrivacyRecord):
    assert [step for step, _ in run.rows] == [2, public_record.steps.charged]
    assert run.rows[0][1] == {"privacy/epsilon": 0.5, "learning_rate": 0.05}
    assert run.rows[-1][1]["privacy/epsilon"] == public_record.claim.epsilon
    assert run.rows[-1][1]["metrics/map50"] == 0.5


def test_every_fact_is_in_the_record(run: PublicRun, public_record: PrivacyRecord):
    published = public_record.model_dump_json().lower()
    for value in run.settings.values():
        for word in str(value).lower().strip("()").split(", "):
            assert word in published


@pytest.mark.parametrize("missing", NAMES)
def test_a_missing_package_is_told_before_anything_is_spent(
    missing: str, monkeypatch: pytest.MonkeyPatch
):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "discreet.tracking.find_spec", lambda name: None if name == missing else real(name)
    )
    with pytest.raises(ConfigurationError, match=f"pip install {missing}"):
        open_trackers(missing)
    assert open_trackers(None) == {}


def _strangers(folder: Path) -> dict[str, bytes]:
    """What tells of the machine and its user."""
    import __main__

    script = str(getattr(__main__, "__file__", "pytest"))
    words = {
        "host": socket.gethostname(),
        "folder": str(folder.parent),
        "script": script,
        "cwd": str(Path.cwd()),
    }
    if len(getpass.getuser()) > 4:  # "root" is in many words
        words["user"] = getpass.getuser()
    return {name: word.encode() for name, word in words.items()}


def test_tensorboard_gets_curves_and_settings(run: PublicRun, tmp_path: Path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    open_trackers("tensorboard")["tensorboard"].publish(run, tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    tags = events.Tags()["scalars"]
    assert set(tags) == {name for _, scalars in run.rows for name in scalars}
    shown = {event.step: event.value for event in events.Scalars("privacy/epsilon")}
    assert shown == pytest.approx({s: scalars["privacy/epsilon"] for s, scalars in run.rows})


def test_mlflow_gets_public_facts_and_no_tag(
    run: PublicRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setattr(mlflow.tracking._tracking_service.utils, "_tracking_uri", None)
    store = tmp_path / "store"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    open_trackers("mlflow")["mlflow"].publish(run, tmp_path / "own")
    client = mlflow.MlflowClient()
    (found,) = client.search_runs([client.get_experiment_by_name("discreet").experiment_id])
    assert set(found.data.params) == set(run.settings)
    assert found.data.metrics == {
        name: pytest.approx(value) for _, scalars in run.rows for name, value in scalars.items()
    }
    assert set(found.data.tags) <= {"mlflow.runName"}  # an adjective, an animal and a number
    written = b"".join(
        p.read_bytes() for p in store.rglob("*") if p.is_file() and p.name != "meta.yaml"
    )
    for name, word in _strangers(tmp_path).items():
        assert word not in written, name


def test_mlflow_needs_no_setting(run: PublicRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    mlflow = pytest.importorskip("mlflow")
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_ALLOW_FILE_STORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(mlflow.tracking._tracking_service.utils, "_tracking_uri", None)
    monkeypatch.chdir(tmp_path)
    open_trackers("mlflow")["mlflow"].publish(run, tmp_path / "own")
    assert (tmp_path / "mlflow.db").is_file()


def test_a_server_that_does_not_answer_is_not_waited_for(
    run: PublicRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setattr(mlflow.tracking._tracking_service.utils, "_tracking_uri", None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    for name in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.setenv(name, "1")  # so that it is put back
        monkeypatch.delenv(name)
    with pytest.raises(Exception, match="9"):
        open_trackers("mlflow")["mlflow"].publish(run, tmp_path / "own")


@pytest.mark.slow
def test_wandb_gets_public_facts_and_nothing_of_the_machine(
    run: PublicRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    open_trackers("wandb")["wandb"].publish(run, tmp_path)
    (sent,) = tmp_path.rglob("*.wandb")
    told = [name.encode() for _, scalars in run.rows for name in scalars]
    until = time.monotonic() + 20
    while not all(name in (content := sent.read_bytes()) for name in told):
        assert time.monotonic() < until  # W&B's own process writes it, also after the run's end
        time.sleep(0.1)
    for name, word in _strangers(tmp_path).items():
        assert word not in content, name


def test_what_reaches_wandb_is_public(
    run: PublicRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    wandb = pytest.importorskip("wandb")
    seen: list[Any] = []

    class Recorder:
        def log(self, scalars: dict[str, float], step: int) -> None:
            seen.append((step, scalars))

        def finish(self) -> None:
            seen.append("end")

    def init(**arguments: Any) -> Recorder:
        seen.append(arguments)
        return Recorder()

    monkeypatch.setattr(wandb, "init", init)
    open_trackers("wandb")["wandb"].publish(run, tmp_path)
    begun, *rows, end = seen
    assert begun["config"] == run.settings
    assert rows == [(step, dict(scalars)) for step, scalars in run.rows]
    assert end == "end"
    settings = begun["settings"]
    assert settings.console == "off" and settings.disable_git and settings.x_disable_meta
