"""Every argument of Ultralytics' is judged: accepted, refused with a reason, or without effect."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from discreet.arguments import (
    ULTRALYTICS,
    Argument,
    Kind,
    neutral_values,
    split_arguments,
)
from discreet.arguments.refused import OUTSIDE_CONFIGURATION
from discreet.errors import ConfigurationError, UnsafeArgumentError


def of_kind(kind: Kind) -> dict[str, Argument]:
    return {name: entry for name, entry in ULTRALYTICS.items() if entry.kind is kind}


def unsafe_value(name: str) -> object:
    """A value of a refused argument that voids the guarantee."""
    special: dict[str, object] = {
        "rect": True,
        "plots": True,
        "amp": True,
        "cache": "disk",
        "split": "train",
        "patience": 50,
        "quantize": 8,
        "fraction": 0.5,
        "distill_model": "teacher.pt",
    }
    return special.get(name, 0.5)


def test_every_ultralytics_argument_is_judged(default_yaml: Path) -> None:
    defaults = yaml.safe_load(default_yaml.read_text())
    assert set(ULTRALYTICS) == set(defaults) | set(OUTSIDE_CONFIGURATION)
    recorded = {name: ULTRALYTICS[name].default for name in defaults}
    assert recorded == defaults


def test_what_ties_images_together_is_off_by_default() -> None:
    _, overrides = split_arguments({"epsilon": 8})
    off: dict[str, object] = {
        "mosaic": 0.0,
        "mixup": 0.0,
        "cutmix": 0.0,
        "copy_paste": 0.0,
        "close_mosaic": 0,
        "rect": False,
        "cls_pw": 0.0,
        "patience": 0,
        "time": None,
        "fraction": 1.0,
        "multi_scale": 0.0,
        "plots": False,
        "amp": False,
        "cache": False,
        "quantize": None,
        "distill_model": None,
        "split": "val",
        "compile": False,
    }
    assert {name: overrides.get(name, "absent") for name in off} == off
    assert overrides == neutral_values()


def test_ultralytics_accepts_what_we_hand_over(default_yaml: Path) -> None:
    from ultralytics.cfg import get_cfg

    chosen = {name: entry.default for name, entry in of_kind(Kind.ACCEPTED).items()}
    _, overrides = split_arguments({"epsilon": 8, **{k: v for k, v in chosen.items() if v}})
    settings = vars(get_cfg(str(default_yaml), overrides))
    assert {name: settings[name] for name in overrides} == overrides


@pytest.mark.parametrize(
    "name", [k for k, entry in of_kind(Kind.ACCEPTED).items() if entry.default is not None]
)
def test_accepted_arguments_take_ultralytics_default_value(name: str) -> None:
    default = ULTRALYTICS[name].default
    for spelling in (default, str(default)):
        _, overrides = split_arguments({"epsilon": 8, name: spelling})
        assert (type(overrides[name]), overrides[name]) == (type(default), default)


@pytest.mark.parametrize("name", of_kind(Kind.REFUSED))
def test_refused_arguments_say_why_and_what_instead(name: str) -> None:
    with pytest.raises(UnsafeArgumentError) as caught:
        split_arguments({"epsilon": 8, name: unsafe_value(name)})
    text = str(caught.value)
    assert text.startswith(f"{name}={unsafe_value(name)}: refused: ")
    entry = ULTRALYTICS[name]
    assert entry.why in text and entry.instead in text
    assert ". " not in entry.why and not entry.why.endswith(".")  # one sentence
    assert entry.instead.endswith((".", "…"))


@pytest.mark.parametrize("name", of_kind(Kind.REFUSED))
def test_refused_arguments_are_silent_at_harmless_values(name: str) -> None:
    for harmless in ULTRALYTICS[name].harmless:
        for spelling in (harmless, str(harmless)):
            _, overrides = split_arguments({"epsilon": 8, name: spelling})
            if name not in OUTSIDE_CONFIGURATION:
                assert overrides[name] == harmless


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("amp", "BF16", "bf16"),
        ("amp", "0", False),
        ("mosaic", "0", 0.0),
        ("cache", "1", True),
        ("cache", "RAM", "ram"),
        ("fraction", "1", 1.0),
    ],
)
def test_harmless_values_in_other_spellings(name: str, value: str, expected: object) -> None:
    _, overrides = split_arguments({"epsilon": 8, name: value})
    assert (type(overrides[name]), overrides[name]) == (type(expected), expected)


@pytest.mark.parametrize(
    ("name", "value"),
    [("amp", "fp16"), ("amp", "None"), ("mosaic", "1e-9"), ("mosaic", "nan"), ("mixup", [0])],
)
def test_unsafe_values_in_other_spellings(name: str, value: object) -> None:
    with pytest.raises(UnsafeArgumentError):
        split_arguments({"epsilon": 8, name: value})


@pytest.mark.parametrize("name", [*of_kind(Kind.FIXED), *of_kind(Kind.IRRELEVANT)])
def test_arguments_without_effect_are_refused_as_such(name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        split_arguments({"epsilon": 8, name: "something"})
    assert not isinstance(caught.value, UnsafeArgumentError)
    assert str(caught.value).startswith(f"{name}=something: {ULTRALYTICS[name].why}\n")


@pytest.mark.parametrize("name", of_kind(Kind.IRRELEVANT))
def test_irrelevant_arguments_are_dropped_at_their_default(name: str) -> None:
    _, overrides = split_arguments({"epsilon": 8, name: ULTRALYTICS[name].default})
    assert name not in overrides
