from __future__ import annotations

import copy
import gc
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from discreet.clipping import FlatClipping
from discreet.errors import ModelError, UnsupportedLayerError
from discreet.gradients import ENGINES, LayerwiseEngine, OpacusEngine, Units, make_engine
from discreet.gradients.records import Held, RecordedGradients
from tests.gradients.oracle import assert_same, one_by_one, per_image_loss, trainable
from tests.gradients.rules.test_norms import randomise

ALL = pytest.mark.parametrize("name", list(ENGINES))
EXACT = pytest.mark.parametrize("name", ["discreet", "opacus"])


def small() -> nn.Sequential:
    return randomise(  # pyright: ignore[reportReturnType]
        nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4),
            nn.SiLU(inplace=True),
            nn.Conv2d(4, 4, 3, stride=2),
            nn.GroupNorm(2, 4),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(4 * 9, 5),
        )
    ).eval()


def snapshot(model: nn.Module) -> list[Any]:
    modules = [(dict(vars(m)), m.training) for m in model.modules()]
    inside = [
        {key: list(value) for key, value in vars(m).items() if key.endswith("hooks")}
        for m in model.modules()
    ]
    tensors = [
        (id(p), p.requires_grad, id(p.grad), p._version, dict(vars(p)), p._backward_hooks)
        for p in (*model.parameters(), *model.buffers())
    ]
    return [modules, inside, tensors]


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


def test_a_norm_put_in_training_mode_by_the_losses_is_refused() -> None:
    model = small()
    engine = LayerwiseEngine(model, trainable(model))

    def losses() -> Tensor:
        model[1].train()
        return per_image_loss(model, torch.randn(2, 3, 8, 8))

    with pytest.raises(ModelError, match="1: batch normalisation by the statistics"):
        engine.per_example_gradients(losses)


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


@ALL
def test_batch_statistics_are_refused(name: str) -> None:
    model = small()
    engine = make_engine(name, model, {"7.weight": model[7].weight})
    model[1].requires_grad_(False).train()  # frozen, but normalising by the batch
    with pytest.raises(ModelError, match="1: batch normalisation by the statistics of the batch"):
        engine.per_example_gradients(lambda: per_image_loss(model, torch.randn(2, 3, 8, 8)))
    without = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2, track_running_stats=False)).eval()
    with pytest.raises(ModelError, match="batch normalisation"):
        make_engine(name, without, trainable(without)).per_example_gradients(
            lambda: per_image_loss(without, torch.randn(2, 3, 8, 8))
        )


@ALL
def test_running_statistics_of_instances_are_refused(name: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.InstanceNorm2d(2, track_running_stats=True))
    with pytest.raises(ModelError, match="1: running statistics"):
        make_engine(name, model, trainable(model)).per_example_gradients(
            lambda: per_image_loss(model, torch.randn(2, 3, 8, 8))
        )


@ALL
@pytest.mark.parametrize("losses", [torch.zeros(2, 2), torch.tensor(1.0), torch.zeros(2).long()])
def test_anything_but_a_loss_per_image_is_refused(name: str, losses: Tensor) -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(ModelError, match="expected one loss per image"):
        make_engine(name, model, trainable(model)).per_example_gradients(lambda: losses)


@ALL
def test_parameters_of_another_model_are_refused(name: str) -> None:
    with pytest.raises(ModelError, match="weight: not a parameter of this model"):
        make_engine(name, nn.Linear(2, 2), trainable(nn.Linear(2, 2)))


class UsedDirectly(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) @ self.linear.weight


@EXACT
def test_a_parameter_used_outside_its_layer_is_refused(name: str) -> None:
    model = UsedDirectly()
    engine = make_engine(name, model, trainable(model))
    with pytest.raises(UnsupportedLayerError, match=r"linear\.weight"):
        engine.per_example_gradients(lambda: per_image_loss(model, torch.randn(4, 3)))


def test_losses_that_mix_images_are_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 3))
    engine = LayerwiseEngine(model, trainable(model))

    def losses() -> Tensor:
        values = per_image_loss(model, torch.randn(4, 3))
        return values / values.sum()

    with pytest.raises(UnsupportedLayerError, match="0: the loss of one image depends on another"):
        engine.per_example_gradients(losses)


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


def test_nothing_asked_is_nothing_done() -> None:
    model = small()
    found = LayerwiseEngine(model, {}).per_example_gradients(
        lambda: per_image_loss(model, torch.randn(2, 3, 8, 8))
    )
    assert dict(found.squared_norms) == {}
    assert found.weighted_sum({}) == {}


def test_opacus_removes_its_hooks_when_it_refuses_a_model() -> None:
    class Buffered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))
            self.register_buffer("shift", torch.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.scale + self.shift

    model = nn.Sequential(nn.Linear(3, 3), Buffered())
    before = snapshot(model)
    with pytest.raises(UnsupportedLayerError, match="Opacus refuses a layer"):
        OpacusEngine(model, trainable(model)).per_example_gradients(
            lambda: per_image_loss(model, torch.randn(2, 3))
        )
    assert snapshot(model) == before


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


@ALL
@pytest.mark.parametrize(
    ("index", "message"),
    [
        (torch.tensor([0, 1]), "expected the unit of each of 3 images"),
        (torch.tensor([0.0, 1.0, 1.0]), "int64"),
        (torch.tensor([0, 1, 2]), r"units in 0 … 1, got 0 … 2"),
        (torch.tensor([0, -1, 1]), "got -1 … 1"),
    ],
)
def test_an_index_that_is_no_index_of_units_is_refused(
    name: str, index: Tensor, message: str
) -> None:
    model = nn.Linear(2, 2)
    engine = make_engine(name, model, trainable(model))
    with pytest.raises(ModelError, match=message):
        engine.per_example_gradients(
            lambda: model(torch.ones(3, 2)).sum(1), Units(index=index, count=2)
        )


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
