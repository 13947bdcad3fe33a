"""A release made without training: a model of random weights, and a record of steps."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from discreet.config import MechanismConfig
from discreet.ledger import Spent
from discreet.randomness import SecureSource
from discreet.statement.record import make_record
from discreet.statement.scan import PrivateWords
from discreet.statement.schema import (
    PretrainingData,
    PrivacyRecord,
    Training,
    ValidationData,
)
from discreet.statement.sealing import seal
from discreet.statement.signing import ReleaseKey, open_key
from discreet.yolo.release import releasable, write_weights
from tests.yolo.conftest import IMGSZ, make_model

Reseal = Callable[..., Path]
"""Seals a record anew: what a liar would do."""

# The full batch: the closed form accounts for it at once.
FULL_BATCH = MechanismConfig(
    population=32,
    expected_batch_size=32,
    steps=10,
    noise_multiplier=5.0,
    max_grad_norm=0.5,
    delta=1e-3,
)


def record_of(mechanism: MechanismConfig = FULL_BATCH, **changes: Any) -> PrivacyRecord:
    """A record of a run of all planned steps."""
    events = mechanism.planned_events()
    given: dict[str, Any] = {
        "mechanism": mechanism,
        "events": events,
        "total": Spent(
            epsilon=mechanism.planned().epsilon,
            delta=mechanism.delta,
            runs=1,
            unprotected_runs=0,
            events=events,
        ),
        "executed_steps": mechanism.steps,
        "resumes": 0,
        "source": SecureSource(),
        "reasons": (),
        "training": Training(
            trainable="head", trained_parameters=1000, norm="frozen", engine="discreet"
        ),
        "validation": ValidationData(access="private", metrics_are_released=False),
        "pretraining": PretrainingData(access="public", sha256="ab" * 32),
        "configuration": {"imgsz": IMGSZ, "optimizer": "AdamW", "freeze": [0, 1]},
        "metrics": None,
    }
    return make_record(**{**given, **changes})


@pytest.fixture(autouse=True)
def _key_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DISCREET_KEY", str(tmp_path / "configuration" / "key.pem"))


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> ReleaseKey:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISCREET_KEY", str(tmp_path_factory.mktemp("key") / "key.pem"))
        opened = open_key(True)
    assert opened is not None
    return opened


@pytest.fixture(scope="session")
def model() -> nn.Module:
    return releasable(make_model(norm="group"), args={"imgsz": IMGSZ, "task": "detect"})


@pytest.fixture(scope="session")
def record() -> PrivacyRecord:
    return record_of()


@pytest.fixture(scope="session")
def _original(
    tmp_path_factory: pytest.TempPathFactory,
    model: nn.Module,
    record: PrivacyRecord,
    key: ReleaseKey,
) -> Path:
    folder = tmp_path_factory.mktemp("original") / "release"
    folder.mkdir()
    write_weights(folder / "weights.pt", model, record=record)
    seal(folder, record=record, key=key, words=PrivateWords())
    return folder


@pytest.fixture
def release(_original: Path, tmp_path: Path) -> Path:
    """A signed release that a test may spoil."""
    return Path(shutil.copytree(_original, tmp_path / "release"))


@pytest.fixture
def resealed(release: Path, key: ReleaseKey) -> Callable[..., Path]:
    """Seal the release again around another record, as a dishonest publisher would."""

    def seal_again(record: PrivacyRecord, *, key: ReleaseKey | None = key) -> Path:
        seal(release, record=record, key=key, words=PrivateWords())
        return release

    return seal_again
