"""Values are read as Ultralytics reads them, and wrong ones are told with what is expected."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discreet.arguments import (
    ULTRALYTICS,
    is_flag,
    parse_value,
    split_arguments,
)
from discreet.arguments.privacy import kind_of, names
from discreet.arguments.values import check_value, example_of
from discreet.errors import ConfigurationError


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr0", "abc"),
        ("lr0", True),
        ("lr0", math.nan),
        ("lr0", -0.1),
        ("lr0", 0),
        ("lr0", 1.1),
        ("imgsz", 0),
        ("imgsz", [640, 640]),
        ("imgsz", 160.5),
        ("fliplr", 2),
        ("box", -1),
        ("degrees", 181),
        ("workers", -1),
        ("seed", "x"),
        ("optimizer", "sgdd"),
        ("freeze", -1),
        ("freeze", "model.22"),
        ("freeze", []),
        ("scale", [2, 0.5]),
        ("scale", 1.5),
        ("classes", "dog"),
        ("device", ["0", None]),
        ("single_cls", 1),
        ("single_cls", "yes"),
        ("data", ["a.yaml", "b.yaml"]),
        ("data", ""),
        ("max_det", 0),
        ("views", 0),
        ("views", 65),
        ("views", 20_000),
        ("project", False),
    ],
)
def test_wrong_values_are_named_with_what_is_expected(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError) as caught:
        split_arguments({"epsilon": 8, name: value})
    assert str(caught.value).startswith(f"{name}=")
    assert ": expected " in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("lr0", "1e-3", 0.001),
        ("lr0", 1, 1.0),
        ("imgsz", "160.0", 160),
        ("freeze", "[0, 1]", [0, 1]),
        ("freeze", "0,1", [0, 1]),
        ("freeze", "10", 10),
        ("freeze", "[23.cv2,23.cv3]", ["23.cv2", "23.cv3"]),
        ("freeze", "23.cv2,0", ["23.cv2", 0]),
        ("freeze", (0, 1), [0, 1]),
        ("scale", "0.5,1.5", [0.5, 1.5]),
        ("device", "cpu", "cpu"),
        ("device", "cuda:0", "cuda:0"),
        ("device", [0], 0),
        ("device", "0,1", [0, 1]),
        ("device", "cuda:0,cuda:1", ["cuda:0", "cuda:1"]),
        ("device", "cpu,cpu", ["cpu", "cpu"]),
        ("device", "-1", -1),
        ("optimizer", "adamw", "AdamW"),
        ("name", "001", "001"),
        ("name", "2026_01", "2026_01"),
        ("name", 2026, "2026"),
        ("name", "1e5", "1e5"),
        ("project", Path("runs") / "mine", str(Path("runs") / "mine")),
        ("data", "C:\\images\\new.yaml", "C:\\images\\new.yaml"),
        ("data", "a=b.yaml", "a=b.yaml"),
        ("conf", "None", None),
        ("resume", "true", True),
        ("resume", "runs/private/train", "runs/private/train"),
        ("pretrained", "False", False),
    ],
)
def test_right_values_are_read(name: str, value: object, expected: object) -> None:
    _, overrides = split_arguments({"epsilon": 8, name: value})
    assert (type(overrides[name]), overrides[name]) == (type(expected), expected)


def test_numbers_of_other_libraries_are_numbers() -> None:
    numpy = pytest.importorskip("numpy")
    privacy, overrides = split_arguments(
        {"epsilon": numpy.float32(8), "batch": numpy.int64(64), "lr0": numpy.float64(0.5)}
    )
    assert (type(privacy.epsilon), type(privacy.batch), type(overrides["lr0"])) == (
        float,
        int,
        float,
    )


def test_a_torch_device_is_a_device() -> None:
    torch = pytest.importorskip("torch")
    _, overrides = split_arguments({"epsilon": 8, "device": torch.device("cuda", 1)})
    assert overrides["device"] == "cuda:1"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("True", True),
        ("NONE", None),
        (" 3 ", 3),
        ("1e-5", 1e-5),
        ("'a'", "a"),
        ("0,1", (0, 1)),
        ("[a,1]", ["a", 1]),
        ("cv2.COLORMAP_PARULA", "cv2.COLORMAP_PARULA"),
        ("__import__('os').getcwd()", "__import__('os').getcwd()"),
        ("", ""),
    ],
)
def test_values_are_read_as_ultralytics_reads_them(text: str, value: object) -> None:
    assert parse_value(text) == value


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_reading_a_value_never_fails(text: str) -> None:
    parse_value(text)
    parse_value(f"[{text}]")


def test_control_characters_and_long_values_are_not_repeated() -> None:
    with pytest.raises(ConfigurationError) as caught:
        split_arguments({"epsilon": 8, "lr0": "\x1b[31m" + "x" * 500})
    assert "\x1b" not in str(caught.value) and len(str(caught.value)) < 200


def test_flags_are_truth_values() -> None:
    assert is_flag("resume") and is_flag("exist_ok")
    assert not is_flag("data") and not is_flag("epsilon") and not is_flag("unknown")


def test_examples_are_of_their_kind() -> None:
    kinds = [*(entry.values for entry in ULTRALYTICS.values()), *map(kind_of, names())]
    given = [(kind, example_of(kind)) for kind in kinds if kind is not None and example_of(kind)]
    assert len(given) > 20
    for kind, example in given:
        check_value(kind, example)


@pytest.mark.parametrize(("given", "taken"), [(1, [1]), ("1", [1]), ("0,2", [0, 2]), ([2], [2])])
def test_one_class_is_a_list_of_one(given: object, taken: list[int]):
    _, settings = split_arguments({"epsilon": 8, "classes": given})
    assert settings["classes"] == taken
