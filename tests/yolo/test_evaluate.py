from __future__ import annotations

import pytest
import torch
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.utils import DEFAULT_CFG

from discreet.yolo.validators import PatientValidator


def predictions(images: int) -> torch.Tensor:
    """Raw outputs (B, 4 + nc, A) of many confident, overlapping boxes."""
    generator = torch.Generator().manual_seed(0)
    boxes = torch.rand(images, 4, 500, generator=generator) * 50 + 10
    return torch.cat([boxes, torch.rand(images, 3, 500, generator=generator)], 1)


def test_a_slow_machine_drops_no_image(monkeypatch: pytest.MonkeyPatch):
    def detected(kind: type[DetectionValidator]) -> list[int]:
        validator = kind(args=DEFAULT_CFG)
        validator.args.conf, validator.end2end = 0.5, False
        return [len(found["bboxes"]) for found in validator.postprocess(predictions(6))]

    in_time = detected(DetectionValidator)
    assert detected(PatientValidator) == in_time
    clock = iter(range(0, 100_000, 10))  # every look at the clock is ten seconds later
    monkeypatch.setattr("ultralytics.utils.nms.time.time", lambda: float(next(clock)))
    assert detected(PatientValidator) == in_time
    assert detected(DetectionValidator) != in_time  # what it would have been
