from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from discreet import demo
from discreet.errors import ModelError


def test_the_shipped_model_is_small_and_names_no_place() -> None:
    path = demo.demo_model_path()
    assert path.stat().st_size <= 4_000_000
    with zipfile.ZipFile(path) as archive:
        pickled = next(archive.read(name) for name in archive.namelist() if "data.pkl" in name)
    for trace in (b"/tmp", b"/home", b"/root", b"/work", b"\\Users", b"seed", b"project"):
        assert trace not in pickled


def test_a_missing_model_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(demo.resources, "files", lambda _: tmp_path)
    with pytest.raises(ModelError, match="missing"):
        demo.demo_model_path()


def test_the_demo_does_not_import_ultralytics() -> None:
    program = (
        "import sys, discreet.demo, discreet.demo.dataset; sys.exit('ultralytics' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
