"""Low-rank products beside convolutions: nothing changes at first, and stock layers at the end."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from discreet.yolo.low_rank import LowRank, fold_low_rank
from discreet.yolo.parts import LOW_RANK_LR, make_parts, rate_factors, select_trainable
from discreet.yolo.release import releasable

from .conftest import IMGSZ, contributions, make_batch, make_model, relative, trained

TRAINABLE = "class_film+class_low_rank+classes"


def outputs(model: nn.Module) -> torch.Tensor:
    image = torch.rand(2, 3, IMGSZ, IMGSZ, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        return deepcopy(model).eval()(image)[0]


def moved(model: nn.Module) -> None:
    with torch.no_grad():
        for parameter in select_trainable(model, "class_low_rank", imgsz=IMGSZ).values():
            parameter.add_(torch.randn(parameter.shape) * 0.5)


@pytest.fixture
def model() -> nn.Module:
    model = make_model()
    make_parts(model, TRAINABLE, imgsz=IMGSZ)
    return model


def test_the_detector_is_the_same_until_it_trains_and_after_folding(model: nn.Module):
    plain = make_model()
    names = [name for name, _ in plain.named_parameters()]
    assert torch.allclose(outputs(model), outputs(plain), atol=1e-5)
    moved(model)
    with_products = outputs(model)
    change = float((with_products - outputs(plain)).abs().max())
    fold_low_rank(model)
    assert [name for name, _ in model.named_parameters()] == names
    assert float((outputs(model) - with_products).abs().max()) < 0.01 * change


def test_every_process_begins_with_the_same_numbers(model: nn.Module):
    torch.manual_seed(99)
    other = make_model()
    torch.manual_seed(7)
    make_parts(other, TRAINABLE, imgsz=IMGSZ)
    mine, theirs = (
        torch.cat([m.down.weight.flatten() for m in each.modules() if isinstance(m, LowRank)])
        for each in (model, other)
    )
    assert torch.equal(mine, theirs)
    assert len(mine.unique()) == len(mine)  # and each convolution with its own


def test_only_the_way_to_the_class_scores_of_needed_levels_gets_one(model: nn.Module):
    places = {n for n, m in model.named_modules() if isinstance(m, LowRank)}
    head = str(len(model.model) - 1)
    feeding = str(model.model[-1].f[0])
    assert places and {n.split(".")[1] for n in places} == {feeding, head}
    assert all(".cv3." in n for n in places if n.split(".")[1] == head)
    last = {f"model.{head}.cv3.{level}.2" for level in range(3)}
    assert not places & last  # the last convolution trains whole
    names = select_trainable(model, TRAINABLE, imgsz=IMGSZ)
    assert not [n for n in names if n.endswith(".conv.conv.weight")]


def test_factors_have_a_rate_of_their_own(model: nn.Module):
    found = rate_factors(model, norm_lr=0.6)
    thin = {name for name in found if ".up." in name or ".down." in name}
    assert {found[name] for name in thin} == {LOW_RANK_LR}
    assert {found[name] for name in found.keys() - thin} == {0.6}


def test_gradients_are_those_of_each_image(model: nn.Module):
    moved(model)
    select_trainable(model, TRAINABLE, imgsz=IMGSZ)
    batch = make_batch([3, 0, 5])
    own, reference = (contributions(model, batch, engine) for engine in ("discreet", "reference"))
    assert trained(model) and relative(own, reference) < 1e-5


def test_what_is_released_has_stock_layers_only(model: nn.Module):
    moved(model)
    released = releasable(model, args={})
    assert not [m for m in released.modules() if type(m).__module__.startswith("discreet")]
    assert torch.allclose(outputs(released.float()), outputs(model), atol=2e-2)  # half precision
    assert [m for m in model.modules() if isinstance(m, LowRank)]  # left as it was
