from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from discreet.comparing import Comparison, Contestant, Measured
from discreet.comparing.plot import write_plot


def measured(contestant: Contestant, map50: float) -> Measured:
    private = contestant.kind == "private"
    return Measured(
        kind=contestant.kind, name=contestant.name, map50=map50, map50_95=map50 / 2,
        seconds_per_epoch=1.25, epochs=20, peak_mib=1000.4,
        epsilon=contestant.epsilon if private else None, delta=1e-5 if private else None,
    )  # fmt: skip


@pytest.fixture
def comparison() -> Comparison:
    rows = (
        measured(Contestant(kind="stock"), 0.8),
        measured(Contestant(kind="twin"), 0.7),
        measured(Contestant(kind="private", epsilon=8.0), 0.6),
    )
    return Comparison(population=1000, rows=rows)


def test_what_has_no_guarantee_has_no_finite_epsilon(comparison: Comparison):
    stock, twin, private = comparison.to_text().splitlines()[1:4]
    assert "∞" in stock and "∞" in twin and "8.00" in private and "1e-05" in private
    assert "private, ε = 8: 75 % of stock's mAP50" in comparison.to_text()
    assert max(map(len, comparison.to_text().splitlines())) <= 80


@pytest.mark.parametrize(
    ("epsilon", "said"), [(8.0, "8"), (8, "8"), (0.5, "0.5"), (8.0000001, "8.0000001")]
)
def test_no_two_epsilons_have_one_name(epsilon: float, said: str):
    assert Contestant(kind="private", epsilon=epsilon).name == f"private, ε = {said}"


def test_all_forms_hold_the_same(comparison: Comparison):
    assert Comparison.from_json(json.loads(json.dumps(comparison.to_json()))) == comparison
    rows = list(csv.DictReader(io.StringIO(comparison.to_csv())))
    assert [float(row["map50"]) for row in rows] == [0.8, 0.7, 0.6]
    assert rows[0]["epsilon"] == ""
    lines = comparison.to_markdown().splitlines()
    assert {line.count("|") for line in lines[:5]} == {9}


def test_few_images_are_told_to_be_few(comparison: Comparison):
    assert "can hardly teach" not in comparison.to_text()
    few = Comparison(population=4, rows=comparison.rows)
    assert "4 images can hardly teach" in few.to_text()
    loud = measured(Contestant(kind="private", epsilon=1000.0), 0.6)
    assert "can hardly teach" not in Comparison(population=4, rows=(loud,)).to_text()


@pytest.mark.parametrize("stock", [0.0, 0.016, 0.6])
def test_no_share_is_told_of_stock_training_that_learned_no_more(
    comparison: Comparison, stock: float
):
    rows = (measured(Contestant(kind="stock"), stock), *comparison.rows[1:])
    text = " ".join(Comparison(population=4, rows=rows).to_text().split())
    assert "%" not in text
    assert "private, ε = 8: not below stock, whose training of 20 epochs says nothing" in text


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_a_plot_of_what_there_is_so_far(comparison: Comparison, tmp_path: Path, rows: int):
    part = Comparison(population=1000, rows=comparison.rows[:rows])
    write_plot(part, tmp_path / "comparison.svg")
    assert "<svg" in (tmp_path / "comparison.svg").read_text()
