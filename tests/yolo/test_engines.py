"""Two independent engines, one clipped sum: on the real loss of a real detector."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from ultralytics.utils import DEFAULT_CFG_DICT

from discreet.clipping import FlatClipping
from discreet.gradients import make_engine
from discreet.yolo.loss import PerImageLoss
from discreet.yolo.model import attach_settings, build_model, open_source, set_norm, train_mode
from discreet.yolo.parts import select_trainable

from .conftest import NAMES, make_batch, make_model, relative, trained


def clipped_sum(model: nn.Module, engine: str, bound: float) -> Tensor:
    parameters, loss = trained(model), PerImageLoss(model)
    batch = make_batch([3, 0, 12, 1])
    gradients = make_engine(engine, model, parameters).per_example_gradients(
        lambda: loss(model(batch["img"]), batch).sum(1)
    )
    sums = FlatClipping(max_grad_norm=bound).clip_and_sum(gradients).sums
    return torch.cat([sums[name].flatten() for name in parameters])


@pytest.mark.parametrize("bound", [0.1, 1e6], ids=["all clipped", "none clipped"])
@pytest.mark.parametrize("norm", ["frozen", "group"])
def test_own_engine_and_opacus_agree(norm: str, bound: float):
    model = make_model(norm)
    own, opacus, reference = (
        clipped_sum(model, engine, bound) for engine in ("discreet", "opacus", "reference")
    )
    assert relative(own, opacus) < 1e-5
    assert relative(own, reference) < 1e-5


def test_a_pass_leaves_no_tensor_behind():
    """Records and autograd's graph must not hold each other: nothing would ever free them."""
    model, batch = make_model("frozen"), make_batch([3, 0])
    parameters, loss = trained(model), PerImageLoss(model)
    engine, clipping = make_engine("discreet", model, parameters), FlatClipping(max_grad_norm=1.0)

    def tensors_after_a_pass() -> int:
        clipping.clip_and_sum(
            engine.per_example_gradients(lambda: loss(model(batch["img"]), batch).sum(1))
        )
        gc.collect()
        return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())

    tensors_after_a_pass()  # measures, and keeps what it measured
    assert tensors_after_a_pass() == tensors_after_a_pass()


@pytest.mark.real_data
@pytest.mark.parametrize("trainable", ["all", "film+head"])
@pytest.mark.parametrize("norm", ["frozen", "group"])
def test_they_agree_on_pretrained_yolov8n(yolov8n_weights: Path, norm: str, trainable: str):
    model = build_model(open_source(yolov8n_weights), names=NAMES, imgsz=64)
    attach_settings(model, DEFAULT_CFG_DICT)
    set_norm(model, norm)
    select_trainable(model, trainable)
    train_mode(model)
    own, opacus = (clipped_sum(model, engine, 1.0) for engine in ("discreet", "opacus"))
    assert relative(own, opacus) < 1e-5
