"""What the user is told of a model before a run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from discreet.api import train
from discreet.result import TrainingResult
from discreet.terminal import SilentReporter
from discreet.yolo.model import open_source
from discreet.yolo.preparation import prepare

from ..models.data import write_shapes
from .conftest import ARCHITECTURE as ARCHITECTURE_OF_BOXES
from .conftest import IMGSZ

ARCHITECTURE = "yolov8n-pose.yaml"


class Notices(SilentReporter):
    """Keeps what is noticed."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def notice(self, text: str) -> None:
        """Keep it."""
        self.texts.append(text)

    def warning(self, text: str) -> None:
        """Keep it."""
        self.texts.append(text)


@pytest.mark.parametrize("pretrained", [True, False])
def test_other_key_points_are_told_of_weights_and_not_of_an_architecture(
    tmp_path: Path, pretrained: bool
):
    model = ARCHITECTURE
    if pretrained:
        model = str(tmp_path / "pose.pt")
        torch.save({"model": open_source(ARCHITECTURE)}, model)
    data = write_shapes(tmp_path / "data", "pose")
    told = Notices()
    prepare({"data": str(data), "model": model, "epsilon": 8, "imgsz": 64}, reporter=told)
    assert any("the weights know 17 key points" in text for text in told.texts) is pretrained


@pytest.mark.usefixtures("unchecked")
def test_training_images_saved_again_for_validation_are_told_here_and_not_by_the_report(
    scenes: Path, tmp_path: Path
):
    data = Path(shutil.copytree(scenes.parent, tmp_path / "scenes")) / scenes.name
    images = data.parent / "images"
    for own, private in zip(
        sorted((images / "val").iterdir()), sorted((images / "train").iterdir()), strict=False
    ):
        Image.open(private).convert("RGB").save(own.with_suffix(".jpg"), quality=80)
        if own.suffix != ".jpg":
            own.unlink()
    told = Notices()
    given = {
        "data": str(data), "model": ARCHITECTURE_OF_BOXES, "epsilon": 8, "steps": 1, "batch": 8,
        "imgsz": IMGSZ, "project": str(tmp_path / "runs"), "val_data": "public", "sign": False,
    }  # fmt: skip
    result = train(given, reporter=told)
    assert any("8 of 8 validation images look like training images" in t for t in told.texts)
    with_copies = pictures(result)
    told = Notices()
    result = train({**given, "data": str(scenes)}, reporter=told)
    assert not any("look like training images" in text for text in told.texts)
    # What is left out, a stranger could take for a sign that the image was trained on.
    assert pictures(result) == with_copies > 0


def pictures(result: TrainingResult) -> int:
    return (result.release / "report.html").read_text().count("data:image/jpeg")
