"""A teacher's part of the loss: of one image, without parameters, zero where both agree."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from ultralytics.nn.tasks import DetectionModel, RTDETRDetectionModel
from ultralytics.utils import DEFAULT_CFG_DICT

from discreet.errors import ModelError
from discreet.gradients import make_engine
from discreet.yolo import distillation
from discreet.yolo.distillation import TERMS, DistilledLoss
from discreet.yolo.loss import PerImageLoss
from discreet.yolo.model import attach_settings, train_mode

from .conftest import NAMES, make_batch, make_model, only, relative, trained

BOXES = [3, 1, 0, 9]


def architecture(name: str, names: tuple[str, ...] = NAMES) -> nn.Module:
    torch.manual_seed(3)
    model = DetectionModel(name, nc=len(names), verbose=False)
    model.names = dict(enumerate(names))
    attach_settings(model, DEFAULT_CFG_DICT)
    for branch in (model.model[-1].cv3, getattr(model.model[-1], "one2one_cv3", None) or ()):
        for row in branch:
            row[-1].bias.data.zero_()
    train_mode(model)
    return model


def settled(seed: int = 1) -> nn.Module:
    """Another detector of the same kind, sure of what it sees."""
    teacher = make_model()
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return teacher


def taught(student: nn.Module, teacher: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    loss = DistilledLoss(PerImageLoss(student), student, teacher, gain=None)
    terms = loss(student(batch["img"]), batch)
    return dict(zip(loss.names, terms.unbind(1), strict=True))


@pytest.mark.parametrize("kind", ["yolov8n.yaml", "yolo11s.yaml", "yolov10n.yaml", "yolo26n.yaml"])
def test_terms_are_of_one_image_whatever_the_teacher(kind: str):
    student, batch = make_model(), make_batch(BOXES)
    teacher = architecture(kind)
    together = taught(student, teacher, batch)
    assert set(TERMS) < set(together)
    for i in range(len(BOXES)):
        alone = taught(student, teacher, only(batch, i))
        for name, term in alone.items():
            assert term[0].item() == pytest.approx(together[name][i].item(), rel=1e-4, abs=1e-6)
    crowded = make_batch([*BOXES[:3], 40])
    crowded["img"][3] = 0
    for name, term in taught(student, teacher, crowded).items():
        assert torch.equal(term[:3], together[name][:3]), name


@pytest.mark.parametrize("kind", ["yolov10n.yaml", "yolo26n.yaml"])
def test_students_with_two_heads_and_without_distributions_learn(kind: str):
    student = architecture(kind)
    terms = taught(student, settled(), make_batch(BOXES))
    sum(terms[name].sum() for name in TERMS).backward()
    moved = [n for n, p in student.named_parameters() if p.grad is not None and p.grad.any()]
    assert any(".cv2." in name for name in moved) and any(".cv3." in name for name in moved)


def test_nothing_is_asked_of_a_student_that_says_the_same():
    student = make_model()
    same = copy.deepcopy(student)
    student.eval()
    terms = taught(student, same, make_batch(BOXES))
    assert terms["teacher's boxes"].abs().max() < 1e-5
    assert terms["teacher's features"].abs().max() < 1e-6
    # Cross-entropy is least, but not zero, where both scores are equal.
    classes = terms["teacher's classes"].sum()
    (slope,) = torch.autograd.grad(classes, student.model[-1].cv3[0][-1].bias)
    assert slope.abs().max() < 1e-4
    other = taught(make_model(), settled(), make_batch(BOXES))
    assert all(other[name].min() > 1e-5 for name in TERMS), other


def test_classes_are_matched_by_name_and_others_left_alone():
    student, teacher, batch = make_model(), settled(), make_batch(BOXES)
    expected = taught(student, teacher, batch)["teacher's classes"]
    turned = copy.deepcopy(teacher)
    turned.names = {0: " Platelet", 1: "red cell", 2: "WHITE CELL"}
    for row in turned.model[-1].cv3:
        for parameter in (row[-1].weight, row[-1].bias):
            parameter.data = parameter.data[[2, 0, 1]]
    found = taught(student, turned, batch)["teacher's classes"]
    assert torch.allclose(found, expected, rtol=1e-5)
    stranger = copy.deepcopy(teacher)
    stranger.names = {0: "car", 1: "bus", 2: "cat"}
    assert set(taught(student, stranger, batch)) & set(TERMS) == set(TERMS[1:])


def test_gain_scales_the_teacher_and_nothing_else():
    student, teacher, batch = make_model(), settled(), make_batch(BOXES)
    one, two = (
        DistilledLoss(PerImageLoss(student), student, teacher, gain=gain)(
            student(batch["img"]), batch
        )
        for gain in (1.0, 2.5)
    )
    assert torch.equal(one[:, :3], two[:, :3])
    assert torch.allclose(one[:, 3:] * 2.5, two[:, 3:])


@pytest.mark.parametrize("trainable", ["all", "film+head"])
@pytest.mark.parametrize("engine", ["discreet", "reference"])
def test_gradients_of_images_are_those_of_each_alone(engine: str, trainable: str):
    student, teacher, batch = make_model(trainable=trainable), settled(), make_batch([3, 0, 5])
    loss = DistilledLoss(PerImageLoss(student), student, teacher, gain=1.0)
    parameters = trained(student)
    running = make_engine(engine, student, parameters)
    gradients = running.per_example_gradients(lambda: loss(student(batch["img"]), batch).sum(1))
    for i in range(3):
        weight = torch.eye(3)[i]
        found = gradients.weighted_sum(dict.fromkeys(parameters, weight))
        mine = only(batch, i)
        alone = torch.autograd.grad(
            loss(student(mine["img"]), mine).sum(), list(parameters.values()), allow_unused=True
        )
        for (name, parameter), own in zip(parameters.items(), alone, strict=True):
            own = torch.zeros_like(parameter) if own is None else own
            assert relative(found[name], own) < 1e-3 or own.norm() < 1e-6, name


def test_a_teacher_in_training_mode_would_couple(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(distillation, "freeze", lambda model: model.train())
    student, teacher, batch = make_model(), architecture("yolov8n.yaml"), make_batch(BOXES)
    together = taught(student, teacher, batch)["teacher's classes"]
    crowded = {**batch, "img": batch["img"].clone()}
    crowded["img"][3] = 0
    other = taught(student, teacher, crowded)["teacher's classes"]
    assert (together[:3] - other[:3]).abs().max() > 1e-3


def test_the_teacher_stays_as_it_was_and_gets_no_gradient():
    student, teacher = make_model(), architecture("yolov8n.yaml")
    before = copy.deepcopy(teacher.state_dict())
    terms = taught(student, teacher, make_batch(BOXES))
    sum(term.sum() for term in terms.values()).backward()
    assert not teacher.training
    assert all(parameter.grad is None for parameter in teacher.parameters())
    after: dict[str, Any] = teacher.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_other_heads_and_strides_are_refused():
    student = make_model()
    with pytest.raises(ModelError, match="YOLO heads"):
        distillation.Match.of(student, RTDETRDetectionModel("rtdetr-l.yaml", nc=3, verbose=False))
    coarse = settled()
    coarse.model[-1].stride = coarse.model[-1].stride * 8
    with pytest.raises(ModelError, match="strides"):
        distillation.Match.of(student, coarse)
