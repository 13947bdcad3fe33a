from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def default_yaml() -> Path:
    """Ultralytics' own configuration."""
    spec = importlib.util.find_spec("ultralytics")  # finds the file without importing it
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "cfg" / "default.yaml"
