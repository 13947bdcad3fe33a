"""Privacy arguments: their defaults, and which of them contradict one another."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from discreet.arguments import (
    PrivacyArguments,
    known_names,
    split_arguments,
)
from discreet.errors import ConfigurationError


def test_defaults_are_those_of_the_documentation() -> None:
    arguments = PrivacyArguments(epsilon=8)
    assert arguments.model_dump() == {
        "epsilon": 8.0,
        "noise_multiplier": None,
        "delta": None,
        "max_grad_norm": 1.0,
        "recipe": "auto",
        "clipping": None,
        "batch": None,
        "micro_batch": None,
        "feature_cache": None,
        "epochs": None,
        "steps": None,
        "hours": None,
        "norm": None,
        "trainable": None,
        "zoom": None,
        "norm_lr": None,
        "ema": None,
        "balance": None,
        "standardise": None,
        "views": None,
        "first_trainable": None,
        "first_steps": None,
        "public_data": None,
        "teacher": None,
        "teacher_data": None,
        "teacher_gain": None,
        "groups": None,
        "group_regex": None,
        "max_images_per_unit": None,
        "sampling": "poisson",
        "largest_batch": None,
        "noise_schedule": "constant",
        "final_noise": None,
        "relation": "add_or_remove_one",
        "ledger": None,
        "sign": True,
        "accountant": "pld",
        "val_data": "private",
        "track": None,
        "engine": "discreet",
        "team_timeout": 600.0,
        "insecure_seed": None,
    }
    assert arguments.is_private


def test_text_from_a_command_line_is_read() -> None:
    arguments = PrivacyArguments(
        noise_multiplier="1.2", delta="1e-5", batch="1e3", steps="100", norm="None"
    )
    assert (arguments.noise_multiplier, arguments.delta) == (1.2, 1e-5)
    assert (arguments.batch, arguments.steps, arguments.norm) == (1000, 100, None)


def test_steps_replace_epochs() -> None:
    assert PrivacyArguments(epsilon=1, steps=5).epochs is None
    assert PrivacyArguments(epsilon=1, epochs=5).epochs == 5


def test_arguments_are_immutable() -> None:
    with pytest.raises(ValidationError):
        PrivacyArguments(epsilon=8).epsilon = 9.0


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"epsilon": 8, "noise_multiplier": 1}, ["epsilon", "noise_multiplier"]),
        ({}, ["epsilon", "noise_multiplier"]),
        ({"epsilon": None}, ["epsilon"]),
        ({"epsilon": "none"}, ["epsilon"]),
        ({"epsilon": 8, "epochs": 3, "steps": 4}, ["epochs", "steps"]),
        ({"epsilon": 0}, ["epsilon=0", "a number > 0"]),
        ({"epsilon": math.inf}, ["epsilon=inf"]),
        ({"epsilon": "nan"}, ["epsilon=nan"]),
        ({"epsilon": True}, ["epsilon=True"]),
        ({"noise_multiplier": -1}, ["noise_multiplier=-1"]),
        ({"epsilon": 8, "delta": 0}, ["delta=0"]),
        ({"epsilon": 8, "delta": 1}, ["delta=1"]),
        ({"epsilon": 8, "max_grad_norm": 0}, ["max_grad_norm=0"]),
        ({"epsilon": 8, "max_grad_norm": math.inf}, ["max_grad_norm=inf"]),
        ({"epsilon": 8, "batch": -1}, ["batch=-1", "a whole number >= 1"]),
        ({"epsilon": 8, "batch": 0.5}, ["batch=0.5"]),
        ({"epsilon": 8, "micro_batch": 0}, ["micro_batch=0"]),
        ({"epsilon": 8, "steps": 1.5}, ["steps=1.5"]),
        ({"epsilon": 8, "clipping": "ghost"}, ["clipping=ghost", "expected flat or automatic"]),
        ({"epsilon": 8, "norm": "batch"}, ["norm=batch", "frozen or group"]),
        ({"epsilon": 8, "accountant": "gdp"}, ["accountant=gdp", "pld or rdp"]),
        ({"epsilon": 8, "val_data": True}, ["val_data=True"]),
        ({"epsilon": 8, "engine": "fast"}, ["engine=fast"]),
        ({"epsilon": 8, "insecure_seed": -1}, ["insecure_seed=-1"]),
        ({"epsilon": 8, "trainable": "film+hea"}, ["trainable=film+hea", "whole_head"]),
        ({"epsilon": 8, "trainable": "all+head"}, ["trainable=all+head"]),
        ({"epsilon": 8, "trainable": "head+head"}, ["trainable=head+head"]),
        ({"epsilon": 8, "trainable": ""}, ["trainable="]),
        ({"epsilon": 8, "epsilom": 8}, ["epsilom=8", "did you mean epsilon"]),
    ],
)
def test_bad_privacy_arguments_are_named(given: dict[str, object], named: list[str]) -> None:
    for construct in (PrivacyArguments, lambda **values: split_arguments(values)):
        with pytest.raises(ConfigurationError) as caught:
            construct(**given)
        assert not [text for text in named if text not in str(caught.value)]


@pytest.mark.parametrize("trainable", ["all", "head", "film", "film+head", "whole_head+film"])
def test_known_trainable_parts(trainable: str) -> None:
    assert PrivacyArguments(epsilon=8, trainable=trainable).trainable == trainable


def test_a_run_without_noise_is_allowed_and_not_private() -> None:
    arguments = PrivacyArguments(noise_multiplier=0, max_grad_norm=1e9)
    assert not arguments.is_private
    assert not PrivacyArguments(epsilon=8, insecure_seed=0).is_private


def test_names_are_listed_once() -> None:
    assert len(known_names()) == len(set(known_names()))
    assert known_names()[0] == "epsilon"


@pytest.mark.parametrize(
    ("wrong", "do"),
    [
        ({"epsilon": "-1"}, "Give epsilon=8, for example."),
        ({"epsilon": "abc"}, "Give epsilon=8, for example."),
        ({"epsilon": 8, "batch": "many"}, "Give batch=100, for example."),
        ({"epsilon": 8, "views": "0"}, "Give views=2, for example."),
        ({"epsilon": 8, "lr0": "-1"}, "Give lr0=0.01, for example."),  # the default
    ],
)
def test_a_wrong_number_is_told_with_one_that_fits(wrong: dict[str, object], do: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        split_arguments(wrong)
    assert caught.value.do == do
