"""Parts of a step, filled up to one size, so that images run through the same kernels."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from discreet.clipping import FlatClipping
from discreet.gradients import make_engine
from discreet.step import sum_clipped
from discreet.yolo.loss import PerImageLoss
from discreet.yolo.microbatch import even_size, filled, images_in, units_of

from .conftest import make_batch, make_model, trained

CPU = torch.device("cpu")


def part(boxes: list[int], **more: Any) -> dict[str, Any]:
    return {**make_batch(boxes), **more}


@pytest.mark.parametrize(
    ("most", "units", "of_a_unit", "size"),
    [(64, 140, 1, 16), (64, 1000, 2, 64), (16, 140, 1, 16), (64, 41, 1, 8), (64, 24, 1, 8),
     (64, 12, 1, 4), (64, 1, 1, 1), (2, 140, 1, 2), (64, 16, 5, 10), (64, 140, 3, 48),
     (64, 30, 100, 64), (1, 9, 1, 1)],
)  # fmt: skip
def test_several_parts_of_whole_units_that_fit(most: int, units: float, of_a_unit: int, size: int):
    assert even_size(most, units=units, of_a_unit=of_a_unit) == size


@pytest.mark.parametrize("images", [1, 2, 3, 5, 7])
def test_copies_are_whole_images_without_weight(images: int):
    boxes = [3, 0, 12, 1, 2, 0, 4][:images]
    batch = part(boxes, keys=list("abcdefg"[:images]))
    many, units, weights = filled(batch, *units_of(batch, CPU), size=8, device=CPU)
    assert images_in(many) == 8 and units is not None and units.count == images
    assert isinstance(weights, torch.Tensor)
    assert weights.tolist() == [1.0] * images + [0.0] * (8 - images)
    for place in range(8):
        original = place % images
        assert units.index[place] == original and many["keys"][place] == batch["keys"][original]
        assert torch.equal(many["img"][place], batch["img"][original])
        own, its = many["batch_idx"] == place, batch["batch_idx"] == original
        assert torch.equal(many["bboxes"][own], batch["bboxes"][its])
        assert torch.equal(many["cls"][own], batch["cls"][its])


def test_a_copy_belongs_to_the_unit_of_its_image():
    batch = part([1, 2, 3], unit_sizes=[2, 1])
    _, units, weights = filled(batch, *units_of(batch, CPU), size=8, device=CPU)
    assert units is not None and units.count == 2
    assert units.index.tolist() == [0, 0, 1, 0, 0, 1, 0, 0]
    assert isinstance(weights, torch.Tensor)
    assert weights.tolist() == [0.5, 0.5, 1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("size", [2, 3])
def test_whole_parts_and_units_of_more_stay(size: int):
    batch = part([1, 2, 3])
    assert filled(batch, None, 1.0, size=size, device=CPU) == (batch, None, 1.0)


@pytest.mark.parametrize("engine", ["discreet", "opacus"])
@pytest.mark.parametrize("size", [4, 8])
def test_it_changes_no_sum(engine: str, size: int):
    """Nor does an image whose gradient is not finite come into another's, by its copies."""
    model = make_model()
    parameters, loss = trained(model), PerImageLoss(model)
    batch = part([3, 0, 5])
    make = make_engine(engine, model, parameters)
    spoilt = torch.tensor([1.0, 1.0, float("nan")])

    def summed(batch: dict[str, Any], units: Any, weights: Any) -> torch.Tensor:
        bad = spoilt[torch.arange(images_in(batch)) % 3]

        def losses() -> torch.Tensor:
            return loss(model(batch["img"]), batch).sum(1) * weights * bad

        found = sum_clipped(
            [None],
            parameters=parameters,
            gradients_of=lambda _: make.per_example_gradients(losses, units),
            clipping=FlatClipping(max_grad_norm=0.1),
        )
        assert (found.units, found.non_finite) == (3, 1)
        return torch.cat([value.flatten() for value in found.sums.values()])

    plain = summed(batch, None, 1.0)
    assert float(plain.norm()) > 0.1
    assert torch.allclose(
        summed(*filled(batch, None, 1.0, size=size, device=CPU)), plain, atol=1e-6
    )
