from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from discreet.errors import UnsupportedLayerError
from discreet.gradients import LayerwiseEngine
from tests.gradients.oracle import LAYOUTS, Relayout, check_engines, trainable

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
BATCH_NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def randomise(model: nn.Module) -> nn.Module:
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            tensor.data = torch.rand_like(tensor) + 0.3
    return model


def check_precisely(model: nn.Module, x: torch.Tensor, **options: Any) -> None:
    """In float64: what goes into a normalisation may have gradients that cancel."""
    check_engines(model.double(), x.double(), **options)


def freeze(layer: nn.Module, frozen: str) -> None:
    for name, parameter in layer.named_parameters():
        parameter.requires_grad_(name != frozen)


@settings(deadline=None, max_examples=30)
@given(
    dims=st.integers(1, 3),
    images=st.integers(1, 4),
    channels=st.integers(1, 4),
    frozen=st.sampled_from(("", "weight", "bias")),
    layout=st.sampled_from(LAYOUTS),
)
def test_every_frozen_batch_norm_agrees_with_the_oracle(
    dims: int, images: int, channels: int, frozen: str, layout: str
) -> None:
    assume(layout != "transposed" or dims > 1)
    layer = randomise(BATCH_NORMS[dims](channels, eps=1e-3)).eval()
    freeze(layer, frozen)
    # The layout keeps the convolution and the normalisation from being folded.
    model = nn.Sequential(CONVOLUTIONS[dims](channels, channels, 1), Relayout(layout), layer)
    check_precisely(model, torch.randn(images, channels, *[3] * dims))


def test_batch_norm_of_vectors() -> None:
    model = nn.Sequential(nn.Linear(3, 4), randomise(nn.BatchNorm1d(4))).eval()
    check_engines(model, torch.randn(3, 3))


@settings(deadline=None, max_examples=30)
@given(
    dims=st.integers(0, 3),
    images=st.integers(1, 4),
    groups=st.integers(1, 3),
    per_group=st.integers(1, 3),
    frozen=st.sampled_from(("", "weight", "bias")),
    layout=st.sampled_from(LAYOUTS),
)
def test_every_group_norm_agrees_with_the_oracle(
    dims: int, images: int, groups: int, per_group: int, frozen: str, layout: str
) -> None:
    channels = groups * per_group
    assume(dims > 0 or per_group > 1)  # PyTorch refuses one value per group
    assume(dims > 1 or layout == "contiguous")
    layer = randomise(nn.GroupNorm(groups, channels, eps=1e-2))
    freeze(layer, frozen)
    first = CONVOLUTIONS[dims](channels, channels, 1) if dims else nn.Linear(channels, channels)
    model = nn.Sequential(first, Relayout(layout), layer)
    check_precisely(model, torch.randn(images, channels, *[3] * dims))


@settings(deadline=None, max_examples=30)
@given(
    images=st.integers(1, 4),
    middle=st.lists(st.integers(1, 3), max_size=2),
    normalised=st.integers(1, 2),
    bias=st.booleans(),
    frozen=st.sampled_from(("", "weight", "bias")),
    layout=st.sampled_from(LAYOUTS),
)
def test_every_layer_norm_agrees_with_the_oracle(
    images: int, middle: list[int], normalised: int, bias: bool, frozen: str, layout: str
) -> None:
    shape = (5, 5)[:normalised]
    layer = randomise(nn.LayerNorm(shape, eps=1e-2, bias=bias))
    freeze(layer, frozen)
    assume(layout != "transposed" or normalised == 2)
    layout = layout if len(middle) + normalised > 1 else "contiguous"
    model = nn.Sequential(nn.Linear(5, 5), Relayout(layout), layer)
    # Opacus' sampler needs a bias.
    engines = ("discreet", "opacus") if bias else ("discreet",)
    check_precisely(model, torch.randn(images, *middle, *shape), engines=engines)


def test_layer_norm_over_the_images_is_refused() -> None:
    model = nn.Sequential(nn.LayerNorm((3, 4)))
    engine = LayerwiseEngine(model, trainable(model))
    with pytest.raises(UnsupportedLayerError, match="0: input of shape"):
        engine.per_example_gradients(lambda: model(torch.randn(3, 4)).sum(1))


def test_layers_used_twice_add_before_norms() -> None:
    for layer in (randomise(nn.BatchNorm2d(3)).eval(), randomise(nn.GroupNorm(1, 3))):
        model = nn.Sequential(nn.Conv2d(3, 3, 1), layer, nn.Tanh(), layer)
        check_engines(model, torch.randn(3, 3, 4, 4))
