from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from discreet.cli import main
from discreet.ledger import BudgetLedger
from tests.yolo.conftest import ARCHITECTURE, scenes  # noqa: F401  (a fixture)

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["epsilons=8,none"], "expected one or more numbers > 0"),
        (["epsilons=0"], "expected one or more numbers > 0"),
        (["stock_epochs=0"], "expected a whole number >= 1"),
        (["epsilon=8"], "write epsilons=8,2,1"),
        (["mosaic=1"], "one image"),
        (["resume=nowhere"], "no comparison to resume"),
        (["steps=3", "trainable=classes", "first_trainable=classes"], "nothing is added after it"),
        (["trainable=class_film+classes", "first_trainable=whole_head"], "not all of whole_head"),
        (["first_trainable=classes", "first_steps=100000"], "leaves none"),
        (["trainable=classes", "freeze=100"], "nothing is left to train"),
        (["batch=1000"], "expected batch size 1000"),
        (["epsilons=8,1e-9"], "no noise"),
        (["optimizer=MuSGD"], "optimizer=MuSGD"),
    ],
)
def test_mistakes(
    words: list[str],
    message: str,
    scenes: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["compare", f"data={scenes}", f"model={ARCHITECTURE}", *words]) == 2
    assert message in capsys.readouterr().err
    # Nothing was trained, and the ledger knows of nothing.
    assert not BudgetLedger.open(os.environ["DISCREET_LEDGER"]).runs()


def test_a_budget_refuses_the_first_contestant_and_nothing_is_left(
    scenes: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["ledger", "set-budget", f"data={scenes}", "epsilon=8"]) == 0
    words = [f"data={scenes}", f"model={ARCHITECTURE}", "imgsz=64", f"project={tmp_path}"]
    assert main(["compare", *words]) == 2
    said = capsys.readouterr().err
    assert "would cross the budget" in said and "Nothing was recorded." in said
    assert "compare on public images" in said and "Give it noise" not in said
    assert not list(tmp_path.iterdir())
    assert not BudgetLedger.open(os.environ["DISCREET_LEDGER"]).runs()


@pytest.mark.slow
def test_contestants_side_by_side(
    scenes: Path,  # noqa: F811
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],  # what the contestants' own processes print, too
) -> None:
    before = {path: path.read_bytes() for path in scenes.parent.rglob("*") if path.is_file()}
    project = tmp_path / "runs"
    words = [
        "compare", f"data={scenes}", f"model={ARCHITECTURE}", "imgsz=64", "epsilons=8",
        "stock_epochs=1", "steps=2", "batch=4", "workers=0", f"project={project}", "--json",
    ]  # fmt: skip
    assert main(words) == 0
    captured = capfd.readouterr()
    told = json.loads(captured.out)
    assert "this training spent" in captured.err
    assert "release:" not in captured.err  # it is gone by the time that anyone could look
    assert [row["kind"] for row in told["rows"]] == ["stock", "twin", "private"]
    assert [row["epsilon"] is None for row in told["rows"]] == [True, True, False]
    assert all(row["seconds_per_epoch"] > 0 and row["peak_mib"] > 100 for row in told["rows"])
    folder = Path(told["folder"])
    assert {path.name for path in folder.iterdir()} == {
        "NOT-PRIVATE.txt", "comparison.csv", "comparison.json", "comparison.md", "comparison.svg",
    }  # fmt: skip
    assert not list(folder.rglob("*.pt"))  # no model that anyone could publish by mistake
    after = {path: path.read_bytes() for path in scenes.parent.rglob("*") if path.is_file()}
    assert after == before
    # What trained without privacy is on record as such.
    runs = BudgetLedger.open(os.environ["DISCREET_LEDGER"]).runs()
    assert [run.private for run in runs] == [False, False, True]
    # Nothing is trained again of what is on disk.
    assert main([*words, f"resume={folder}"]) == 0
    assert json.loads(capfd.readouterr().out)["rows"] == told["rows"]
    assert len(BudgetLedger.open(os.environ["DISCREET_LEDGER"]).runs()) == 3


@pytest.mark.slow
def test_sigterm_ends_a_contestant_which_then_goes_on(
    scenes: Path,  # noqa: F811
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    words = [
        "compare", f"data={scenes}", f"model={ARCHITECTURE}", "imgsz=64", "epsilons=8",
        "stock_epochs=1", "steps=40", "batch=4", "workers=0", f"project={tmp_path}", "--json",
    ]  # fmt: skip
    folder = tmp_path / "compare"
    internal = folder / "twin" / "run" / "internal"
    journal = internal / "steps.csv"
    with subprocess.Popen([sys.executable, "-m", "discreet", *words]) as process:
        while not journal.exists() or journal.read_text().count("\n") < 3:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 130
    assert f"resume={folder} and the same words" in capfd.readouterr().out
    assert journal.read_text().count("\n") < 41
    assert (internal / "checkpoint.pt").exists()
    assert not (folder / "stock").exists()
    assert main([*words, f"resume={folder}"]) == 0
    rows = json.loads(capfd.readouterr().out)["rows"]
    assert [row["epochs"] for row in rows] == [1, *[pytest.approx(40 * 4 / 24)] * 2]
    assert not [path for path in folder.iterdir() if path.is_dir()]
    # Every step was paid once.
    runs = BudgetLedger.open(os.environ["DISCREET_LEDGER"]).runs()
    assert [run.position for run in runs] == [1, 40, 40]
