"""A model that enlarges its images: the same model on larger images, and stock at the end."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from ultralytics import YOLO

import discreet.demo
from discreet.api import train
from discreet.errors import ConfigurationError
from discreet.statement.summary import KEY
from discreet.statement.verify import verify_release
from discreet.yolo.model import build_model, known_task, open_source
from discreet.yolo.parts import block_of, select_trainable
from discreet.yolo.zoom import alike, enlarging, moved_layers, trained_at, zoom_of

from .conftest import ARCHITECTURE, IMGSZ

WEIGHTS = str(Path(discreet.demo.__file__).with_name("demo-model.pt"))


def scores(model: nn.Module, images: Tensor) -> Tensor:
    with torch.inference_mode():
        found = model.float().eval()(images)
    return found[0] if isinstance(found, tuple) else found


def enlarged(images: Tensor, zoom: int) -> Tensor:
    return nn.functional.interpolate(images, scale_factor=zoom, mode="bilinear")


# With layers that take several inputs by number, and one whose arguments are numbers too.
@pytest.mark.parametrize("name", [WEIGHTS, "yolov9e.yaml", "yolo26n-pose.yaml", "yolov8n-obb.yaml"])
def test_it_is_the_source_on_enlarged_images(name: str):
    source = open_source(name)
    zoomed = enlarging(source, 2)
    images = torch.rand(1, 3, IMGSZ, IMGSZ, generator=torch.Generator().manual_seed(1))
    seen, expected = scores(zoomed, images), scores(source, enlarged(images, 2))
    classes = slice(4, 4 + len(source.names))
    assert torch.allclose(seen[:, classes], expected[:, classes], rtol=1e-4, atol=1e-6)
    assert torch.allclose(2 * seen[:, :4], expected[:, :4], rtol=1e-4, atol=1e-3)
    assert (zoom_of(source), zoom_of(zoomed)) == (1, 2)
    assert torch.equal(2 * zoomed.stride, source.stride)
    assert (zoomed.names, trained_at(zoomed)) == (source.names, trained_at(source))
    assert len(zoomed.yaml["backbone"]) == len(source.yaml["backbone"]) + 1  # left as it is


def test_without_zoom_it_is_the_source_itself():
    source = open_source(WEIGHTS)
    assert enlarging(source, 1) is source


def test_a_teacher_looks_at_images_as_the_student_does():
    student, teacher = enlarging(open_source(WEIGHTS), 2), open_source(WEIGHTS)
    assert zoom_of(alike(teacher, student)) == 2
    assert alike(teacher, open_source(WEIGHTS)) is teacher
    assert alike(student, student) is student
    teacher.args = {"imgsz": 32}  # it knows small objects as they are
    assert alike(teacher, student) is teacher


def test_rt_detr_can_be_zoomed():
    zoomed = enlarging(open_source("rtdetr-l.yaml"), 2)
    assert zoom_of(build_model(zoomed, names=["a"], imgsz=IMGSZ)) == 2


@pytest.mark.parametrize("name", ["yolov8n-seg.yaml", "yolo26n-seg.yaml"])
def test_masks_are_not_zoomed_since_nobody_could_validate_them(name: str):
    with pytest.raises(ConfigurationError, match="masks"):
        enlarging(open_source(name), 2)


def test_other_classes_keep_every_weight_but_the_last():
    source = open_source(WEIGHTS)
    model = build_model(enlarging(source, 4), names=["a", "b"], imgsz=IMGSZ)
    assert known_task(model) is known_task(source)
    old = {k.partition(".")[2]: v for k, v in source.state_dict().items()}
    for name, value in model.state_dict().items():
        layer, _, rest = name.partition(".")[2].partition(".")
        before = old[f"{int(layer) - 1}.{rest}"]
        assert before.shape != value.shape or "cv3" in name or torch.equal(before.float(), value)


def test_layers_are_frozen_by_the_numbers_of_the_source():
    assert moved_layers(None) is None
    assert (moved_layers(0), moved_layers(10)) == (0, 11)
    assert moved_layers([0, "22.cv2", "cv3"]) == [1, "23.cv2", "cv3"]
    source = open_source(ARCHITECTURE)
    model = enlarging(source, 2)
    frozen = select_trainable(model, "film", freeze=moved_layers([0, 15]))
    expected = select_trainable(source, "film", freeze=[0, 15])
    assert len(frozen) == len(expected)
    assert {block_of(model, name) for name in frozen} == {block_of(source, n) for n in expected}


@pytest.mark.slow
def test_a_zoomed_run_is_released_as_a_stock_model_of_the_size_asked_for(
    scenes: Path, tmp_path: Path
):
    result = train(
        {
            "data": str(scenes), "model": WEIGHTS, "epsilon": 8, "batch": 8, "steps": 2,
            "imgsz": 32, "project": str(tmp_path / "runs"), "val_data": "public",
        }
    )  # fmt: skip
    assert result.record.configuration["zoom"] == 2
    assert verify_release(result.release).valid
    stock = YOLO(str(result.weights))
    assert zoom_of(stock.model) == 2
    image = next((scenes.parent / "images" / "val").iterdir())
    (found,) = stock.predict(image, imgsz=32, verbose=False, conf=0.0)
    assert found.orig_shape == (IMGSZ, IMGSZ)
    assert found.boxes.xyxy.max() <= IMGSZ
    # Trained on: what is zoomed already is not zoomed again.
    checkpoint = torch.load(result.weights, weights_only=False)
    del checkpoint[KEY]  # with which it would be known as private, and refused
    torch.save(checkpoint, tmp_path / "zoomed.pt")
    again = train(
        {
            "data": str(scenes), "model": str(tmp_path / "zoomed.pt"), "epsilon": 8, "batch": 8,
            "steps": 1, "imgsz": 32, "project": str(tmp_path / "runs"), "val": False,
        }
    )  # fmt: skip
    assert again.record.configuration["zoom"] == 1
    assert zoom_of(open_source(again.weights)) == 2


@pytest.mark.parametrize("said", [0, -640, 10**400, 640.0, [640], None])
def test_a_checkpoint_that_says_something_absurd_tells_nothing(said: object):
    source = open_source(WEIGHTS)
    source.args = {"imgsz": said}
    assert trained_at(source) is None
