from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from discreet.gradients import LayerwiseEngine
from tests.gradients.oracle import Loss, assert_same, one_by_one, per_image_loss, trainable
from tests.gradients.rules.test_norms import randomise


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.last = nn.Conv2d(4, 2, 1)
        self.branch = "plain"
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
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
