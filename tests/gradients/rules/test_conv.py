from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from discreet.errors import UnsupportedLayerError
from discreet.gradients import LayerwiseEngine
from discreet.gradients.records import as_rows
from discreet.gradients.rules.conv_methods import (
    ghost_fits,
    ghost_squared_norms,
    held_methods,
    summed_columns,
)
from discreet.gradients.rules.geometry import Geometry, explicit_padding
from tests.gradients.oracle import (
    LAYOUTS,
    Relayout,
    assert_same,
    check_engines,
    one_by_one,
    per_image_loss,
    trainable,
)

# PyTorch's own forward pass copies its input then; ours pads it.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


@st.composite
def convolutions(draw: st.DrawFn, *, dims: int) -> tuple[nn.Module, tuple[int, ...]]:
    """A convolution and the shape of its input."""
    torch.manual_seed(draw(st.integers(0, 10_000)))
    each = lambda values: tuple(draw(values) for _ in range(dims))  # noqa: E731
    groups = draw(st.sampled_from((1, 1, 2, 4)))
    inputs, outputs = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    kernel, dilation = each(st.integers(1, 3)), each(st.integers(1, 2))
    mode = draw(st.sampled_from(("zeros", "zeros", "reflect", "replicate", "circular")))
    padding: Any = draw(st.sampled_from(("numbers", "numbers", "same", "valid")))
    stride = (1,) * dims if padding == "same" else each(st.integers(1, 3))
    if padding == "numbers":
        padding = each(st.integers(0, 2))
    size = tuple(
        d * (k - 1) + draw(st.integers(3, 5)) for k, d in zip(kernel, dilation, strict=True)
    )
    layer = CONVOLUTIONS[dims](
        inputs,
        outputs,
        kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=draw(st.booleans()),
        padding_mode=mode,
    )
    return layer, (draw(st.integers(1, 4)), inputs, *size)


def check(layer: nn.Module, shape: tuple[int, ...], layout: str, frozen: str) -> None:
    channels = shape[1]
    before = type(layer)(channels, channels, 1)  # so that the input needs a gradient
    model = nn.Sequential(before, Relayout(layout), layer)
    for name, parameter in layer.named_parameters():
        parameter.requires_grad_(name != frozen)
    x = torch.randn(shape)
    check_engines(model, Relayout(layout)(x) if layout != "transposed" else x)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_every_convolution_agrees_with_the_oracle(dims: int) -> None:
    @settings(deadline=None, max_examples=40 if dims == 2 else 15)
    @given(
        layer=convolutions(dims=dims),
        layout=st.sampled_from(LAYOUTS),
        frozen=st.sampled_from(("", "", "weight", "bias")),
    )
    def run(layer: tuple[nn.Module, tuple[int, ...]], layout: str, frozen: str) -> None:
        module, shape = layer
        # Transposing swaps the last two sizes, which must still fit the kernel.
        assume(layout != "transposed" or (dims > 1 and shape[-1] == shape[-2]))
        check(module, shape, layout, frozen)

    run()


@settings(deadline=None, max_examples=30)
@given(
    dims=st.integers(1, 3),
    groups=st.sampled_from((1, 2)),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
    padding=st.integers(0, 1),
    dilation=st.integers(1, 2),
    output_padding=st.integers(0, 1),
    bias=st.booleans(),
    layout=st.sampled_from(("contiguous", "channels_last", "sliced")),
)
def test_every_transposed_convolution_agrees_with_the_oracle(
    dims: int,
    groups: int,
    kernel: int,
    stride: int,
    padding: int,
    dilation: int,
    output_padding: int,
    bias: bool,
    layout: str,
) -> None:
    assume(output_padding < max(stride, dilation))
    layer = TRANSPOSED[dims](
        2 * groups, 3 * groups, kernel, stride, padding, output_padding, groups, bias, dilation
    )
    model = nn.Sequential(TRANSPOSED[dims](2 * groups, 2 * groups, 1), Relayout(layout), layer)
    check_engines(model, torch.randn(3, 2 * groups, *[4] * dims))


