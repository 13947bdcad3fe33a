"""Stock training is one contestant among others: same start, same validation, charged once."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from discreet.comparing import Contestant
from discreet.data import load_dataset
from discreet.data.records import KeyPoints
from discreet.ledger import BudgetLedger
from discreet.terminal import SilentReporter
from discreet.yolo import contestants, inputs, stock
from discreet.yolo._compat import load_weights

from .conftest import ARCHITECTURE, Run
from .test_recipe_runs import WEIGHTS


def stock_job(scenes: Path, tmp_path: Path, **more: Any) -> contestants.Job:
    given = {"data": str(scenes), "model": WEIGHTS, "ledger": f"{tmp_path}/l.sqlite", **more}
    return contestants.Job(
        contestant=Contestant(kind="stock"), arguments=given, stock_epochs=1, run_id="0" * 32,
        folder=tmp_path / "stock",
    )  # fmt: skip


@pytest.mark.parametrize(
    "how", [{"classes": [0, 2], "imgsz": 50}, {"single_cls": True, "max_det": 3, "iou": 0.4}]
)
def test_stock_is_validated_as_private_runs_are(
    scenes: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any]
) -> None:
    how = {"imgsz": 64, **how}
    private = run(model=WEIGHTS, val=True, val_data="public", steps=1, **how)
    done = stock.StockRun(weights=private.release / "weights.pt", seconds=1.0)
    monkeypatch.setattr(stock, "train_stock", lambda *_args, **_kwargs: done)
    row = contestants._measure_stock(stock_job(scenes, tmp_path, **how))
    assert private.metrics is not None and row.map50 > 0.01
    assert (row.map50, row.map50_95) == (private.metrics["map50"], private.metrics["map50_95"])


def test_stock_starts_where_private_runs_do(scenes: Path, tmp_path: Path) -> None:
    still = {"optimizer": "SGD", "lr0": 0.0, "warmup_epochs": 0, "imgsz": 64, "workers": 0}
    done = stock.train_stock(
        load_dataset(scenes), model=ARCHITECTURE, weights=WEIGHTS, epochs=1, folder=tmp_path,
        settings=still,
    )  # fmt: skip
    trained, start = (load_weights(Path(w)).model[0].conv.weight for w in (done.weights, WEIGHTS))
    assert torch.allclose(trained, start, atol=1e-3)


def test_what_an_architecture_starts_from_is_told_to_stock_training(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = dict[str, Any]()

    def train(_: Any, **given: Any) -> stock.StockRun:
        asked.update(given)
        return stock.StockRun(weights=Path(WEIGHTS), seconds=1.0)

    monkeypatch.setattr(stock, "train_stock", train)
    contestants._measure_stock(
        stock_job(scenes, tmp_path, model=ARCHITECTURE, pretrained=WEIGHTS, imgsz=64)
    )
    assert (asked["model"], asked["weights"]) == (ARCHITECTURE, WEIGHTS)


def test_stock_training_that_begins_again_is_charged_once(scenes: Path, tmp_path: Path) -> None:
    given = {**stock_job(scenes, tmp_path).arguments, "epsilon": 1.0}
    read = inputs.read_inputs(given, reporter=SilentReporter())
    for _ in range(2):
        contestants._charge_without_privacy(read, run_id="0" * 32)
    (seen,) = BudgetLedger.open(given["ledger"]).runs()
    assert not seen.private and seen.position == 1


def test_key_points_are_told_to_stock_training(scenes: Path, tmp_path: Path) -> None:
    points = KeyPoints(count=3, columns=2, mirrored=(0, 2, 1))
    data = stock._link(dataclasses.replace(load_dataset(scenes), keypoints=points), tmp_path)
    told = json.loads(data.read_text())
    assert (told["kpt_shape"], told["flip_idx"]) == ([3, 2], [0, 2, 1])
