from __future__ import annotations

from pathlib import Path

import pytest

from discreet.arguments import ULTRALYTICS, Kind, read_plan_arguments, split_arguments
from discreet.arguments.plan import is_flag, names
from discreet.errors import ConfigurationError

GOOD = {"n": "1000", "epsilon": "8"}


def refusal(**given: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read_plan_arguments(given)
    return str(caught.value)


def test_text_and_values_are_read_alike():
    typed = read_plan_arguments({"n": "1000", "epsilon": "8", "delta": "1e-5", "time": "false"})
    assert typed == read_plan_arguments({"n": 1000, "epsilon": 8.0, "delta": 1e-5, "time": False})
    assert (typed.n, typed.data, typed.privacy.epsilon, typed.time) == (1000, None, 8.0, False)
    assert typed.privacy.epochs is None and typed.plot is None and typed.imgsz is None


def test_none_is_not_given():
    asked = read_plan_arguments({**GOOD, "data": None, "noise_multiplier": None, "batch": None})
    assert asked.n == 1000


def test_all_problems_are_told_together(tmp_path: Path):
    text = refusal(
        epsilom=8, mosaic=1, lr0=-1, imgsz=3, delta=2, epochs=2, steps=3, n=3, data="d.yaml",
        plot="plan.pdf", qqq=1,
    )  # fmt: skip
    for words in (
        "epsilom=8: unknown argument; did you mean epsilon?",
        "mosaic=1: refused",
        "lr0=-1: expected a number",
        "imgsz=3: expected a whole number of pixels",
        "delta=2: expected a number strictly between 0 and 1",
        "epochs, steps: both are given",
        "data, n: both are given",
        "epsilon: missing",
        "plot=plan.pdf: expected a file that ends in .svg or .png. Write plot=plan.svg.",
        "qqq=1: unknown argument. `discreet plan --help` lists all arguments.",
    ):
        assert words in text


def test_neither_data_nor_n():
    assert "data: missing: a plan needs the number of training images" in refusal(epsilon=8)


@pytest.mark.parametrize("n", [0, -1, 1.5, "many"])
def test_wrong_numbers_of_images(n: object):
    assert "expected a whole number >= 1" in refusal(n=n, epsilon=8)


@pytest.mark.parametrize(
    ("given", "where"),
    [({"epochs": 3}, "epochs, hours: both are given"),
     ({"steps": 3, "batch": 5}, "hours=2: batch and steps together")],
)  # fmt: skip
def test_hours_choose_what_is_open(given: dict[str, object], where: str):
    assert where in refusal(n=10, epsilon=8, hours=2, **given)
    assert "hours=0: expected" in refusal(n=10, epsilon=8, hours=0)
    assert read_plan_arguments({"n": 10, "epsilon": 8, "hours": 2, "steps": 3}).privacy.hours == 2


def test_a_batch_above_n_is_refused():
    assert "more than the 10 training images" in refusal(n=10, epsilon=8, batch=11)
    assert read_plan_arguments({"n": 10, "epsilon": 8, "batch": 10}).privacy.batch == 10


@pytest.mark.parametrize("value", [True, "True", "true"])
def test_the_bare_word_plot_names_a_file(value: object):
    assert read_plan_arguments({**GOOD, "plot": value}).plot == Path("plan.svg")


@pytest.mark.parametrize("value", [False, "False", "none", None])
def test_no_plot(value: object):
    assert read_plan_arguments({**GOOD, "plot": value}).plot is None


def test_a_plot_that_cannot_be_written_is_told_at_once(tmp_path: Path):
    assert "its folder is not there" in refusal(**GOOD, plot=tmp_path / "gone" / "a.svg")
    (tmp_path / "folder.svg").mkdir()
    assert "is a folder" in refusal(**GOOD, plot=tmp_path / "folder.svg")


def test_a_line_that_trains_is_a_line_that_plans():
    words = {
        "public_data": "public.yaml", "mosaic": "1", "mixup": "0.5", "views": "2", "lr0": "0.1",
        "first_trainable": "classes", "ema": "0.9", "project": "runs", "sign": "false",
    }  # fmt: skip
    asked = read_plan_arguments({**GOOD, **words})
    assert asked.privacy.views == 2 and asked.privacy.first_trainable == "classes"
    assert asked.settings == {"mosaic": 1.0, "mixup": 0.5, "lr0": 0.1, "project": "runs"}
    assert "refused" in refusal(**GOOD, mosaic=1)
    assert "nothing asks for these images" in refusal(**GOOD, public_data="public.yaml")
    assert "`discreet distill` tells its plan" in refusal(**GOOD, teacher="release")


def test_every_other_argument_is_taken_as_training_takes_it():
    for name, entry in ULTRALYTICS.items():
        if name in names() or entry.kind is Kind.PRIVACY:
            continue
        for value in (1, "x") if entry.default is None else (entry.default, 1):
            given = {"epsilon": 8, name: value}
            try:
                split_arguments(given)
            except ConfigurationError as error:
                assert str(error) == refusal(**GOOD, **{name: value})
            else:
                read_plan_arguments({**GOOD, **given})


def test_flags():
    assert [name for name in names() if is_flag(name)] == ["time", "plot"]
