"""Whole Ultralytics detectors, all engines against passes over single images."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from discreet.clipping import FlatClipping
from discreet.gradients import LayerwiseEngine, OpacusEngine, ReferenceEngine, make_engine
from discreet.gradients.records import RecordedGradients
from tests.gradients.oracle import TOLERANCE

IMAGES = 3


def detector(name: str, norm: str) -> nn.Module:
    """A detector whose normalisation does not mix images; statistics far from their defaults."""
    from ultralytics.nn.tasks import DetectionModel, RTDETRDetectionModel

    kind = RTDETRDetectionModel if name.startswith("rtdetr") else DetectionModel
    model = kind(f"{name}.yaml", nc=4, verbose=False).train()
    for parent in list(model.modules()):
        for child_name, child in list(parent.named_children()):
            if not isinstance(child, nn.BatchNorm2d):
                continue
            nn.init.uniform_(child.weight, 0.5, 1.5)
            nn.init.normal_(child.bias, 0, 0.1)
            if norm == "group":
                groups = math.gcd(16, child.num_features)
                group = nn.GroupNorm(groups, child.num_features, eps=child.eps)
                group.load_state_dict({"weight": child.weight, "bias": child.bias})
                setattr(parent, child_name, group)
            else:
                child.eval()
                assert child.running_mean is not None and child.running_var is not None
                nn.init.normal_(child.running_mean, 0, 0.3)
                nn.init.uniform_(child.running_var, 0.5, 2)
    return model


def tensors(output: Any) -> list[Tensor]:
    """Raw head outputs."""
    if isinstance(output, Tensor):
        return [output]
    if output is None:
        return []
    values = list(output.values()) if isinstance(output, dict) else list(output)
    return [t for value in values for t in tensors(value)]


def losses(model: nn.Module, x: Tensor) -> Tensor:
    """A smooth loss of everything the head puts out."""
    outputs = tensors(model(x))
    # A transformer's decoder puts its layers first.
    outputs = [t if len(t) == len(x) else t.transpose(0, 1) for t in outputs]
    outputs = [t.flatten(1) for t in outputs]
    return torch.stack([(t.square() + t.sin()).mean(1) for t in outputs]).sum(0)


def single(model: nn.Module, x: Tensor, parameters: dict[str, nn.Parameter]) -> RecordedGradients:
    engine = ReferenceEngine(model, parameters)
    return engine.single_image_gradients(lambda i: losses(model, x[i : i + 1])[0], len(x))


def agree(found: Any, expected: RecordedGradients, parameters: dict[str, nn.Parameter]) -> None:
    """Relative error of each image's whole gradient, of the sums, and of clipped sums."""
    assert list(found.squared_norms) == list(parameters)
    error = sum(
        (found.per_example(name) - expected.per_example(name)).flatten(1).square().sum(1)
        for name in parameters
    )
    whole = torch.stack(list(expected.squared_norms.values())).sum(0)
    assert (torch.as_tensor(error).sqrt() <= TOLERANCE * whole.sqrt()).all()
    norms = torch.stack(list(found.squared_norms.values())).sum(0).sqrt()
    torch.testing.assert_close(norms, whole.sqrt(), rtol=TOLERANCE, atol=0)
    clip = FlatClipping(max_grad_norm=float(whole.sqrt().median()) / 2)
    ours, theirs = clip.clip_and_sum(found).sums, clip.clip_and_sum(expected).sums
    distance = torch.stack([(ours[name] - theirs[name]).square().sum() for name in parameters])
    size = torch.stack([theirs[name].square().sum() for name in parameters])
    assert distance.sum().sqrt() <= TOLERANCE * size.sum().sqrt()


def check(
    name: str,
    norm: str,
    size: int,
    engines: tuple[str, ...],
    dtype: torch.dtype = torch.float32,
) -> None:
    model = detector(name, norm).to(dtype)
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    x = torch.rand(IMAGES, 3, size, size, dtype=dtype)
    # RT-DETR reads this table outside its layer, which the engine would refuse to train.
    parameters = {n: p for n, p in parameters.items() if "denoising_class_embed" not in n}
    modes = [module.training for module in model.modules()]
    expected = single(model, x, parameters)
    for engine_name in engines:
        engine = make_engine(engine_name, model, parameters)
        for _ in range(2 if engine_name == LayerwiseEngine.name else 1):
            found = engine.per_example_gradients(lambda: losses(model, x))
            agree(found, expected, parameters)
    assert [module.training for module in model.modules()] == modes
    assert all(p.grad is None for p in model.parameters())
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("norm", ["frozen", "group"])
def test_yolov8n(norm: str) -> None:
    check("yolov8n", norm, 64, (LayerwiseEngine.name, OpacusEngine.name))


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["frozen", "group"])
def test_yolov8n_with_every_engine(norm: str) -> None:
    check("yolov8n", norm, 96, ("discreet", "opacus", "reference"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["yolov8s", "yolov8m", "yolo11n", "yolo26n", "yolov10n", "yolov9t", "yolov5n"]
)
def test_other_detectors(name: str) -> None:
    check(name, "frozen", 64, ("discreet",))


@pytest.mark.slow
def test_a_transformer_detector() -> None:
    # In float64: untrained, it picks queries by scores that are equal but for rounding.
    check("rtdetr-l", "frozen", 64, ("discreet",), torch.float64)


def test_channels_last() -> None:
    model = detector("yolov8n", "frozen").to(memory_format=torch.channels_last)
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    x = torch.rand(IMAGES, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    expected = single(model, x, parameters)
    engine = LayerwiseEngine(model, parameters)
    for _ in range(2):
        agree(engine.per_example_gradients(lambda: losses(model, x)), expected, parameters)


def test_only_norms_and_the_last_convolutions() -> None:
    model = detector("yolov8n", "frozen")
    chosen = {
        name: p
        for name, p in model.named_parameters()
        if p.requires_grad and (".bn." in name or name.split(".")[-2] == "2")
    }
    x = torch.rand(IMAGES, 3, 64, 64)
    expected = single(model, x, chosen)
    engine = LayerwiseEngine(model, chosen)
    for _ in range(2):
        agree(engine.per_example_gradients(lambda: losses(model, x)), expected, chosen)


def test_images_of_other_sizes_and_other_numbers_of_images() -> None:
    model = detector("yolov8n", "frozen")
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    engine = LayerwiseEngine(model, parameters, benchmark=False)
    for shape in ((2, 3, 64, 64), (1, 3, 64, 64), (2, 3, 32, 96), (3, 3, 64, 64)):
        x = torch.rand(shape)
        found = engine.per_example_gradients(lambda x=x: losses(model, x))
        agree(found, single(model, x, parameters), parameters)
