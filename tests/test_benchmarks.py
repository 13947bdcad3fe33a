"""The measurement of utility never tells the results of other settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks import utility


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Settings and ε of what would be trained, in order."""
    made: list[Any] = []

    def measure(data: Path, weights: Path, **asked: Any) -> dict[str, Any]:
        made.append((asked["settings"], asked["epsilon"]))
        scores = {"val": {"map50": 0.5, "map50_95": 0.3}}
        return {"seconds": 1.0, "spent": None, "delta": 1e-3, "scores": scores}

    monkeypatch.setattr(utility, "measure", measure)
    return made


def run(tmp_path: Path, *words: str, weights: str = "m.pt") -> int:
    fixed = ["--data", str(tmp_path), "--results", str(tmp_path / "utility.json")]
    few = ["--sets", "bccd", "--epsilons", "8", "--repeats", "1"]
    return utility.main([*fixed, "--weights", weights, *few, *words])


def test_other_settings_need_another_label(
    tmp_path: Path, measured: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    first = ("--stock", "--set", "steps=1", "batch=4")
    assert run(tmp_path, *first) == 0
    with pytest.raises(SystemExit, match="2"):
        run(tmp_path, "--set", "recipe=plain")
    said = " ".join(capsys.readouterr().err.split())
    assert "results of model=m.pt steps=1 batch=4 go by the label 'auto' already" in said
    with pytest.raises(SystemExit, match="2"):
        run(tmp_path, *first, "--label", "other", weights="n.pt")  # of stock training
    assert "the label 'stock'" in capsys.readouterr().err
    assert len(measured) == 2
    assert run(tmp_path, "--set", "recipe=plain", "--label", "plain") == 0
    assert measured[2] == ({"recipe": "plain"}, 8.0)
    assert run(tmp_path, *first) == 0
    assert len(measured) == 3


def test_results_without_settings_go_by_their_label(tmp_path: Path, measured: list[Any]) -> None:
    assert run(tmp_path) == 0
    file = tmp_path / "utility.json"
    results = json.loads(file.read_text())
    assert results[0].pop("given") == {"model": "m.pt"}
    file.write_text(json.dumps(results))
    assert run(tmp_path, "--set", "steps=1") == 0
    assert len(measured) == 1
