from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from discreet.accounting import PoissonSampledGaussian, default_delta, make_accountant
from discreet.cli import main
from discreet.data import load_dataset
from discreet.ledger import BudgetLedger

STEP = PoissonSampledGaussian(sample_rate=1.0, noise_multiplier=20.0, steps=1)
PLD = make_accountant("pld")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "cells"
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for number in range(4):
        Image.new("RGB", (32, 32), (number * 40, 10, 10)).save(folder / f"images/{number}.png")
        (folder / f"labels/{number}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (folder / "data.yaml").write_text(
        f"path: {folder}\ntrain: images\nval: images\nnames: [cell]\n"
    )
    return folder / "data.yaml"


@pytest.fixture
def where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "ledger.sqlite"
    monkeypatch.setenv("DISCREET_LEDGER", str(path))
    return path


@pytest.fixture
def charged(data: Path, where: Path) -> Path:
    """A data set with a run of which 3 of 10 steps are charged."""
    ledger = BudgetLedger.open(where)
    ledger.reserve(
        run_id="0123456789abcdef",
        name=str(data),
        digests=[image.digest for image in load_dataset(data, splits=("train",)).train],
        planned=[STEP.with_steps(10)],
        accountant=PLD,
        delta=1e-5,
        label="runs/private/train",
    ).charge(STEP.with_steps(3))
    ledger.close()
    return where


