"""The two halves of a detector are the detector, wherever it is cut."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from discreet.checking.held import relative
from discreet.gradients import make_engine
from discreet.yolo.frozen import FrozenFront
from discreet.yolo.loss import PerImageLoss

from .conftest import IMGSZ, make_batch, make_model, trained

TRAINABLE = ("classes", "head", "neck_film+classes", "class_film+classes", "whole_head")
IMAGES = make_batch([3, 1, 2])["img"]


def same(one: Any, other: Any) -> bool:
    return all(torch.equal(one[name], other[name]) for name in ("boxes", "scores"))


@pytest.mark.parametrize("norm", ["frozen", "group"])
@pytest.mark.parametrize("trainable", [*TRAINABLE, "film", "all"])
def test_one_half_after_the_other_is_the_model(trainable: str, norm: str):
    model = make_model(norm, trainable)
    front = FrozenFront(model)
    assert bool(front.layers) == (trainable in TRAINABLE)
    assert same(front.rest(front(IMAGES)), model(IMAGES))


def test_nothing_that_trains_is_in_the_front():
    for trainable in TRAINABLE:
        model = make_model(trainable=trainable)
        front = FrozenFront(model)
        assert not any(p.requires_grad for p in model.model[: front.layers].parameters())
        assert any(p.requires_grad for p in model.model[front.layers :].parameters())
        assert not any(feature.requires_grad for feature in front(IMAGES))


@pytest.mark.parametrize("engine", ["discreet", "opacus", "reference"])
def test_engines_give_the_same_gradients_from_features(engine: str):
    model, batch = make_model(trainable="neck_film+classes"), make_batch([3, 1, 2])
    front, loss, parameters = FrozenFront(model), PerImageLoss(model), trained(model)
    features = front(batch["img"])

    def norms(predict: Any) -> torch.Tensor:
        made = make_engine(engine, model, parameters)
        found = made.per_example_gradients(lambda: loss(predict(), batch).sum(1))
        return torch.stack(list(found.squared_norms.values()))

    split, whole = norms(lambda: front.rest(features)), norms(lambda: model(batch["img"]))
    assert relative(split, whole) < 1e-5


def test_the_front_of_an_image_does_not_depend_on_others():
    for norm in ("frozen", "group"):
        front = FrozenFront(make_model(norm, "classes"))
        together = front(IMAGES)
        alone = front(IMAGES[1:2])
        for one, other in zip(together, alone, strict=True):
            assert relative(one[1], other[0]) < 1e-5


def test_hooks_of_the_model_see_the_rest_and_nothing_stays_behind():
    model = make_model(trainable="classes")
    front = FrozenFront(model)
    calls: list[int] = []
    handle = model.register_forward_pre_hook(lambda _, args: calls.append(len(args[0][0])))
    front.rest(front(IMAGES))
    handle.remove()
    assert calls == [3]
    before = set(vars(model))
    with pytest.raises(RuntimeError):
        front.rest(tuple(feature[:, :1] for feature in front(IMAGES)))
    assert set(vars(model)) == before and "predict" not in before


def test_models_that_run_in_another_way_have_no_front():
    class Other(type(make_model())):
        pass

    model = make_model(trainable="classes")
    model.__class__ = Other
    front = FrozenFront(model)
    assert front.layers == 0
    assert front(IMAGES)[0] is IMAGES and same(front.rest((IMAGES,)), model(IMAGES))


def test_upsampling_and_joining_are_done_again():
    """Their outputs are the largest: the front ends behind the last layer that has weights."""
    model = make_model(trainable="class_film+classes")
    front = FrozenFront(model)
    assert list(model.model[front.layers - 1].parameters())
    first = next(
        i for i, m in enumerate(model.model) if any(p.requires_grad for p in m.parameters())
    )
    between: list[nn.Module] = list(model.model[front.layers : first])
    assert not any(list(layer.parameters()) for layer in between)
    assert all(feature.shape[-1] < IMGSZ for feature in front(IMAGES))
