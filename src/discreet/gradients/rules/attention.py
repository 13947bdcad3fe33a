"""Multi-head attention, whose images may be in dimension 1."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor, nn

from discreet.errors import UnsupportedLayerError
from discreet.gradients.functional import Vectorised
from discreet.gradients.tape import Tape

_SIGNATURE = inspect.signature(nn.MultiheadAttention.forward)


def attention(
    tape: Tape, layer: str, module: nn.MultiheadAttention, checked: set[Hashable]
) -> Callable[..., Any]:
    """Replacement of the forward pass of `nn.MultiheadAttention`.

    Args:
        tape: Where the layer's per-image gradients go.
        layer: Its dotted name.
        module: The layer.
        checked: See `Vectorised`.

    Returns:
        Takes what the layer's own forward pass takes, and returns what that returns.

    Raises:
        UnsupportedLayerError: By what is returned, with gradients on: the query has no image
            dimension, or the layer gives another output image by image.
    """
    vectorised = Vectorised(tape, layer, module, checked)
    images_dim = 0 if module.batch_first else 1

    def call(original: Callable[..., Any], arguments: Any) -> Any:
        mask = arguments["attn_mask"]
        if mask is not None and mask.dim() == 4:  # (B or 1, heads, L, S)
            arguments = arguments | {"attn_mask": mask.flatten(0, 1)}
        return original(**arguments)

    def output_dims(output: Any) -> list[int]:
        return [images_dim] if output[1] is None else [images_dim, 0]

    def forward(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return vectorised.original(*args, **kwargs)
        bound = _SIGNATURE.bind(module, *args, **kwargs)
        bound.apply_defaults()
        arguments = {name: value for name, value in bound.arguments.items() if name != "self"}
        if arguments["query"].dim() != 3:
            raise UnsupportedLayerError(
                f"query of shape {tuple(arguments['query'].shape)} has no image dimension",
                where=layer,
                do=f"give it 3 dimensions, images in dimension {images_dim}",
            )
        mask = arguments["attn_mask"]
        if mask is not None and mask.dim() == 3:  # (B·heads, L, S)
            arguments["attn_mask"] = mask.unflatten(0, (-1, module.num_heads))
        named = {
            "query": images_dim,
            "key": images_dim,
            "value": images_dim,
            "key_padding_mask": 0,
            "attn_mask": 0 if mask is not None and mask.dim() == 3 else None,
        }
        # A dictionary's leaves come in the order of its keys' insertion.
        dims = [named[name] for name, value in arguments.items() if isinstance(value, Tensor)]
        return vectorised(arguments, dims, call, output_dims)

    return forward
