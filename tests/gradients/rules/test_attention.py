from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from discreet.errors import UnsupportedLayerError
from discreet.gradients import LayerwiseEngine
from tests.gradients.oracle import check_engines, trainable


class Attend(nn.Module):
    """Images come first; attention may want them second."""

    def __init__(self, *, cross: bool = False, masks: tuple[str, ...] = (), **options: Any) -> None:
        super().__init__()
        self.cross, self.masks = cross, masks
        self.before = nn.Linear(8, 8)
        self.attention = nn.MultiheadAttention(8, 2, **options)
        self.after = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        images, length = x.shape[:2]
        memory = x[:, ::2].tanh() if self.cross else x
        positions = memory.shape[1]
        arguments: dict[str, Any] = {}
        if "shared" in self.masks:
            arguments["attn_mask"] = torch.linspace(0, 1, length * positions, dtype=x.dtype).view(
                length, positions
            )
        if "per head" in self.masks:
            heads = torch.linspace(0, 1, 2 * length * positions, dtype=x.dtype)
            own = x.detach().mean((1, 2)).view(-1, 1, 1, 1)
            arguments["attn_mask"] = (own * heads.view(1, 2, length, positions)).flatten(0, 1)
        if "padding" in self.masks:
            padding = torch.zeros(images, positions, dtype=torch.bool)
            padding[:, -1] = True
            arguments["key_padding_mask"] = padding
        tokens = [x, memory, memory]
        if not self.attention.batch_first:
            tokens = [t.transpose(0, 1) for t in tokens]
        output, weights = self.attention(*tokens, **arguments)
        if not self.attention.batch_first:
            output = output.transpose(0, 1)
        output = self.after(output).flatten(1)
        return output if weights is None else torch.cat((output, weights.flatten(1)), 1)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("cross", [True, False])
@pytest.mark.parametrize("masks", [(), ("shared",), ("per head",), ("padding",)])
def test_attention_agrees_with_the_oracle(
    batch_first: bool, cross: bool, masks: tuple[str, ...]
) -> None:
    model = Attend(cross=cross, masks=masks, batch_first=batch_first)
    # As many tokens as images: a mask of (tokens, tokens) is still not per image.
    check_engines(model, torch.randn(4, 4, 8), engines=("discreet",))


def test_attention_without_bias_and_with_other_sizes() -> None:
    model = Attend(bias=False, batch_first=True, add_bias_kv=True)
    check_engines(model, torch.randn(3, 5, 8), engines=("discreet",))


def test_attention_with_only_the_output_trained() -> None:
    model = Attend(batch_first=False)
    model.attention.in_proj_weight.requires_grad_(False)
    model.attention.in_proj_bias.requires_grad_(False)
    check_engines(model, torch.randn(3, 5, 8), engines=("discreet",))


def test_attention_in_a_transformer_layer() -> None:
    model = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    check_engines(model, torch.randn(3, 5, 8), engines=("discreet",))


def test_attention_without_images_is_refused() -> None:
    model = Attend(batch_first=True)
    engine = LayerwiseEngine(model, trainable(model))

    def losses() -> Tensor:
        return model.attention(*[torch.randn(3, 8)] * 3)[0].sum(1)

    with pytest.raises(UnsupportedLayerError, match="attention: query of shape"):
        engine.per_example_gradients(losses)
