"""Engines on a model: it is left as it was, and only what was asked for is worked out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from discreet.clipping import FlatClipping
from discreet.errors import ModelError
from discreet.gradients import LayerwiseEngine, make_engine
from tests.gradients.engines import ALL, EXACT, small, snapshot
from tests.gradients.oracle import assert_same, one_by_one, per_image_loss, trainable


@ALL
def test_the_model_is_left_as_it_was(name: str) -> None:
    model = small()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    model[7].weight.requires_grad_(False)
    model[3].forward = model[3].forward  # an override of someone else's
    before = snapshot(model)
    engine = make_engine(name, model, {"4.bias": model[4].bias, "0.weight": model[0].weight})
    gradients = engine.per_example_gradients(lambda: per_image_loss(model, torch.randn(3, 3, 8, 8)))
    gradients.weighted_sum(dict.fromkeys(gradients.squared_norms, torch.ones(3)))
    assert snapshot(model) == before


@ALL
@pytest.mark.parametrize("when", ["first", "later", "shape"])
def test_the_model_is_left_as_it_was_on_errors(name: str, when: str) -> None:
    model = small()
    engine = make_engine(name, model, trainable(model))
    x = torch.randn(3, 3, 8, 8)
    if when == "later":
        engine.per_example_gradients(lambda: per_image_loss(model, x))
    before = snapshot(model)

    def losses() -> Tensor:
        values = per_image_loss(model, x)
        if when == "shape":
            return values.sum()
        raise KeyError("labels")

    with pytest.raises(ModelError if when == "shape" else KeyError):
        engine.per_example_gradients(losses)
    assert snapshot(model) == before


@ALL
def test_only_the_asked_parameters_get_work(name: str) -> None:
    model = small()
    asked = {"3.weight": model[3].weight, "7.bias": model[7].bias}
    reached: list[str] = []

    def losses() -> Tensor:
        x = torch.randn(2, 3, 8, 8)
        for layer, module in model.named_children():
            x = module(x)
            if x.requires_grad:
                x.register_hook(lambda _, layer=layer: reached.append(layer))
            # The layer-wise engine first looks at the model without a graph.
            assert x.requires_grad == (int(layer) >= 3 and torch.is_grad_enabled())
        return x.square().sum(1)

    gradients = make_engine(name, model, asked).per_example_gradients(losses)
    assert list(gradients.squared_norms) == list(asked)
    assert set(reached) == {"3", "4", "5", "6", "7"}


@ALL
def test_unused_parameters_have_zero_gradients(name: str) -> None:
    model = nn.ModuleDict({"used": nn.Linear(3, 2), "unused": nn.Linear(3, 2)})
    x = torch.randn(4, 3)
    gradients = make_engine(name, model, trainable(model)).per_example_gradients(
        lambda: model["used"](x).sum(1)
    )
    assert gradients.squared_norms["unused.weight"].tolist() == [0, 0, 0, 0]
    sums = gradients.weighted_sum(dict.fromkeys(trainable(model), torch.ones(4)))
    assert sums["unused.weight"].shape == (2, 3)
    assert not sums["unused.weight"].any()
    assert sums["used.weight"].any()


@ALL
def test_a_layer_that_does_not_reach_the_loss_has_zero_gradients(name: str) -> None:
    model = nn.ModuleDict({"used": nn.Linear(3, 2), "dropped": nn.Linear(3, 2)})
    x = torch.randn(4, 3)

    def losses() -> Tensor:
        model["dropped"](x)
        return model["used"](x).sum(1)

    gradients = make_engine(name, model, trainable(model)).per_example_gradients(losses)
    assert gradients.squared_norms["dropped.weight"].tolist() == [0, 0, 0, 0]


@ALL
def test_an_empty_batch_has_no_gradients(name: str) -> None:
    model = small()
    gradients = make_engine(name, model, trainable(model)).per_example_gradients(
        lambda: torch.zeros(0)
    )
    assert all(norms.shape == (0,) for norms in gradients.squared_norms.values())
    sums = FlatClipping(max_grad_norm=1.0).clip_and_sum(gradients).sums
    for parameter_name, parameter in trainable(model).items():
        assert sums[parameter_name].shape == parameter.shape
        assert not sums[parameter_name].any()


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), (3, 8, 8)),
        (nn.ConvTranspose2d(3, 4, 2), (3, 8, 8)),
        (nn.Linear(3, 4), (5, 3)),
        (nn.GroupNorm(2, 4), (4, 8, 8)),
        (nn.LayerNorm(3), (5, 3)),
        (nn.BatchNorm2d(4).eval(), (4, 8, 8)),
        (nn.PReLU(), (4, 8, 8)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_layers_run_on_an_empty_batch(layer: nn.Module, shape: tuple[int, ...]) -> None:
    engine = LayerwiseEngine(layer, trainable(layer))
    for _ in range(2):
        found = engine.per_example_gradients(
            lambda: layer(torch.randn(0, *shape)).flatten(1).sum(1)
        )
        assert all(norms.shape == (0,) for norms in found.squared_norms.values())


@pytest.mark.parametrize("layer", [nn.Linear(3, 3), nn.LayerNorm(3), nn.BatchNorm1d(3).eval()])
def test_the_input_may_be_given_by_name(layer: nn.Module) -> None:
    engine = LayerwiseEngine(layer, trainable(layer))
    found = engine.per_example_gradients(lambda: layer(input=torch.randn(4, 3)).sum(1))
    assert all(bool(norms.any()) for norms in found.squared_norms.values())


@EXACT
def test_batches_of_any_size_follow_each_other(name: str) -> None:
    model = small()
    engine = make_engine(name, model, trainable(model))
    for images in (1, 3, 2, 7, 1, 4):
        x = torch.randn(images, 3, 8, 8)
        found = engine.per_example_gradients(lambda x=x: per_image_loss(model, x))
        assert_same(found, one_by_one(model, x), trainable(model), images=images)


@EXACT
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_an_image_that_is_not_finite_leaves_the_others_alone(name: str, poison: float) -> None:
    # Large maps are held, small ones recomputed; both kinds of layers are here.
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.SiLU(),
        nn.Conv2d(4, 16, 3, stride=5),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.GroupNorm(2, 16),
        nn.Conv2d(16, 4, 1),
        nn.Flatten(),
        nn.Linear(4 * 9, 8),
        nn.LayerNorm(8),
    ).eval()
    x = torch.randn(5, 3, 16, 16)
    poisoned = x.clone()
    poisoned[1, 0, 3, 3] = poison
    parameters, weights = trainable(model), torch.tensor([1.0, 0.0, 0.5, 0.0, 2.0])
    engine = make_engine(name, model, parameters)
    for _ in range(2):
        clean = engine.per_example_gradients(lambda: per_image_loss(model, x))
        found = engine.per_example_gradients(lambda: per_image_loss(model, poisoned))
        total = torch.stack(list(found.squared_norms.values())).sum(0)
        assert torch.isfinite(total).tolist() == [True, False, True, True, True]
        expected = clean.weighted_sum(dict.fromkeys(parameters, weights))
        sums = found.weighted_sum(dict.fromkeys(parameters, weights))
        for parameter in parameters:
            torch.testing.assert_close(sums[parameter], expected[parameter], rtol=1e-5, atol=1e-5)
        clipped = FlatClipping(max_grad_norm=1e-3).clip_and_sum(found)
        assert clipped.non_finite == 1
        assert all(bool(torch.isfinite(s).all()) for s in clipped.sums.values())
        nothing = found.weighted_sum(dict.fromkeys(parameters, torch.zeros(5)))
        assert not any(s.any() for s in nothing.values())


def test_nothing_asked_is_nothing_done() -> None:
    model = small()
    found = LayerwiseEngine(model, {}).per_example_gradients(
        lambda: per_image_loss(model, torch.randn(2, 3, 8, 8))
    )
    assert dict(found.squared_norms) == {}
    assert found.weighted_sum({}) == {}
