from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from discreet.errors import UnsupportedLayerError
from discreet.gradients import LayerwiseEngine
from tests.gradients.oracle import Loss, assert_same, one_by_one, per_image_loss, trainable
from tests.gradients.rules.test_norms import randomise

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    SCRIPTED = torch.jit.script(torch.nn.functional.silu)


HIDDEN = (
    "in place",
    "without norm",
    "norm without graph",
    "twice normalised",
    "in the graph only",
    "scripted",
    "unseen by Python",
    "custom function",
    "swallowed",
)


class Sine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.ops.aten.sin(x)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0] * ctx.saved_tensors[0].cos()


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.last = nn.Conv2d(4, 2, 1)
        self.branch = "plain"
        self.seen: list[Tensor] = []

    def normalised(self, x: Tensor) -> Tensor:
        """What reaches the last layer, by a branch that only gradients can tell from the pair."""
        z = self.conv(x)
        if self.branch == "in place":
            z.mul_(2)
        if self.branch == "without norm":
            return z
        if self.branch == "norm without graph":
            with torch.no_grad():
                return self.norm(z) + self.norm.bias.view(-1, 1, 1)
        if self.branch == "twice normalised":
            return self.norm(z) + self.norm(z)
        y = self.norm(z)
        if self.branch == "in the graph only" and torch.is_grad_enabled():
            return y + z
        if self.branch == "scripted":
            return y + SCRIPTED(z)
        if self.branch == "unseen by Python":
            with torch._C.DisableTorchFunction():
                return y + z * 3
        if self.branch == "custom function":
            return y + Sine.apply(z)
        if self.branch == "swallowed":
            try:
                return y + z
            except Exception:
                return y
        return y

    def forward(self, x: Tensor) -> Tensor:
        if self.branch in HIDDEN:
            return self.last(self.normalised(x.clone()))
        z = self.conv(x)
        if self.branch == "added":
            return self.last(self.norm(z) + z)
        if self.branch == "second layer":
            return self.last(self.norm(z)) + self.last(z)
        if self.branch == "detached":
            return self.last(self.norm(z) * z.detach().sigmoid())
        if self.branch == "in a list":
            return self.last(self.norm(z)) + torch.cat([z, z], 1)[:, :2]
        if self.branch == "attribute":
            return self.last(self.norm(z)) * float(z.shape[1])
        if self.branch == "activated":
            return self.last(self.norm(z.tanh()))
        if self.branch == "twice":
            return self.last(self.norm(z) + self.norm(self.conv(x * 2)))
        if self.branch == "functional":
            return F.conv2d(self.norm(z), z.mean((0, 2, 3)).detach().view(1, 4, 1, 1)) * self.last(
                z
            )
        return self.last(self.norm(z))


def agree(
    engine: LayerwiseEngine, model: nn.Module, x: Tensor, loss: Loss = per_image_loss
) -> None:
    found = engine.per_example_gradients(lambda: loss(model, x))
    assert_same(found, one_by_one(model, x, loss), trainable(model), images=len(x))


def folded(engine: LayerwiseEngine) -> set[str]:
    return {key[0] for key in (*engine._selection.chosen, *engine._selection._pending)}


@pytest.fixture
def pair() -> Pair:
    return randomise(Pair()).eval()  # pyright: ignore[reportReturnType]


IMAGES = (4, 3, 16, 16)


def test_a_pair_is_folded(pair: Pair) -> None:
    engine, x = LayerwiseEngine(pair, trainable(pair)), torch.randn(IMAGES)
    for _ in range(2):
        agree(engine, pair, x)
        assert "folded" in folded(engine)


def test_a_pair_on_a_small_map_is_not_folded(pair: Pair) -> None:
    engine, x = LayerwiseEngine(pair, trainable(pair)), torch.randn(4, 3, 2, 2)
    agree(engine, pair, x)
    assert "folded" not in folded(engine)


@pytest.mark.parametrize(
    "branch", ["added", "second layer", "detached", "in a list", "activated", "twice"]
)
def test_an_output_that_goes_elsewhere_too_is_not_folded(pair: Pair, branch: str) -> None:
    pair.branch = branch
    engine, x = LayerwiseEngine(pair, trainable(pair)), torch.randn(IMAGES)
    for _ in range(3):
        agree(engine, pair, x)
    assert "folded" not in folded(engine)


def test_the_shape_of_an_output_may_be_asked(pair: Pair) -> None:
    pair.branch = "attribute"
    engine, x = LayerwiseEngine(pair, trainable(pair)), torch.randn(IMAGES)
    for _ in range(2):
        agree(engine, pair, x)
        assert "folded" in folded(engine)


@pytest.mark.parametrize("hooked", ["conv", "norm"])
def test_hooks_keep_a_pair_apart(pair: Pair, hooked: str) -> None:
    seen: list[Tensor] = []
    getattr(pair, hooked).register_forward_hook(lambda *call: seen.append(call[2]))
    engine, x = LayerwiseEngine(pair, trainable(pair)), torch.randn(IMAGES)
    for _ in range(2):
        engine.per_example_gradients(lambda: per_image_loss(pair, x))
    torch.testing.assert_close(seen[0], seen[1])
    assert "folded" not in folded(engine)


