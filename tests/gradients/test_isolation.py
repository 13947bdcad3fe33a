from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from discreet.errors import ModelError
from discreet.gradients import ENGINES, make_engine
from discreet.gradients.isolation import sound_norm
from tests.gradients.oracle import assert_same, one_by_one, per_image_loss, trainable
from tests.gradients.rules.test_norms import randomise

SHAPE = (1, 4, 5, 5)


def layouts(tensor: Tensor) -> dict[str, Tensor]:
    """The same single image with every stride between images that PyTorch may give it."""
    last = tensor.contiguous(memory_format=torch.channels_last)
    return {
        "contiguous": tensor,
        "channels last": last,
        "small stride": last.as_strided(SHAPE, (4, *last.stride()[1:])),
        "no stride": last.as_strided(SHAPE, (0, *last.stride()[1:])),
    }


@pytest.mark.parametrize("x_layout", list(layouts(torch.zeros(SHAPE))))
@pytest.mark.parametrize("grad_layout", list(layouts(torch.zeros(SHAPE))))
def test_gradients_of_a_norm_do_not_depend_on_layout(x_layout: str, grad_layout: str) -> None:
    norm = randomise(nn.BatchNorm2d(4)).eval()
    x, grad = torch.randn(SHAPE), torch.randn(SHAPE)
    wide = x.double().requires_grad_()
    precise = randomise(nn.BatchNorm2d(4)).eval().double()
    precise.load_state_dict(norm.state_dict())
    precise(wide.repeat(2, 1, 1, 1))[:1].backward(grad.double())
    leaf = x.clone().requires_grad_()
    given = layouts(x)[x_layout].detach().requires_grad_()
    assert torch.equal(given, leaf)
    # A node in between, so that the gradient's layout is the one asked for.
    output = sound_norm(norm)(given)
    torch.autograd.backward(output, layouts(grad)[grad_layout])
    torch.testing.assert_close(given.grad.double(), wide.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(norm.weight.grad.double(), precise.weight.grad, rtol=1e-5, atol=1e-5)


class TokensOut(nn.Module):
    """As in a transformer head: positions become rows, so one image's gradient comes strided."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1, bias=False)
        self.norm = randomise(nn.BatchNorm2d(4)).eval()
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(self.conv(x)).flatten(2).permute(0, 2, 1)
        return self.head(torch.cat((tokens, tokens), 1))


@pytest.mark.parametrize("name", list(ENGINES))
@pytest.mark.parametrize("frozen", [True, False])
def test_one_image_has_the_gradient_it_has_among_others(name: str, frozen: bool) -> None:
    model = TokensOut()
    model.norm.requires_grad_(not frozen)
    x = torch.randn(2, 3, 5, 5)
    engine = make_engine(name, model, trainable(model))

    def norms(images: Tensor) -> dict[str, Tensor]:
        found = engine.per_example_gradients(lambda: model(images).square().sum((1, 2)))
        return dict(found.squared_norms)

    together, alone = norms(x), norms(x[:1])
    for parameter in trainable(model):
        torch.testing.assert_close(alone[parameter][0], together[parameter][0], rtol=1e-4, atol=0)


class Outer(nn.Module):
    """Owns a parameter, so that the norm inside is vectorised with it."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.norm = randomise(nn.BatchNorm2d(8)).eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x) * self.scale


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("frozen", [True, False])
def test_a_norm_inside_a_vectorised_layer_is_right_for_one_image(images: int, frozen: bool) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), Outer(), nn.Conv2d(8, 4, 3))
    model[1].norm.requires_grad_(not frozen)
    for x in (torch.randn(images, 3, 8, 8), torch.randn(images, 8, 8, 3).permute(0, 3, 1, 2)):
        engine = make_engine("discreet", model, trainable(model))
        for _ in range(2):
            found = engine.per_example_gradients(lambda x=x: per_image_loss(model, x))
            assert_same(found, one_by_one(model, x), trainable(model), images=images)


@pytest.mark.parametrize("name", list(ENGINES))
def test_one_tensor_under_two_names_is_refused(name: str) -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    with pytest.raises(ModelError, match=r"1\.weight: the same tensor as 0\.weight"):
        make_engine(name, model, dict(model.named_parameters(remove_duplicate=False)))


@pytest.mark.parametrize("what", ["layer", "parameter", "block"])
def test_a_layer_replaced_later_is_an_error_that_names_it(what: str) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 3)))
    engine = make_engine("discreet", model, trainable(model))
    x = torch.randn(4, 3)
    engine.per_example_gradients(lambda: per_image_loss(model, x))
    if what == "layer":
        model[1][0] = nn.Linear(3, 3)
    elif what == "parameter":
        model[1][0].weight = nn.Parameter(torch.randn(3, 3))
    else:
        model[1] = nn.Linear(3, 3)
    with pytest.raises(ModelError, match=r"1\.0\.weight: no parameter of the model any more"):
        engine.per_example_gradients(lambda: per_image_loss(model, x))


def test_a_norm_added_later_is_sound() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Conv2d(8, 2, 1))
    parameters = trainable(model)
    engine = make_engine("discreet", model, parameters)
    x = torch.randn(1, 8, 8, 3).permute(0, 3, 1, 2)
    engine.per_example_gradients(lambda: per_image_loss(model, x))
    norm = randomise(nn.BatchNorm2d(8)).eval().requires_grad_(False)
    model[1] = nn.Sequential(norm, TokensBack())
    found = engine.per_example_gradients(lambda: per_image_loss(model, x))
    assert_same(found, one_by_one(model, x), parameters, images=1)


class TokensBack(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).transpose(1, 2).contiguous().transpose(1, 2).reshape(x.shape)
