from __future__ import annotations

import time

import pytest
import torch

from discreet.errors import ConfigurationError, ModelError
from discreet.yolo.timing import measure_step

from .conftest import ARCHITECTURE

pytestmark = pytest.mark.usefixtures("hasty")


def test_a_model_is_measured_in_seconds():
    state = torch.get_rng_state()
    began = time.monotonic()
    step = measure_step(ARCHITECTURE, 50, "film+head")
    assert time.monotonic() - began < 60
    assert step.imgsz == 64 and step.model == "demo-model"
    assert step.seconds_per_image > 0 and step.seconds_per_step > 0 and step.parameters > 100
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    "model", ["yolov8n-seg.yaml", "yolov8n-pose.yaml", "yolov8n-obb.yaml", "yolov8n-cls.yaml"]
)
def test_every_task_is_measured(model: str):
    assert measure_step(model, 64, "classes").seconds_per_image > 0


def test_frozen_layers_are_measured_apart():
    whole, head = (measure_step(ARCHITECTURE, 64, part) for part in ("film", "classes"))
    assert whole.seconds_per_new_image == 0
    assert head.seconds_per_new_image > 0
    assert head.seconds_per_image < whole.seconds_per_image


def test_more_trained_parameters_are_counted():
    few, all_of_them = (measure_step(ARCHITECTURE, 64, part) for part in ("film", "all"))
    assert few.parameters < all_of_them.parameters


@pytest.mark.parametrize("model", ["gone.pt", "gone.yaml"])
def test_a_model_that_cannot_be_opened_is_named(model: str):
    with pytest.raises(ModelError) as caught:
        measure_step(model, 64, None)
    assert f"model={model}" in str(caught.value)


def test_unknown_parts_are_refused():
    with pytest.raises(ConfigurationError, match="unknown part"):
        measure_step(ARCHITECTURE, 64, "nose")
