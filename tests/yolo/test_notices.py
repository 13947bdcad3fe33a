"""What the user is told of a model before a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from discreet.terminal import SilentReporter
from discreet.yolo.model import open_source
from discreet.yolo.preparation import prepare

from ..models.data import write_shapes

ARCHITECTURE = "yolov8n-pose.yaml"


class Notices(SilentReporter):
    """Keeps what is noticed."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def notice(self, text: str) -> None:
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
