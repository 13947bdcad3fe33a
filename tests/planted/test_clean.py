"""Correct runs of many kinds raise no alarm."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import discreet
from discreet.ledger import Spent
from discreet.yolo.checking import check_arguments

from ..statement.conftest import FULL_BATCH
from ..yolo.conftest import ARCHITECTURE, scenes
from .gradients import Tied
from .runs import Release, Step, Training
from .small_step import Net, data, losses_of

__all__ = ["scenes"]

Given = dict[str, Any]
SLOW = pytest.mark.slow

# ---- the trainer ----

RDP: Given = {"accountant": "rdp"}  # the fastest
TRAININGS: dict[str, Given] = {
    "group norm, all": {"norm": "group", "trainable": "all", "model": ARCHITECTURE},
    "frozen norm, all": {"trainable": "all", "model": ARCHITECTURE},
    "ε instead of σ": {"noise_multiplier": None, "epsilon": 8, **RDP},
    "tiny C": {"trainable": "film+head", "max_grad_norm": 1e-3},
    "huge C": {"norm": "group", "trainable": "film", "max_grad_norm": 1e4},
    "engine opacus": {"engine": "opacus"},
    "engine reference": {"engine": "reference"},
    "bfloat16": {"amp": "bf16"},
    "bfloat16, group norm": {"norm": "group", "amp": "bf16", "trainable": "whole_head"},
    "augmentation": {"degrees": 10.0, "scale": 0.5, "flipud": 0.5, "hsv_h": 0.1, "shear": 2.0},
    "SGD, full batch": {"optimizer": "SGD", "lr0": 0.01, "batch": 24},
    "RMSProp": {"optimizer": "RMSProp", "lr0": 0.001},
    "AdamW with decay": {"optimizer": "AdamW", "lr0": 0.001, "weight_decay": 0.01},
    "one image a part": {"micro_batch": 1, "workers": 0, "noise_multiplier": 5.0},
    "shuffled": {"sampling": "shuffle", "steps": 6},
    "truncated": {"sampling": "truncated_poisson", "largest_batch": 12},
    "noise in plateaus": {"noise_schedule": "step", "final_noise": 0.5, "steps": 12, **RDP},
    "noise that falls": {"noise_schedule": "exponential", "final_noise": 0.3, "steps": 12, **RDP},
    "replaced neighbours": {"relation": "replace_one"},
    "layers frozen": {"freeze": 10, "trainable": "whole_head", "model": ARCHITECTURE},
    "one class": {"single_cls": True},
    "seeded": {"insecure_seed": 3},
}
ARCHITECTURES = ("yolov8n", "yolo11n", "yolov5n", "yolov10n", "yolo26n")


def trainings() -> list[Any]:
    slow = {"group norm, all", "frozen norm, all", "engine reference", "bfloat16, group norm"}
    slow |= {"tiny C", "AdamW with decay", "noise in plateaus"}  # much like their neighbours
    found = [
        pytest.param(given, id=name, marks=[SLOW] if name in slow else [])
        for name, given in TRAININGS.items()
    ]
    return found + [
        pytest.param({"model": f"{name}.yaml"}, id=name, marks=[] if name == "yolo11n" else [SLOW])
        for name in ARCHITECTURES
    ]


@pytest.mark.parametrize("given", trainings())
def test_trainings_raise_no_alarm(given: Given, scenes: Path, tmp_path: Path):
    run = Training(tmp_path, scenes)
    run.given = {key: value for key, value in {**run.given, **given}.items() if value is not None}
    report = check_arguments(run.given)
    assert report.passed, report.to_text()
    idle = {finding.probe for finding in report.findings if finding.verdict == "not run"}
    assert idle <= ({"randomness"} if "insecure_seed" in given else set())


# ---- any module of torch ----


class Stochastic(nn.Module):
    """Drops whole units at random; no layer that torch knows as dropout."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (torch.rand(len(x), 1, 1, 1) < 0.5)


def frozen_batch_norm() -> nn.Module:
    model = Net(nn.BatchNorm2d(8))
    model.norm.eval()
    return model


MODULES: dict[str, Callable[[], nn.Module]] = {
    "group norm": Net,
    "frozen batch norm": frozen_batch_norm,
    "instance norm": lambda: Net(nn.InstanceNorm2d(8, affine=True)),
    "dropout": lambda: Net(nn.Dropout(0.4)),
    "channel dropout": lambda: Net(nn.Dropout2d(0.4)),
    "stochastic depth": lambda: Net(Stochastic()),
    "tied weights": Tied,
    "in-place": lambda: Net(nn.SiLU(inplace=True)),
}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("options", [{}, {"full": True, "max_grad_norm": 1e3}], ids=["", "full"])
def test_modules_raise_no_alarm(name: str, options: Given):
    images, targets = data()
    report = discreet.check(
        MODULES[name](), losses_of, lambda u: (images[u], targets[u]), **options
    )
    assert report.passed, report.to_text()


# ---- audits and releases ----


def test_an_audit_of_a_correct_step_raises_no_alarm(tmp_path: Path):
    assert Step(tmp_path, tmp_path).audit() == []


@SLOW
def test_an_audit_of_a_correct_run_raises_no_alarm(scenes: Path, tmp_path: Path):
    assert Training(tmp_path, scenes).audit() == []


FIVE_STEPS = FULL_BATCH.planned_events(5)
TOTAL_OF_FIVE = Spent(
    epsilon=FULL_BATCH.make_accountant().epsilon(FIVE_STEPS, delta=FULL_BATCH.delta),
    delta=FULL_BATCH.delta,
    runs=1,
    unprotected_runs=0,
    events=FIVE_STEPS,
)
RELEASES: dict[str, Given] = {
    "as it is": {},
    "by RDP": {"mechanism": FULL_BATCH.model_copy(update=RDP)},
    "ended early": {"executed_steps": 5, "events": FIVE_STEPS, "total": TOTAL_OF_FIVE},
    "went on after a crash, and ended early": {
        "executed_steps": 4,
        "resumes": 1,
        "events": FIVE_STEPS,
        "total": TOTAL_OF_FIVE,
    },
    "shuffled": {
        "mechanism": FULL_BATCH.model_copy(
            update={"expected_batch_size": 8, "sampling": "shuffle", "steps": 8}
        )
    },
}


@pytest.mark.parametrize("name", RELEASES)
def test_releases_raise_no_alarm(name: str, tmp_path: Path):
    run = Release(tmp_path, tmp_path)
    run.facts = dict(RELEASES[name])
    assert run.scan() == []
    assert run.verify() == []
