from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from discreet.errors import UnsupportedLayerError
from discreet.gradients import LayerwiseEngine
from tests.gradients.oracle import check_engines, per_image_loss, trainable


def refused(model: nn.Module, x: Tensor, match: str) -> None:
    engine = LayerwiseEngine(model, trainable(model))
    with pytest.raises(UnsupportedLayerError, match=match):
        engine.per_example_gradients(lambda: per_image_loss(model, x))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.PReLU(), (3, 4)),
        (nn.PReLU(4), (3, 4, 5)),
        (nn.Bilinear(4, 4, 2), (3, 4)),
        (nn.RMSNorm(4), (3, 2, 4)),
        (nn.InstanceNorm2d(4, affine=True), (3, 4, 3, 3)),
        (nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), (3, 4)),
        (nn.utils.parametrizations.orthogonal(nn.Linear(4, 4)), (3, 4)),
    ],
)
@pytest.mark.filterwarnings("ignore:.*performance drop")
def test_layers_without_a_rule_agree_with_the_oracle(
    layer: nn.Module, shape: tuple[int, ...]
) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before = nn.Conv2d(4, 4, 1) if len(shape) == 4 else nn.Identity()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            x = self.before(x)
            return self.layer(x, x.tanh()) if isinstance(layer, nn.Bilinear) else self.layer(x)

    check_engines(Model(), torch.randn(shape), engines=("discreet",))


class Overridden(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * 2


class Standardised(nn.Conv2d):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(input, weight - weight.mean(), bias)


@pytest.mark.parametrize("kind", [Overridden, Standardised])
def test_a_subclass_that_computes_something_else_does_not_get_its_base_s_rule(
    kind: type[nn.Conv2d],
) -> None:
    check_engines(nn.Sequential(kind(3, 2, 3)), torch.randn(3, 3, 5, 5), engines=("discreet",))


def test_an_instance_s_own_forward_is_respected() -> None:
    model = nn.Sequential(nn.Linear(3, 3))
    plain = model[0].forward
    model[0].forward = lambda x: plain(x) * 3  # pyright: ignore[reportAttributeAccessIssue]
    x = torch.randn(4, 3)
    engine = LayerwiseEngine(model, trainable(model))
    found = engine.per_example_gradients(lambda: model(x).sum(1))
    torch.testing.assert_close(found.per_example("0.bias"), torch.full((4, 3), 3.0))


class Mixer(nn.Module):
    """A container with a parameter of its own, a child, keywords and several outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(3))
        self.child = nn.Linear(3, 3)
        self.frozen = nn.Linear(3, 3).requires_grad_(False)

    def forward(self, x: Tensor, *, shift: Tensor, table: Tensor) -> dict[str, Tensor | int]:
        mixed = self.frozen(self.child(x) * self.gain) + shift
        return {"count": 2, "sum": mixed @ table, "pair": torch.cat((mixed, x), 1)}


class UsesMixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Linear(3, 3)
        self.mixer = Mixer()

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        table = torch.linspace(-1, 1, 6, dtype=x.dtype).view(3, 2)
        out = self.mixer(x, shift=x.detach().tanh(), table=table)
        assert out["count"] == 2
        return torch.cat((out["sum"], out["pair"]), 1)


def test_containers_with_parameters_of_their_own() -> None:
    check_engines(UsesMixer(), torch.randn(4, 3), engines=("discreet",))
    check_engines(Mixed(), torch.randn(2, 3), engines=("discreet",))


class Mixed(nn.Module):
    """The root itself owns a parameter, and uses a layer twice."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(2.0))
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.layer(x).tanh()) * self.gain


def test_dropout_is_the_same_in_both_directions() -> None:
    class Dropped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(50))

        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(x * self.weight, 0.5, self.training)

    model, x = Dropped(), torch.ones(3, 50)
    engine = LayerwiseEngine(model, trainable(model))
    outputs: list[Tensor] = []

    def losses() -> Tensor:
        outputs.append(model(x))
        return outputs[-1].sum(1)

    found = engine.per_example_gradients(losses)
    torch.testing.assert_close(found.per_example("weight"), outputs[-1].detach())
    assert 0 < (outputs[-1] == 0).sum() < 150
    assert not torch.equal(outputs[-1][0], outputs[-1][1])


class AcrossImages(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(0)) * self.weight


class TokensFirst(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 4))

    def forward(self, x: Tensor) -> Tensor:
        return x.cumsum(0) * self.weight


class DataDependent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight if x.sum().item() > 0 else x


class WithoutInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self) -> Tensor:
        return self.weight


class UsesWithoutInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query = WithoutInput()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.query()


class SharedInput(nn.Module):
    """A layer without a rule, one input of which is not per image and needs a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Linear(3, 3)
        self.layer = Shifted()

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        return self.layer(x, x[:1])


class Shifted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor, shift: Tensor) -> Tensor:
        return (x + shift) * self.weight


def test_layers_that_mix_images_are_refused() -> None:
    refused(nn.Sequential(AcrossImages()), torch.randn(3, 3), "0: AcrossImages gives another out")
    refused(nn.Sequential(TokensFirst()), torch.randn(3, 3, 4), "0: TokensFirst gives another out")


def test_layers_that_cannot_be_vectorised_are_refused() -> None:
    refused(nn.Sequential(DataDependent()), torch.randn(3, 3), "0: DataDependent has no rule")


def test_inputs_that_carry_one_image_to_all_are_refused() -> None:
    refused(SharedInput(), torch.randn(3, 3), "layer: .* an input that is not per image needs")


def test_layers_without_images_are_refused() -> None:
    refused(UsesWithoutInput(), torch.randn(3, 3), "query: it has no rule of its own, and no input")


def test_a_recurrent_layer_is_exact_or_refused() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(3, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.rnn(x)[0][:, -1]

    model, x = Last(), torch.randn(3, 5, 3)
    try:
        check_engines(model, x, engines=("discreet",))
    except UnsupportedLayerError as error:
        assert "rnn" in str(error)
