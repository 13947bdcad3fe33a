from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from discreet.gradients import ENGINES, make_engine
from discreet.gradients.isolation import sound_norm
from tests.gradients.oracle import trainable
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
