from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from discreet.errors import UnsupportedLayerError
from discreet.gradients import LayerwiseEngine
from discreet.gradients.probing import groups
from tests.gradients.oracle import per_image_loss, trainable

Mix = Callable[[Tensor], Tensor]


def halves(y: Tensor) -> Tensor:
    half = len(y) // 2
    return torch.cat([y[:half] + y[half:]] * 2)


MIXES: dict[str, tuple[Mix, int]] = {
    "half batches": (halves, 4),
    "all read the first, 2": (lambda y: y + y[:1], 2),
    "all read the first, 8": (lambda y: y + y[:1], 8),
    "all read the last": (lambda y: y + y[-1:], 3),
    "reversed": (lambda y: y.flip(0), 3),
    "two further": (lambda y: y + y.roll(2, 0), 4),
    "even ones": (lambda y: torch.cat([y[:4], y[4:] + y[:1]]), 5),
    "mean": (lambda y: y - y.mean(0, keepdim=True), 5),
}


class Mixing(nn.Module):
    def __init__(self, mix: Mix) -> None:
        super().__init__()
        self.conv, self.head, self.mix = nn.Conv2d(3, 4, 3), nn.Linear(4, 2), mix
        self.more: nn.Module | None = None

    def forward(self, x: Tensor) -> Tensor:
        x = self.mix(self.conv(x)).mean((2, 3))
        return self.head(x if self.more is None else self.more(x))


def refused(engine: LayerwiseEngine, model: nn.Module, images: int) -> None:
    x = torch.randn(images, 3, 5, 5)
    with pytest.raises(UnsupportedLayerError, match="conv: the loss of one image depends"):
        engine.per_example_gradients(lambda: per_image_loss(model, x))


@pytest.mark.parametrize("kind", list(MIXES))
def test_any_path_from_one_image_to_another_is_seen(kind: str) -> None:
    mix, images = MIXES[kind]
    model = Mixing(mix)
    refused(LayerwiseEngine(model, trainable(model)), model, images)


@pytest.mark.parametrize("reader", range(4))
@pytest.mark.parametrize("read", range(4))
def test_any_pair_of_images_is_separated(reader: int, read: int) -> None:
    def mix(y: Tensor) -> Tensor:
        rows = list(y)
        rows[reader] = rows[reader] + 1e-6 * y[read]
        return torch.stack(rows)

    model = Mixing(mix)
    engine = LayerwiseEngine(model, trainable(model))
    if reader != read:
        refused(engine, model, 4)
    else:
        engine.per_example_gradients(lambda: per_image_loss(model, torch.randn(4, 3, 5, 5)))


@pytest.mark.parametrize("images", [1, 2, 3, 4, 7, 16, 64, 70, 71])
def test_groups_separate_every_ordered_pair(images: int) -> None:
    masks = list(groups(images, torch.device("cpu")))
    assert len(masks) <= {1: 0, 2: 2, 3: 3, 4: 4, 7: 5, 16: 6, 64: 8, 70: 8, 71: 9}[images]
    for i, j in itertools.permutations(range(images), 2):
        assert any(mask[i] and not mask[j] for mask in masks)


def passes(engine: LayerwiseEngine, model: nn.Module, images: int) -> None:
    x = torch.randn(images, 3, 5, 5)
    engine.per_example_gradients(lambda: per_image_loss(model, x))


def test_mixing_that_starts_later_is_seen() -> None:
    model = Mixing(lambda y: y)
    engine = LayerwiseEngine(model, trainable(model))
    for _ in range(2):
        passes(engine, model, 4)
    model.mix = lambda y: y - y.mean(0, keepdim=True)
    refused(engine, model, 4)


def test_mixing_that_starts_with_another_layer_is_seen() -> None:
    model = Mixing(lambda y: y)
    model.more = nn.Identity()
    engine = LayerwiseEngine(model, trainable(model))
    passes(engine, model, 4)
    model.mix = lambda y: y[[1, 0, 2, 3]] if isinstance(model.more, nn.Dropout) else y
    model.more = nn.Dropout(0.0)
    refused(engine, model, 4)


def test_mixing_at_another_batch_size_is_seen() -> None:
    model = Mixing(lambda y: y.flip(0) if len(y) == 3 else y.flip(3))
    engine = LayerwiseEngine(model, trainable(model))
    passes(engine, model, 4)
    refused(engine, model, 3)


def test_the_steady_state_has_no_probe() -> None:
    model = Mixing(lambda y: y)
    engine = LayerwiseEngine(model, trainable(model))
    backwards: list[int] = []
    x = torch.randn(4, 3, 5, 5)

    def losses() -> Tensor:
        values = per_image_loss(model, x)
        if values.requires_grad:
            values.register_hook(lambda grad: backwards.append(len(grad)))
        return values

    for expected in (5, 1, 1):  # four probes, and the pass itself
        backwards.clear()
        engine.per_example_gradients(losses)
        assert len(backwards) == expected
