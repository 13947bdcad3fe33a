"""The check of the real trainer; what it finds is in `tests/planted`."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

from discreet import PrivateDetectionTrainer
from discreet.api import train
from discreet.checking import PROBES
from discreet.cli import main
from discreet.errors import CheckError
from discreet.yolo import checking
from discreet.yolo import train as training
from discreet.yolo.checking import check_arguments

from ..planted.catalogue import CATALOGUE
from ..planted.models import centre_over_the_batch
from ..planted.plant import Plant
from ..planted.runs import Training
from ..yolo.conftest import ARCHITECTURE, IMGSZ, scenes

__all__ = ["scenes"]

Given = dict[str, Any]


@pytest.fixture
def given(scenes: Path) -> Given:
    return {
        "data": str(scenes),
        "model": ARCHITECTURE,
        "epsilon": 8,
        "batch": 8,
        "steps": 2,
        "imgsz": IMGSZ,
        "val": False,
    }


def failed(report: Any) -> set[str]:
    return {finding.probe for finding in report.violations}


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["frozen", "group"])
def test_full_checks_raise_no_alarm(given: Given, norm: str):
    report = check_arguments({**given, "norm": norm}, full=True)
    assert report.passed, report.to_text()
    assert {"engines", "sampler"} <= {finding.probe for finding in report.findings}


# ---- mistakes ----

# What only a trainer has: a data set, a plan.
PLANTS = [plant for plant in CATALOGUE if plant.probes and not plant.probes & set(PROBES)]


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name)
def test_mistakes_of_data_and_plan_are_found_by_their_probe_alone(
    plant: Plant, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    reports = []

    class Checked(checking._Rehearsal):
        def _do_train(self) -> None:
            try:
                self._setup_train()
                core = set(PROBES)
                for without in (core, {*core, *plant.probes}):
                    reports.append(
                        checking.check_trainer(self, full=True, real=True, without=without)
                    )
            finally:
                self._leave_folder()

    run = Training(tmp_path, scenes)
    with plant.planted(run):
        Checked(overrides=run.given, _callbacks=training.default_callbacks()).train()
    found, missed = reports
    assert plant.probes <= failed(found), found.to_text()
    assert missed.passed or plant.probes & {"augmentation", "access"}, missed.to_text()


# ---- in train, and on its own ----


def tree(folder: Path) -> dict[str, str]:
    return {
        str(p): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def test_training_refuses_before_anything_is_spent(
    given: Given, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    centre_over_the_batch(monkeypatch)
    with pytest.raises(CheckError, match=r"model\.1\.act"):
        train({**given, "norm": "frozen", "project": str(tmp_path)})
    assert not list(tmp_path.rglob("ledger.jsonl"))
    assert not list(tmp_path.rglob("weights.pt"))


@pytest.mark.slow
def test_a_run_is_the_same_with_and_without_the_check(
    given: Given, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    arguments = {**given, "insecure_seed": 3}
    one = train({**arguments, "project": str(tmp_path / "a")})
    monkeypatch.setattr(PrivateDetectionTrainer, "_check_step", lambda _: None)
    other = train({**arguments, "project": str(tmp_path / "b")})
    load = {"map_location": "cpu", "weights_only": False}
    a, b = (torch.load(r.release / "weights.pt", **load)["model"] for r in (one, other))
    for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        assert torch.equal(x, y), name


def test_the_command_line_checks_and_leaves_nothing(
    given: Given, scenes: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
):
    monkeypatch.chdir(tmp_path)
    before = tree(scenes.parent)
    words = [f"{key}={value}" for key, value in given.items()]
    assert main(["check", *words]) == 0
    assert "contributions" in capsys.readouterr().out
    assert tree(scenes.parent) == before
    assert not list(tmp_path.iterdir())
    centre_over_the_batch(monkeypatch)
    assert main(["check", *words, "norm=frozen"]) == 2
    assert "model.1.act (Mean)" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["maybe", "1", "none", "yes"])
def test_the_command_line_takes_no_guess_at_full(given: Given, value: str, capsys: Any):
    words = [f"{name}={text}" for name, text in given.items()]
    assert main(["check", *words, f"full={value}"]) == 2
    assert f"full={value}: expected True or False" in capsys.readouterr().err


# ---- real data ----


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["coco8", "bccd"])
@pytest.mark.parametrize("changes", [{}, {"trainable": "all", "amp": "bf16"}], ids=["", "all"])
def test_real_images_raise_no_alarm(
    shared_data: Path, yolov8n_weights: Path, name: str, changes: Given
):
    (data,) = (shared_data / name).glob("*.yaml")
    report = check_arguments(
        {
            "data": str(data),
            "model": str(yolov8n_weights),
            "epsilon": 8,
            "epochs": 1,
            "imgsz": 160,
            **changes,
        }
    )
    assert report.passed, report.to_text()


@pytest.mark.real_data
def test_a_public_teacher_of_real_images_raises_no_alarm(shared_data: Path, yolov8n_weights: Path):
    report = check_arguments(
        {
            "data": str(shared_data / "bccd" / "data.yaml"),
            "model": str(yolov8n_weights),
            "teacher": str(yolov8n_weights),
            "teacher_data": "public",
            "epsilon": 8,
            "epochs": 1,
            "imgsz": 160,
        }
    )
    assert report.passed, report.to_text()