def test_output_size_of_a_transposed_convolution() -> None:
    class Sized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.up(x, output_size=[8, 7])

    check_engines(Sized(), torch.randn(3, 2, 4, 4), engines=("discreet",))


def test_a_layer_used_twice_adds_before_norms() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(self.conv(x).tanh() + x)

    check_engines(Twice(), torch.randn(4, 2, 6, 6))


def test_a_weight_shared_by_two_layers_adds_before_norms() -> None:
    first, second = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
    second.weight = first.weight
    check_engines(nn.Sequential(first, nn.Tanh(), second), torch.randn(3, 4, 5, 5))


@settings(deadline=None, max_examples=30)
@given(layer=convolutions(dims=2))
def test_every_method_gives_the_same(layer: tuple[nn.Module, tuple[int, ...]]) -> None:
    module, shape = layer
    assert isinstance(module, nn.Conv2d)
    x, geometry = explicit_padding(module, torch.randn(shape))
    output = geometry.apply(x, module.weight.detach(), None)
    grad, weight = torch.randn_like(output), module.weight.detach()
    into = torch.empty(len(x), weight.numel())
    methods = held_methods(x, grad, weight, geometry, into=into)
    assert {"grouped", "loop"} < set(methods) or geometry.groups > 1
    expected = torch.stack(
        [
            torch.nn.grad.conv2d_weight(
                x[i : i + 1].double(),
                weight.shape,
                grad[i : i + 1].double(),
                geometry.stride,
                geometry.padding,
                geometry.dilation,
                geometry.groups,
            )
            for i in range(len(x))
        ]
    )
    for name, method in methods.items():
        by_weight = method()
        torch.testing.assert_close(by_weight.double(), expected, rtol=1e-5, atol=1e-4, msg=name)
        assert by_weight.data_ptr() == into.data_ptr()
        rows = as_rows(by_weight)
        assert rows.data_ptr() == into.data_ptr(), "norms and sums would copy"
    if geometry.groups == 1:
        total = summed_columns(x, grad, weight, geometry)
        torch.testing.assert_close(total.double(), expected.sum(0), rtol=1e-5, atol=1e-4)
        norms = ghost_squared_norms(x, grad, weight, geometry)
        torch.testing.assert_close(
            norms.double(), expected.square().sum((1, 2, 3, 4)), rtol=1e-6, atol=1e-6
        )


def test_ghost_norm_survives_cancellation() -> None:
    # Output gradients of opposite sign at equal patches: the gradient is tiny, its terms are not.
    x = torch.ones(1, 64, 2, 1) + 1e-3 * torch.randn(1, 64, 2, 1)
    grad = torch.tensor([1.0, -1.0]).view(1, 1, 2, 1).repeat(1, 64, 1, 1)
    geometry = Geometry(stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1)
    weight = torch.zeros(64, 64, 1, 1)
    assert ghost_fits(2, weight, geometry)
    expected = torch.einsum("bohw,bihw->boi", grad.double(), x.double()).square().sum()
    found = ghost_squared_norms(x, grad, weight, geometry).double()
    assert abs(found / expected - 1) < 1e-6


def test_small_maps_use_the_ghost_norm_and_agree() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1),
        nn.Tanh(),
        nn.Conv2d(16, 16, 3, padding=1, dilation=1),
        nn.Tanh(),
        nn.Conv2d(16, 16, 3, padding=(2, 0), stride=(2, 1), dilation=(2, 1)),
    )
    x = torch.randn(4, 3, 7, 8)
    engine = LayerwiseEngine(model, trainable(model), benchmark=False)
    found = engine.per_example_gradients(lambda: per_image_loss(model, x))
    assert "ghost" in engine._selection.chosen.values()
    assert_same(found, one_by_one(model, x), trainable(model), images=4)


def test_input_without_images_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(2, 2, 3))
    engine = LayerwiseEngine(model, trainable(model))
    with pytest.raises(UnsupportedLayerError, match="0: input of shape"):
        engine.per_example_gradients(lambda: model(torch.randn(2, 5, 5)).flatten(1).sum(1))
