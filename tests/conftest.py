"""Fixtures for all tests: real data sets and pretrained weights, where this machine has them."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from pathlib import Path

import pytest

# Before anything imports Ultralytics: no test may touch the network or install a package.
os.environ.setdefault("YOLO_OFFLINE", "true")
os.environ.setdefault("YOLO_AUTOINSTALL", "false")
# One thread a worker: threads that spin for each other's cores are many times slower.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _own_ledger(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test charges the ledger of whoever runs the tests, signs with their key, or shares."""
    folder = tmp_path_factory.mktemp("ledger")
    monkeypatch.setenv("DISCREET_LEDGER", str(folder / "l.sqlite"))
    monkeypatch.setenv("DISCREET_KEY", str(folder / "key.pem"))


@pytest.fixture(autouse=True, scope="session")
def _session_ledger(tmp_path_factory: pytest.TempPathFactory) -> Generator[None]:
    """The same for fixtures that outlive a test."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("ledger")
        patch.setenv("DISCREET_LEDGER", str(folder / "l.sqlite"))
        patch.setenv("DISCREET_KEY", str(folder / "key.pem"))
        yield


@pytest.fixture(autouse=True, scope="session")
def capabilities() -> Generator[Mapping[str, object]]:
    """What this CPU has; runs compute alike on every machine all the same, unless told."""
    import torch

    found = getattr(torch.cpu, "get_capabilities", dict)()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
        yield found


SHARED_VARIABLE = "DISCREET_SHARED"


def _shared(part: str) -> Path:
    beside_repository = Path(__file__).parents[2] / "shared"
    path = Path(os.environ.get(SHARED_VARIABLE) or beside_repository) / part
    if not path.exists():
        pytest.skip(f"needs {part}: not at {path}; set {SHARED_VARIABLE} to the folder above it")
    return path


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real data sets (bccd, coco8, fod_a, txl_pbc); skips where it is absent."""
    return _shared("data")


@pytest.fixture(scope="session")
def yolov8n_weights() -> Path:
    """Pretrained YOLOv8n weights; skips where they are absent."""
    return _shared("weights/yolov8n.pt")


@pytest.fixture
def unchecked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs begin without the check of their step, which takes longer than a small run itself.

    For modules about something else, but for those of their tests that are marked as checked.
    That a run checks its step is tested in `tests/checking`.
    """
    from discreet.yolo.train import PrivateDetectionTrainer

    if request.node.get_closest_marker("checked") is None:
        monkeypatch.setattr(PrivateDetectionTrainer, "_check_step", lambda _: None)
