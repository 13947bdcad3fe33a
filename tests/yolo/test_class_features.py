"""Standardised class features: the same detector, in coordinates that suit noise."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from discreet.yolo.class_features import (
    Standardise,
    fold_classes,
    public_photographs,
    silu_moments,
    standardise_classes,
)
from discreet.yolo.parts import normalisation_parameters, select_trainable
from discreet.yolo.release import releasable

from .conftest import IMGSZ, make_model


def scores(model: nn.Module) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    image = torch.rand(2, 3, IMGSZ, IMGSZ, generator=generator)
    with torch.inference_mode():
        return deepcopy(model).eval()(image)[0][:, 4:]


def settled() -> nn.Module:
    model = make_model()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.3, 1.5)
            nn.init.normal_(module.bias, std=0.5)
    return model


def test_moments_are_those_of_samples():
    gamma, beta = torch.tensor([0.0, 0.5, 2.0, -1.0]), torch.tensor([1.0, -1.0, 0.3, 0.2])
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400_000, 1, generator=generator)
    z = nn.functional.silu(gamma * x + beta)
    mean, scale = silu_moments(gamma, beta)
    assert torch.allclose(mean, z.mean(0), atol=5e-3)
    assert torch.allclose(scale, z.std(0), atol=5e-3)


@pytest.mark.parametrize("photographs", [[], list(public_photographs(IMGSZ))])
def test_standardising_and_folding_back_leave_the_detector_what_it_was(
    photographs: list[torch.Tensor],
):
    model = settled()
    before, names = scores(model), [name for name, _ in model.named_parameters()]
    standardise_classes(model, photographs)
    assert len([m for m in model.modules() if isinstance(m, Standardise)]) == 3
    assert torch.allclose(scores(model), before, atol=1e-5)
    with torch.no_grad():  # training moves it
        for parameter in select_trainable(model, "classes").values():
            parameter.add_(torch.randn(parameter.shape) * 0.3)
    moved = scores(model)
    assert not torch.allclose(moved, before, atol=1e-3)
    fold_classes(model)
    assert [name for name, _ in model.named_parameters()] == names
    assert torch.allclose(scores(model), moved, atol=1e-5)


def test_what_is_released_has_stock_layers_only():
    model = settled()
    standardise_classes(model)
    trained = scores(model)
    model.criterion = nn.Identity()  # RT-DETR's loss is a module, and so one of the model's
    released = releasable(model, args={})
    assert released.criterion is None and "criterion" not in dict(released.named_children())
    assert not [m for m in released.modules() if type(m).__module__.startswith("discreet")]
    assert torch.allclose(scores(released.float()), trained, atol=2e-3)  # half precision
    assert [m for m in model.modules() if isinstance(m, Standardise)]  # left as it was


def test_features_are_close_to_standard_where_batch_norm_is():
    """What the last class convolution sees, for inputs as BatchNorm's statistics have them."""
    model = settled()
    standardise_classes(model)
    for row in model.model[-1].cv3:
        block, standard = row[-2], row[-1][0]
        block = block[-1] if isinstance(block, nn.Sequential) else block
        x = torch.randn(64, block.bn.num_features, 8, 8)
        z = standard(block.act(block.bn.weight[:, None, None] * x + block.bn.bias[:, None, None]))
        assert float(z.detach().mean((0, 2, 3)).abs().max()) < 0.1
        assert float((z.detach().std((0, 2, 3)) - 1).abs().max()) < 0.1


def test_photographs_take_the_correlation_out():
    def spread(photographs: list[torch.Tensor]) -> list[float]:
        """Largest share of the variance in one direction, by level."""
        model = settled().eval()
        standardise_classes(model, photographs)
        seen: list[torch.Tensor] = []
        for row in model.model[-1].cv3:
            row[-1][0].register_forward_hook(lambda _m, _i, output: seen.append(output))
        model([*public_photographs(160)][2])
        variances = [torch.linalg.eigvalsh(torch.cov(z.detach()[0].flatten(1))) for z in seen]
        return [float(each.max() / each.sum()) for each in variances]

    for plain, white in zip(spread([]), spread([*public_photographs(160)]), strict=True):
        assert white < 0.5 * plain


def test_a_model_of_other_channels_does_without_photographs():
    from ultralytics.nn.tasks import DetectionModel

    model = DetectionModel("yolov8n.yaml", ch=1, nc=2, verbose=False)
    standardise_classes(model, public_photographs(64))
    mixing = model.model[-1].cv3[0][-1][0].mixing[:, :, 0, 0]
    assert torch.equal(mixing, torch.diag(mixing.diagonal()))


def test_photographs_are_the_same_every_time():
    first, second = list(public_photographs(IMGSZ)), list(public_photographs(IMGSZ))
    assert len(first) >= 2
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(side % 32 == 0 for image in first for side in image.shape[2:])


@pytest.mark.parametrize("part", ["neck_film", "classes"])
def test_parts_of_the_recipe(part: str):
    model = make_model()
    backbone = len(model.yaml["backbone"])
    last = len(model.model) - 1
    names = set(select_trainable(model, part))
    if part == "classes":
        assert names == {
            f"model.{last}.cv3.{i}.2.{kind}" for i in range(3) for kind in ("weight", "bias")
        }
    else:
        norms = normalisation_parameters(model)
        assert names == {n for n in norms if int(n.split(".")[1]) >= backbone}
        assert names and names < norms