def told(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.err == ""
    assert [line for line in captured.out.splitlines() if len(line) > 80] == []
    return captured.out


def epsilon(steps: int, delta: float = 1e-5) -> float:  # the default of four images
    return PLD.epsilon([STEP.with_steps(steps)], delta=delta)


def test_list_and_show(charged: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ledger", "list"]) == 0
    assert "none" in told(capsys)
    assert main(["ledger", "show", f"data={data}"]) == 0
    page = told(capsys)
    assert "by 1 run " in page and "budget    none" in page and "private/train" in page
    assert main(["ledger", "show", f"data={data}", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["epsilon_spent"] == epsilon(3) and facts["epsilon_reserved"] == epsilon(10)
    assert facts["budget"] is None and facts["epsilon_left"] is None
    assert facts["on_record"][0]["steps_charged"] == 3
    assert main(["ledger", "list", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["datasets"]
    assert entry["epsilon_spent"] == epsilon(3) and entry["images"] == 4


def test_a_budget_is_set_shown_and_taken_away(
    charged: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ledger", "set-budget", f"data={data}", "epsilon=8", "delta=1e-5"]) == 0
    assert "budget ε = 8.00 at δ = 1e-05" in told(capsys)
    assert main(["ledger", "show", f"data={data}", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["epsilon_left"] == pytest.approx(8 - epsilon(10))
    assert main(["ledger", "show", f"dataset={facts['dataset'][:8]}"]) == 0
    assert "ε may still grow by" in told(capsys)
    cut = ["ledger", "set-budget", f"dataset={facts['dataset'][:4]}", f"epsilon={epsilon(5)!r}"]
    assert main(cut) == 0
    assert "run 0123456789abcdef may now go to step 5" in told(capsys)
    assert main(["ledger", "set-budget", f"data={data}", "epsilon=0.01"]) == 0
    assert "spent already" in told(capsys)
    assert main(["ledger", "set-budget", f"data={data}", "epsilon=none"]) == 0
    assert "no budget any more" in told(capsys)


def test_a_budget_may_come_before_the_first_run(
    where: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ledger", "set-budget", f"data={data}", "epsilon=2", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["budget"]["epsilon"] == 2 and facts["budget"]["delta"] == default_delta(4)
    assert facts["epsilon_spent"] == 0


def test_epsilon_is_told_at_the_delta_of_a_run_on_so_many_units(
    where: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = BudgetLedger.open(where)
    ledger.reserve(
        run_id="0123456789abcdef",
        name="blood",
        digests=[number.to_bytes(32, "big") for number in range(292)],
        planned=[STEP],
        accountant=PLD,
        delta=1e-3,
    ).charge(STEP)
    ledger.close()
    assert main(["ledger", "list", "--json"]) == 0
    (facts,) = json.loads(capsys.readouterr().out)["datasets"]
    assert (facts["delta"], facts["epsilon_spent"]) == (1e-3, epsilon(1, 1e-3))
    assert main(["ledger", "show", "dataset=blood", "delta=1e-6", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["epsilon_spent"] == epsilon(1, 1e-6)


def test_settle_frees_what_a_dead_run_holds(
    charged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ledger", "settle", "run=0123"]) == 0
    assert "3 steps charged, 7 given back" in told(capsys)
    assert main(["ledger", "settle", "run=ffff"]) == 2
    assert "no run of this id" in capsys.readouterr().err


def test_export_holds_all_but_the_key_and_the_images(
    charged: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = BudgetLedger.open(charged)
    images = [image.digest for image in load_dataset(data, splits=("train",)).train]
    secret = [ledger.database.key, *images, *(ledger.fingerprint(digest) for digest in images)]
    assert main(["ledger", "export", f"file={tmp_path / 'all.json'}"]) == 0
    assert main(["ledger", "export", f"file={tmp_path / 'all.csv'}"]) == 0
    for name in ("all.json", "all.csv"):
        text = (tmp_path / name).read_text()
        assert not [value for value in secret if value.hex() in text]
    whole = json.loads((tmp_path / "all.json").read_text())
    assert whole["runs"][0]["charged"] == [STEP.with_steps(3).to_json()]
    (row,) = csv.DictReader((tmp_path / "all.csv").read_text().splitlines())
    assert (row["steps_charged"], row["name"]) == ("3", str(data))
    capsys.readouterr()
    assert main(["ledger", "export", "file=all.txt"]) == 2
    assert "neither JSON nor CSV" in capsys.readouterr().err
    ledger.close()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "an action comes after ledger"),
        (["shwo"], "did you mean show?"),
        (["show"], "no data set is named"),
        (["show", "data=a", "dataset=b"], "both are given"),
        (["list", "epsilon=8"], "no argument of ledger list"),
        (["set-budget", "dataset=blood"], "epsilon: missing"),
        (["set-budget", "dataset=blood", "epsilon=-1"], "expected a number >= 0\n  Give epsilon=8"),
        (["set-budget", "dataset=blood", "epsilon=inf"], "expected a number >= 0"),
        (["set-budget", "dataset=blood", "epsilon=1", "delta=1"], "strictly between 0 and 1"),
        (["export"], "file: missing"),
        (["settle"], "run: missing"),
        (["show", "dataset=blood"], "there is no ledger"),
        (["list"], "there is no ledger"),
        (["list", "ledger=mysql://u:hidden@h/d"], "cannot lie at mysql://"),
        (["list", "extra"], "extra: has no value"),
    ],
)
def test_mistakes_have_status_2_and_write_nothing(
    where: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["ledger", *words]) == 2
    err = capsys.readouterr().err
    assert message in err and "hidden" not in err
    assert not where.exists()


def test_unknown_data_sets(charged: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ledger", "show", "dataset=ffffffff"]) == 2
    assert "no data set of this id" in capsys.readouterr().err
    Image.new("RGB", (32, 32), (1, 2, 3)).save(data.parent / "images/0.png")
    assert main(["ledger", "show", f"data={data}"]) == 2
    assert "exactly these images" in capsys.readouterr().err


def test_groups_are_counted_as_units(
    where: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    groups = data.with_name("groups.csv")
    rows = [f"train,{number}.png,{number // 2}" for number in range(4)]
    groups.write_text("\n".join(["split,image,group", *rows]))
    named = [f"data={data}", f"groups={groups}"]
    assert main(["ledger", "set-budget", *named, "epsilon=2", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["images"], facts["units"]) == (4, 2)
    assert facts["budget"]["delta"] == default_delta(2)  # below 1 of two units, not of four images
    assert main(["ledger", "show", *named]) == 0
    assert "2 units (4 images)" in told(capsys)
    assert main(["ledger", "list"]) == 0
    header, row = told(capsys).splitlines()
    assert header.split()[1] == "units" and row.split()[1] == "2"
