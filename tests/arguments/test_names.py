"""A wrong name or word is answered with one that works; all problems come at once."""

from __future__ import annotations

import pytest

from discreet.arguments import (
    split_arguments,
)
from discreet.errors import ConfigurationError, UnsafeArgumentError


def test_a_wrong_word_is_answered_with_one_that_works() -> None:
    for words, do in (
        ({"ema": 1}, "Give ema=0.9, for example."),
        ({"ema": 0}, "Give ema=0.9, for example."),
        ({"delta": 2}, "Give delta=1e-5, for example."),
        ({"optimizer": "MuSGD"}, "Give optimizer=auto, for example."),
    ):
        with pytest.raises(ConfigurationError, match=f"(?s).*{do}"):
            split_arguments({"epsilon": 8, **words})


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("epsilo", "epsilon"),
        ("Epsilon", "epsilon"),
        ("eps", "epsilon"),
        ("sigma", "noise_multiplier"),
        ("batch_size", "batch"),
        ("batch-size", "batch"),
        ("learning_rate", "lr0"),
        ("imgsize", "imgsz"),
        ("img_size", "imgsz"),
        ("max_grad_nrom", "max_grad_norm"),
        ("epoch", "epochs"),
        ("fliprl", "fliplr"),
        ("modle", "model"),
        ("dat", "data"),
        ("mosiac", "mosaic"),
        ("mixpu", "mixup"),
        ("wieght_decay", "weight_decay"),
    ],
)
def test_unknown_arguments_are_guessed(name: str, meant: str) -> None:
    with pytest.raises(ConfigurationError, match=f"unknown argument; did you mean {meant}\\?"):
        split_arguments({"epsilon": 8, name: 1})


def test_unguessable_arguments_point_to_help() -> None:
    with pytest.raises(ConfigurationError, match=r"zzzz=1: unknown argument\n.*train --help"):
        split_arguments({"epsilon": 8, "zzzz": 1})


def test_all_problems_are_in_one_error() -> None:
    wrong = {"mosaic": 1.0, "lr0": "abc", "imgz": 3, "batch": -1, "save_txt": True}
    with pytest.raises(UnsafeArgumentError) as caught:
        split_arguments(wrong, required=("data", "model"))
    first, *lines = str(caught.value).splitlines()
    assert first == "8 arguments cannot be used:"
    starts = [*wrong, "data", "model", "epsilon"]
    assert sorted(line.strip().split("=")[0].split(":")[0] for line in lines) == sorted(starts)
