"""Losses that do more than run the model: gradients, checkpoints, transforms, compilation."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from discreet.errors import UnsupportedLayerError
from discreet.gradients import LayerwiseEngine
from tests.gradients.oracle import Loss, assert_same, one_by_one, per_image_loss, trainable
from tests.gradients.rules.test_norms import randomise

IMAGES = (4, 3, 8, 8)


class Scaled(nn.Module):
    """Owns a parameter itself, so it has no rule."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(32, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


@pytest.fixture
def model() -> nn.Sequential:
    return randomise(  # pyright: ignore[reportReturnType]
        nn.Sequential(
            nn.Conv2d(3, 32, 3),
            nn.BatchNorm2d(32),
            nn.SiLU(),
            Scaled(),
            nn.Conv2d(32, 32, 3),
            nn.GroupNorm(2, 32),
            nn.Flatten(),
            nn.Linear(32 * 16, 5),
        )
    ).eval()


def agree(model: nn.Module, loss: Loss) -> None:
    engine, x = LayerwiseEngine(model, trainable(model)), torch.randn(IMAGES)
    expected = one_by_one(model, x, loss)
    for _ in range(3):
        found = engine.per_example_gradients(lambda: loss(model, x))
        assert_same(found, expected, trainable(model), images=len(x))


def perturbation(model: nn.Module, x: Tensor) -> Tensor:
    """Ascent by one signed gradient, as in adversarial training."""
    moved = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(per_image_loss(model, moved).sum(), moved)
    return x + 0.1 * torch.where(grad > 0, 1.0, -1.0)


@pytest.mark.parametrize("always", [True, False])
def test_gradients_of_inputs_leave_the_records_alone(model: nn.Module, always: bool) -> None:
    def loss(model: nn.Module, x: Tensor) -> Tensor:
        if not always:
            return per_image_loss(model, perturbation(model, x))
        with torch.enable_grad():
            x = perturbation(model, x)
        return per_image_loss(model, x)

    agree(model, loss)


def refused(model: nn.Module, losses: Callable[[], Tensor], message: str) -> None:
    engine = LayerwiseEngine(model, trainable(model))
    for _ in range(2):
        with pytest.raises(UnsupportedLayerError, match=message):
            engine.per_example_gradients(losses)


def test_gradients_of_gradients_are_refused(model: nn.Module) -> None:
    x = torch.randn(IMAGES)

    def losses() -> Tensor:
        with torch.enable_grad():
            moved = x.clone().requires_grad_()
            values = per_image_loss(model, moved)
            (grad,) = torch.autograd.grad(values.sum(), moved, create_graph=True)
        return values + grad.flatten(1).square().sum(1)

    refused(model, losses, "7: gradients of gradients")


@pytest.mark.parametrize("how", ["grad", "backward"])
def test_gradients_of_parameters_inside_the_losses_are_refused(model: nn.Module, how: str) -> None:
    x = torch.randn(IMAGES)

    def losses() -> Tensor:
        values = per_image_loss(model, x)
        with torch.enable_grad():
            total = per_image_loss(model, x).sum()
            if how == "backward":
                total.backward()
                return values
            weight = model[4].weight  # pyright: ignore[reportIndexIssue]
            (grad,) = torch.autograd.grad(total, weight, allow_unused=True)
        return values if grad is None else values * grad.square().sum()

    refused(model, losses, "[47]: the losses ask for the gradient of its parameters")


@pytest.mark.parametrize("first", [0, 1, 2, 4])
def test_checkpoints_change_nothing(model: nn.Sequential, first: int) -> None:
    def loss(model: nn.Module, x: Tensor) -> Tensor:
        def run(x: Tensor) -> Tensor:
            front, back = model[:first], model[first:]  # pyright: ignore[reportIndexIssue]
            return checkpoint(back, front(x), use_reentrant=False)  # pyright: ignore

        return per_image_loss(run, x)  # pyright: ignore[reportArgumentType]

    agree(model, loss)


def test_saved_tensors_may_be_kept_elsewhere(model: nn.Module) -> None:
    def loss(model: nn.Module, x: Tensor) -> Tensor:
        with torch.autograd.graph.save_on_cpu():
            return per_image_loss(model, x)

    agree(model, loss)


def test_reentrant_checkpoints_are_refused(model: nn.Sequential) -> None:
    x = torch.randn(IMAGES)

    def losses() -> Tensor:
        return checkpoint(model[4:], model[:4](x), use_reentrant=True).sum(1)  # pyright: ignore

    refused(model, losses, "reentrant checkpoints")


def test_a_vectorised_layer_with_a_rule_is_refused() -> None:
    model, x = nn.Sequential(nn.Linear(3, 3)), torch.randn(4, 5, 3)
    message = "0: it runs inside a torch.func transform"
    refused(model, lambda: torch.vmap(model[0])(x).sum((1, 2)), message)


@pytest.mark.parametrize("whole", [True, False])
def test_a_compiled_module_is_refused(model: nn.Module, whole: bool) -> None:
    if whole:
        compiled = torch.compile(model, backend="eager")
    else:
        compiled = nn.Sequential(model)
        model[4].compile(backend="eager")  # pyright: ignore[reportIndexIssue]
    with pytest.raises(
        UnsupportedLayerError, match=r"(_orig_mod\.0|0\.4): it is inside a compiled"
    ):
        LayerwiseEngine(compiled, trainable(compiled))  # pyright: ignore


def test_errors_of_pytorch_say_which_layer_met_them(model: nn.Module) -> None:
    engine = LayerwiseEngine(model, trainable(model))
    with warnings.catch_warnings(), pytest.raises(RuntimeError) as caught:
        engine.per_example_gradients(lambda: per_image_loss(model, torch.randn(4, 3, 9, 9)))
    assert caught.value.__notes__ == ["in layer 7"]
