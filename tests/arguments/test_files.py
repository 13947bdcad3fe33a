"""Arguments from a file: `cfg=`."""

from __future__ import annotations

from pathlib import Path

import pytest

from discreet.arguments import (
    neutral_values,
    split_arguments,
)
from discreet.errors import ConfigurationError


def test_required_arguments_may_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("data: d.yaml\nmodel: m.pt\n")
    split_arguments({"epsilon": 8, "cfg": str(file)}, required=("data", "model"))
    with pytest.raises(ConfigurationError, match="data: missing"):
        split_arguments({"epsilon": 8, "model": "m.pt"}, required=("data", "model"))


def test_arguments_from_a_file_lose_to_given_ones(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("epsilon: 3\nlr0: 1e-3\nimgsz: 320\nbatch: 64\n")
    privacy, overrides = split_arguments({"cfg": file, "imgsz": 160})
    assert (privacy.epsilon, privacy.batch) == (3, 64)
    assert (overrides["lr0"], overrides["imgsz"]) == (0.001, 160)
    assert "cfg" not in overrides


def test_a_copy_of_ultralytics_configuration_is_accepted(default_yaml: Path) -> None:
    privacy, overrides = split_arguments({"cfg": default_yaml, "epsilon": 8})
    assert overrides.items() >= neutral_values().items()
    assert (privacy.epochs, privacy.batch) == (100, 16)  # listed, and harmless


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("mosaic: 0.5\n", "mosaic=0.5: refused"),
        ("mosiac: 0.5\n", "did you mean mosaic"),
        ("a: [1\nb: 2\n", r"run.yaml:2: is not YAML"),
        ("- 1\n", "holds no `key: value` lines"),
        ("cfg: other.yaml\n", "names another file"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, content: str | bytes, message: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigurationError, match=message):
        split_arguments({"cfg": str(file), "epsilon": 8})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.yaml: cannot be read: No such file"):
        split_arguments({"cfg": str(tmp_path / "none.yaml"), "epsilon": 8})


@pytest.mark.parametrize("value", [True, ["a"], ""])
def test_cfg_is_a_path(value: object) -> None:
    with pytest.raises(ConfigurationError, match=r"cfg=.*: expected the path"):
        split_arguments({"cfg": value, "epsilon": 8})


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.touch()
    assert split_arguments({"cfg": file, "epsilon": 8}) == split_arguments({"epsilon": 8})
