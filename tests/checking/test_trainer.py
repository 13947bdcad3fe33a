"""The check of the real trainer: mistakes in its parts, and clean runs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from discreet import PrivateDetectionTrainer
from discreet.api import train
from discreet.checking import PROBES
from discreet.cli import main
from discreet.errors import CheckError
from discreet.sampling import PoissonSampler
from discreet.yolo import checking
from discreet.yolo import train as training
from discreet.yolo.checking import check_arguments
from discreet.yolo.dataset import MicroBatches, RecordDataset
from discreet.yolo.loss import PerImageDetectionLoss

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


CLEAN: list[Given] = [
    {"norm": "group"},
    {"norm": "frozen"},
    {"norm": "frozen", "trainable": "head"},
    {"norm": "frozen", "trainable": "film+head", "max_grad_norm": 1e-3},
    {"norm": "group", "trainable": "film", "max_grad_norm": 1e4},
    {"norm": "frozen", "engine": "opacus"},
    {"norm": "frozen", "engine": "reference", "trainable": "head"},
    {"norm": "frozen", "amp": "bf16"},
    {"norm": "group", "amp": "bf16", "trainable": "whole_head"},
    {"degrees": 10.0, "scale": 0.5, "flipud": 0.5, "hsv_h": 0.1},
    {"optimizer": "SGD", "lr0": 0.01, "batch": 24},
    {"micro_batch": 1, "workers": 0, "noise_multiplier": 5.0, "epsilon": None},
]


@pytest.mark.parametrize("changes", CLEAN, ids=lambda c: ",".join(f"{k}={v}" for k, v in c.items()))
def test_clean_runs_raise_no_alarm(given: Given, changes: Given):
    arguments = {k: v for k, v in {**given, **changes}.items() if v is not None}
    report = check_arguments(arguments)
    assert report.passed, report.to_text()
    assert not [finding for finding in report.findings if finding.verdict == "not run"]


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["frozen", "group"])
def test_full_checks_raise_no_alarm(given: Given, norm: str):
    report = check_arguments({**given, "norm": norm}, full=True)
    assert report.passed, report.to_text()
    assert {"engines", "sampler"} <= {finding.probe for finding in report.findings}


# ---- mistakes ----


def batch_total(monkeypatch: pytest.MonkeyPatch) -> None:
    own = PerImageDetectionLoss.per_image

    def per_image(self: Any, predictions: Any, batch: Any) -> torch.Tensor:
        terms = own(self, predictions, batch).clone()
        terms[:, 1] = terms[:, 1] / terms[:, 1].detach().sum()
        return terms

    monkeypatch.setattr(PerImageDetectionLoss, "per_image", per_image)


def training_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "train_mode", lambda model: model.train())


def idle_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    """BatchNorm by another name: no class tells."""

    class Mean(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x - x.mean(0)

    own = training.train_mode

    def planted(model: Any) -> None:
        own(model)
        model.model[1].act = Mean()

    monkeypatch.setattr(training, "train_mode", planted)


def seeded_by_place(monkeypatch: pytest.MonkeyPatch) -> None:
    own = RecordDataset.__init__

    def init(self: Any, records: Any, **kwargs: Any) -> None:
        own(self, records, **kwargs)
        if len(records) > 1:  # alone, an image keeps the stream that it has among others
            self._identity = {
                str(r.image): (i + int.from_bytes(r.digest, "big") * 0)
                for i, r in enumerate(records)
            }

    monkeypatch.setattr(RecordDataset, "__init__", init)


def blended(monkeypatch: pytest.MonkeyPatch) -> None:
    own = RecordDataset.load_image

    def load_image(self: Any, i: int, *args: Any, **kwargs: Any) -> Any:
        image, shape, new = own(self, i, *args, **kwargs)
        other, _, _ = own(self, self.ni - 1)
        height, width = min(len(image), len(other)), min(image.shape[1], other.shape[1])
        image[:height, :width] = image[:height, :width] // 2 + other[:height, :width] // 2
        return image, shape, new

    monkeypatch.setattr(RecordDataset, "load_image", load_image)


def no_empty_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    class Skipping(MicroBatches):
        def _parts(self, draws: Any, first_step: int) -> Any:
            return super()._parts((draw for draw in draws if len(draw)), first_step)

    monkeypatch.setattr(training, "MicroBatches", Skipping)


def shuffling(monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(self: PoissonSampler, stream: np.random.Generator) -> np.ndarray:
        size = round(self.population * self.sample_rate)
        return np.sort(stream.permutation(self.population)[:size])

    monkeypatch.setattr(PoissonSampler, "draw", draw)


def favourite(monkeypatch: pytest.MonkeyPatch) -> None:
    own = PoissonSampler.draw

    def draw(self: PoissonSampler, stream: np.random.Generator) -> np.ndarray:
        return np.union1d(own(self, stream), [3])

    monkeypatch.setattr(PoissonSampler, "draw", draw)


Plant = Callable[[pytest.MonkeyPatch], None]
DATA: dict[str, tuple[Plant, str]] = {
    "augmentation seeded by place": (seeded_by_place, "augmentation"),
    "pixels of another image": (blended, "access"),
    "empty steps skipped": (no_empty_steps, "loader"),
    "shuffled": (shuffling, "sampler"),
    "one unit always drawn": (favourite, "sampler"),
}


@pytest.mark.parametrize("name", DATA)
def test_mistakes_of_the_data_path_are_found_by_their_probe_alone(
    name: str, given: Given, monkeypatch: pytest.MonkeyPatch
):
    plant, probe = DATA[name]
    reports = []

    class Checked(checking._Rehearsal):
        def _do_train(self) -> None:
            try:
                self._setup_train()
                core = set(PROBES)
                for without in (core, {*core, probe}):
                    reports.append(
                        checking.check_trainer(self, full=True, real=True, without=without)
                    )
            finally:
                self._leave_folder()

    monkeypatch.setattr(checking, "_Rehearsal", Checked)
    plant(monkeypatch)
    with pytest.raises(AssertionError):  # it has no report of its own
        check_arguments(given)
    found, missed = reports
    assert probe in failed(found), found.to_text()
    assert missed.passed or probe in ("augmentation", "access"), missed.to_text()


def test_a_loss_term_that_couples_is_named(given: Given, monkeypatch: pytest.MonkeyPatch):
    batch_total(monkeypatch)
    report = check_arguments({**given, "norm": "frozen"})
    assert {"losses", "contributions"} & failed(report)
    named = {place for finding in report.violations for place in finding.where}
    assert "loss term cls" in named, report.to_text()


def test_batch_normalisation_in_training_mode_is_named(
    given: Given, monkeypatch: pytest.MonkeyPatch
):
    training_norms(monkeypatch)
    report = check_arguments({**given, "norm": "frozen"})
    named = {place for finding in report.violations for place in finding.where}
    assert "model.0.bn (BatchNorm2d)" in named, report.to_text()
    assert "model.0.bn.running_mean" in named


def test_a_module_that_couples_is_named(given: Given, monkeypatch: pytest.MonkeyPatch):
    idle_norm(monkeypatch)
    report = check_arguments({**given, "norm": "frozen"})
    assert all(f.where == ("model.1.act (Mean)",) for f in report.violations), report.to_text()
    assert report.violations


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
    idle_norm(monkeypatch)
    with pytest.raises(CheckError, match=r"model\.1\.act"):
        train({**given, "norm": "frozen", "project": str(tmp_path)})
    assert not list(tmp_path.rglob("ledger.jsonl"))
    assert not list(tmp_path.rglob("weights.pt"))


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
    idle_norm(monkeypatch)
    assert main(["check", *words, "norm=frozen"]) == 2
    assert "model.1.act (Mean)" in capsys.readouterr().err


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