def test_a_model_that_takes_another_way_later_is_unfolded(pair: Pair) -> None:
    engine, x = LayerwiseEngine(pair, trainable(pair)), torch.randn(IMAGES)
    agree(engine, pair, x)
    agree(engine, pair, x)
    assert "folded" in folded(engine)
    pair.branch = "activated"
    agree(engine, pair, x)
    pair.branch = "added"
    agree(engine, pair, x)


def test_half_precision_is_not_folded(pair: Pair) -> None:
    engine, x = LayerwiseEngine(pair, trainable(pair)), torch.randn(IMAGES)

    def losses() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return per_image_loss(pair, x).float()

    for _ in range(2):
        engine.per_example_gradients(losses)
    assert "folded" not in folded(engine)


def test_a_frozen_convolution_is_not_folded(pair: Pair) -> None:
    pair.conv.requires_grad_(False)
    engine, x = LayerwiseEngine(pair, trainable(pair)), torch.randn(IMAGES)
    for _ in range(2):
        agree(engine, pair, x)
    assert "folded" not in folded(engine)


def test_a_frozen_norm_is_folded(pair: Pair) -> None:
    pair.norm.requires_grad_(False)
    engine, x = LayerwiseEngine(pair, trainable(pair)), torch.randn(IMAGES)
    for _ in range(2):
        agree(engine, pair, x)
    assert "folded" in folded(engine)


@pytest.mark.parametrize("branch", [*HIDDEN, "added", "detached"])
@pytest.mark.parametrize("before", [0, 2])
def test_a_pair_is_folded_only_while_it_is_one(pair: Pair, branch: str, before: int) -> None:
    engine, x = LayerwiseEngine(pair, trainable(pair)), torch.randn(IMAGES)
    for _ in range(before):
        agree(engine, pair, x)
    pair.branch = branch
    for _ in range(2):
        agree(engine, pair, x)
    pair.branch = "plain"
    agree(engine, pair, x)


@pytest.mark.parametrize("hooked", ["conv", "norm"])
@pytest.mark.parametrize("kind", ["feature", "changed", "gradient"])
def test_a_hook_added_later_parts_a_pair(pair: Pair, hooked: str, kind: str) -> None:
    engine, x = LayerwiseEngine(pair, trainable(pair)), torch.randn(IMAGES)
    agree(engine, pair, x)
    features: list[Tensor] = []

    def hook(_module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor | None:
        if kind == "feature":
            features[:] = [inputs[0], output]
        if kind == "gradient":
            output.register_hook(lambda grad: grad * 2)
        return output * 2 + inputs[0].mean((1, 2, 3), keepdim=True) if kind == "changed" else None

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        values = per_image_loss(model, x)
        return values + sum(f.flatten(1).square().sum(1) for f in features)

    getattr(pair, hooked).register_forward_hook(hook)
    if kind != "gradient":
        for _ in range(2):
            agree(engine, pair, x, loss)
        return
    fresh = LayerwiseEngine(pair, trainable(pair)).per_example_gradients(
        lambda: per_image_loss(pair, x)
    )
    found = engine.per_example_gradients(lambda: per_image_loss(pair, x))
    assert_same(found, fresh, trainable(pair), images=len(x))


def test_an_output_kept_for_later_is_computed_or_an_error(pair: Pair) -> None:
    engine, x = LayerwiseEngine(pair, trainable(pair)), torch.randn(IMAGES)
    kept: list[Tensor] = []

    class Keeping(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            kept[:] = [x]
            return x

    agree(engine, pair, x)
    pair.conv = nn.Sequential(pair.conv, Keeping())  # pyright: ignore[reportAttributeAccessIssue]
    wrapped = LayerwiseEngine(pair, trainable(pair))
    wrapped.per_example_gradients(lambda: per_image_loss(pair, x))
    torch.testing.assert_close(kept[0], pair.conv[0](x))  # pyright: ignore[reportIndexIssue]


def test_an_output_read_after_the_pass_is_an_error_that_names_it(pair: Pair) -> None:
    kept: list[Tensor] = []
    engine, x = LayerwiseEngine(pair, trainable(pair)), torch.randn(IMAGES)

    def losses() -> Tensor:
        z = pair.conv(x)
        if torch.is_grad_enabled():
            kept[:] = [z]
        return pair.last(pair.norm(z)).square().sum((1, 2, 3))

    engine.per_example_gradients(losses)
    with pytest.raises(UnsupportedLayerError, match="conv: its output was not computed"):
        kept[0].sum()
    engine.per_example_gradients(losses)
    torch.testing.assert_close(kept[0], pair.conv(x))


def test_only_the_bias_of_a_folded_convolution(pair: Pair) -> None:
    bias = {"conv.bias": pair.conv.bias}
    for name, parameter in pair.named_parameters():
        parameter.requires_grad_(name in bias)
    engine, x = LayerwiseEngine(pair, bias), torch.randn(IMAGES)  # pyright: ignore
    for _ in range(2):
        agree(engine, pair, x)


@pytest.mark.parametrize("changed", ["input", "weight"])
def test_a_change_between_convolution_and_norm_is_an_error_as_without_folding(
    pair: Pair, changed: str
) -> None:
    engine, x = LayerwiseEngine(pair, trainable(pair)), torch.randn(IMAGES)
    agree(engine, pair, x)

    def losses() -> Tensor:
        given = x.clone()
        z = pair.conv(given)
        with torch.no_grad():
            (given if changed == "input" else pair.conv.weight).mul_(2)
        return pair.last(pair.norm(z)).square().sum((1, 2, 3))

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        engine.per_example_gradients(losses)
