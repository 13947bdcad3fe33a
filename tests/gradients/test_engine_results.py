"""Engines' results: their precision, what they hold, and what they leave behind."""

from __future__ import annotations

import copy
import gc

import pytest
import torch
from torch import Tensor, nn

from discreet.clipping import FlatClipping
from discreet.gradients import LayerwiseEngine, Units, make_engine
from discreet.gradients.records import Held, RecordedGradients
from tests.gradients.engines import ALL, EXACT, small
from tests.gradients.oracle import assert_same, one_by_one, per_image_loss, trainable
from tests.gradients.rules.test_norms import randomise


@EXACT
def test_norms_are_float32_under_autocast(name: str) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.SiLU(),
        nn.Conv2d(8, 8, 3),
        nn.GroupNorm(2, 8),
        nn.Flatten(),
        nn.Linear(8 * 16, 4),
        nn.LayerNorm(4),
    ).eval()
    x, parameters = torch.randn(4, 3, 8, 8), trainable(model)
    engine = make_engine(name, model, parameters)
    expected = one_by_one(model, x)
    with torch.autocast("cpu", torch.bfloat16):
        for _ in range(2):
            found = engine.per_example_gradients(lambda: per_image_loss(model, x).float())
            sums = found.weighted_sum(dict.fromkeys(parameters, torch.ones(4)))
            for parameter in parameters:
                assert sums[parameter].dtype == torch.float32
                assert found.squared_norms[parameter].dtype == torch.float32
    # bfloat16 has 8 bits: gradients are near the float32 ones, not equal.
    assert_same(found, expected, parameters, images=4, tolerance=0.05)


def test_bfloat16_gradients_are_summed_in_float32() -> None:
    # One weight, many positions with equal terms: a bfloat16 sum would stall at 256.
    model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1)).eval()
    x = torch.ones(2, 1, 64, 64)
    engine = LayerwiseEngine(model, trainable(model))

    def losses() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return model(x).float().sum((1, 2, 3))

    found = engine.per_example_gradients(losses)
    assert found.squared_norms["1.bias"].sqrt().tolist() == [4096, 4096]
    torch.testing.assert_close(
        found.squared_norms["0.weight"].sqrt(), torch.full((2,), 4096.0), rtol=1e-2, atol=0
    )


def test_runs_without_measuring_are_equal() -> None:
    model = small()
    x = torch.randn(4, 3, 8, 8)
    results = []
    for _ in range(2):
        engine = LayerwiseEngine(model, trainable(model), benchmark=False)
        found = engine.per_example_gradients(lambda: per_image_loss(model, x))
        results.append(found.weighted_sum(dict.fromkeys(trainable(model), torch.ones(4))))
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


@ALL
def test_results_carry_no_graph(name: str) -> None:
    model = small()
    x = torch.randn(3, 3, 8, 8)
    engine = make_engine(name, model, trainable(model))
    for _ in range(2):
        found = engine.per_example_gradients(lambda: per_image_loss(model, x))
        sums = found.weighted_sum(dict.fromkeys(found.squared_norms, torch.ones(3)))
        assert not any(norms.requires_grad for norms in found.squared_norms.values())
        assert not any(total.requires_grad for total in sums.values())


@EXACT
def test_a_pass_leaves_no_tensor_behind(name: str) -> None:
    # Records, hooks and autograd's graph could hold each other where Python cannot see it.
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),  # held, folded
        nn.BatchNorm2d(16),
        nn.PReLU(),  # without a rule
        nn.Conv2d(16, 16, 3, stride=4),  # recomputed
        nn.GroupNorm(2, 16),
        nn.Flatten(),
        nn.Linear(16 * 16, 4),
    ).eval()
    x, parameters = torch.randn(3, 3, 16, 16), trainable(model)
    engine = make_engine(name, model, parameters)

    def tensors_after_a_pass() -> int:
        found = engine.per_example_gradients(lambda: per_image_loss(model, x))
        FlatClipping(max_grad_norm=1.0).clip_and_sum(found)
        del found
        gc.collect()
        return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())

    for _ in range(2):
        tensors_after_a_pass()  # measures, folds
    assert tensors_after_a_pass() == tensors_after_a_pass()


def wide() -> nn.Sequential:
    """Large parameters: some of their gradients are held, some computed again."""
    return randomise(  # pyright: ignore[reportReturnType]
        nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.SiLU(inplace=True),
            nn.Conv2d(32, 32, 3, stride=2),
            nn.SiLU(inplace=True),
            nn.Conv2d(32, 24, 3, stride=4),
            nn.Conv2d(24, 24, 3, padding=1),
            nn.Flatten(),
            nn.Linear(24 * 16, 20),
        )
    ).eval()


@ALL
@pytest.mark.parametrize("model", [small(), wide()])
@pytest.mark.parametrize("last", [False, True])
def test_images_of_one_unit_add_before_norms(name: str, model: nn.Module, last: bool) -> None:
    layout = torch.channels_last if last else torch.contiguous_format
    model = copy.deepcopy(model).to(memory_format=layout)  # pyright: ignore[reportCallIssue]
    side = 8 if len(model) < 9 else 32
    x, parameters = torch.randn(5, 3, side, side), trainable(model)
    units = Units(index=torch.tensor([2, 0, 2, 3, 0]), count=4)  # unit 1 has no image
    by_image = one_by_one(model, x)
    held = {n: Held(units.sum(by_image.per_example(n))) for n in parameters}
    expected = RecordedGradients(parameters, held, 4)
    engine = make_engine(name, model, parameters)
    for _ in range(3):
        found = engine.per_example_gradients(lambda: per_image_loss(model, x), units)
        assert_same(found, expected, parameters, images=4)
    if name != "reference":
        x[3] = float("nan")
        found = engine.per_example_gradients(lambda: per_image_loss(model, x), units)
        clipped = FlatClipping(max_grad_norm=1.0).clip_and_sum(found)
        assert (clipped.units, clipped.non_finite) == (4, 1)
        assert all(bool(torch.isfinite(s).all()) for s in clipped.sums.values())


def test_results_of_several_passes_do_not_share_memory() -> None:
    model = wide()
    parameters = trainable(model)
    engine = LayerwiseEngine(model, parameters)
    batches = [torch.randn(n, 3, 32, 32) for n in (4, 4, 3, 4)]
    found = [engine.per_example_gradients(lambda x=x: per_image_loss(model, x)) for x in batches]
    for x, gradients in zip(batches, found, strict=True):
        assert_same(gradients, one_by_one(model, x), parameters, images=len(x))


def test_large_gradients_are_held_from_the_second_pass_on() -> None:
    model = wide()
    x, parameters = torch.randn(4, 3, 32, 32), trainable(model)
    engine = LayerwiseEngine(model, parameters, benchmark=False)
    kinds: list[set[str]] = []
    for _ in range(2):
        found = engine.per_example_gradients(lambda: per_image_loss(model, x))
        assert_same(found, one_by_one(model, x), parameters, images=4)
        kinds.append({type(record).__name__ for record in found._records.values()})
    assert kinds[0] == {"Recomputed", "LinearFactors"}
    assert kinds[1] == {"Held", "Recomputed", "LinearFactors"}
