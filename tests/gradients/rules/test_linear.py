from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from discreet.errors import UnsupportedLayerError
from discreet.gradients import LayerwiseEngine
from tests.gradients.oracle import LAYOUTS, Relayout, check_engines, per_image_loss, trainable


@settings(deadline=None, max_examples=30)
@given(
    images=st.integers(1, 4),
    middle=st.lists(st.integers(1, 4), max_size=2),
    features=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    bias=st.booleans(),
    frozen=st.sampled_from(("", "weight", "bias")),
    layout=st.sampled_from(LAYOUTS),
)
def test_every_linear_layer_agrees_with_the_oracle(
    images: int,
    middle: list[int],
    features: tuple[int, int],
    bias: bool,
    frozen: str,
    layout: str,
) -> None:
    if layout == "transposed":
        middle = [*middle, features[0]] if middle else middle
    layer = nn.Linear(*features, bias=bias)
    for name, parameter in layer.named_parameters():
        parameter.requires_grad_(name != frozen)
    swap = Relayout(layout if len(middle) else "contiguous")
    model = nn.Sequential(nn.Linear(features[0], features[0]), swap, layer)
    if layout == "transposed" and middle:
        middle[-1] = features[0]
    check_engines(model, torch.randn(images, *middle, features[0]))


def test_a_layer_used_twice_adds_before_norms() -> None:
    layer = nn.Linear(5, 5)
    check_engines(nn.Sequential(layer, nn.Tanh(), layer), torch.randn(3, 2, 5))


def test_rows_that_are_not_images_are_refused() -> None:
    model = nn.Sequential(nn.Flatten(0, 1), nn.Linear(4, 3), nn.Unflatten(0, (3, 2)))
    engine = LayerwiseEngine(model, trainable(model))
    with pytest.raises(UnsupportedLayerError, match="1: 3 images gave it 6 rows"):
        engine.per_example_gradients(lambda: per_image_loss(model, torch.randn(3, 2, 4)))


def test_rows_that_are_not_images_are_refused_even_if_as_many() -> None:
    class TokensFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x.transpose(0, 1)).transpose(0, 1)

    model = TokensFirst()
    engine = LayerwiseEngine(model, trainable(model))
    with pytest.raises(UnsupportedLayerError, match="linear: the loss of one image depends on"):
        engine.per_example_gradients(lambda: per_image_loss(model, torch.randn(3, 3, 4)))
