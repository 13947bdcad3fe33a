"""Bad input: an error before anything is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from discreet.errors import (
    ConfigurationError,
    DatasetError,
    DiscreetError,
    ModelError,
)

from .conftest import Run, tree


def nothing_written(tmp_path: Path) -> bool:
    return not list((tmp_path / "runs").glob("*"))


@pytest.mark.parametrize(
    ("given", "error", "word"),
    [
        ({"batch": 25}, ConfigurationError, "batch=24"),
        ({"model": "missing.pt"}, ModelError, "missing.pt"),
        ({"model": __file__}, ModelError, "test_refusals.py"),
        ({"model": "yolov8s-world.yaml"}, ModelError, "no task that is trained"),
        ({"model": "no-such-model.yaml"}, ModelError, "no-such-model"),
        ({"epsilon": 1e-9, "delta": 1e-30}, DiscreetError, "epsilon"),
        ({"epsilon": 8, "noise_multiplier": 1}, ConfigurationError, "noise_multiplier"),
        ({"mosaik": 1}, ConfigurationError, "mosaic"),
        ({"data": "nowhere/data.yaml"}, DatasetError, "nowhere"),
        ({"trainable": "tail"}, ConfigurationError, "trainable"),
        ({"resume": "nowhere"}, ConfigurationError, "nowhere"),
        ({"device": 7}, ConfigurationError, "device"),
        ({"classes": [3]}, ConfigurationError, "no class 3"),
        ({"freeze": ["22.cv9"]}, ConfigurationError, "22.cv9"),
        ({"freeze": 100}, ConfigurationError, "freeze"),
        ({"optimizer": "MuSGD"}, ConfigurationError, "optimizer"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_bad_input_is_told_before_anything_is_written(
    run: Run, tmp_path: Path, given: dict[str, Any], error: type[Exception], word: str
):
    with pytest.raises(error, match=word):
        run(**given)
    assert nothing_written(tmp_path)


def test_an_unwritable_project_is_told(run: Run, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DiscreetError, match="cannot be written"):
        run(project=str(tmp_path / "file"))


@pytest.mark.parametrize("folder", ["images/train", "images/val", "labels/train", "labels/val"])
def test_a_project_among_the_images_is_refused(run: Run, scenes: Path, folder: str):
    before = tree(scenes.parent)
    with pytest.raises(ConfigurationError, match="among the data set's images"):
        run(project=str(scenes.parent / folder))
    assert tree(scenes.parent) == before
