"""Per-image gradient rules, one kind of layer per file."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from torch import nn

from discreet.gradients.functional import images_first
from discreet.gradients.rules.attention import attention
from discreet.gradients.rules.conv import convolution, transposed
from discreet.gradients.rules.embedding import embedding
from discreet.gradients.rules.linear import linear
from discreet.gradients.rules.norms import batch_norm, group_norm, layer_norm
from discreet.gradients.tape import Tape

Rule = Callable[[Tape, str, Any], Callable[..., Any]]
# Tape, dotted name, layer, and shapes already checked (see `functional.Vectorised`).
Replacement = Callable[[Tape, str, Any, set[Hashable]], Callable[..., Any]]

RULES: dict[type[nn.Module], Rule] = {
    nn.Conv1d: convolution,
    nn.Conv2d: convolution,
    nn.Conv3d: convolution,
    nn.ConvTranspose1d: transposed,
    nn.ConvTranspose2d: transposed,
    nn.ConvTranspose3d: transposed,
    nn.Linear: linear,
    nn.BatchNorm1d: batch_norm,
    nn.BatchNorm2d: batch_norm,
    nn.BatchNorm3d: batch_norm,
    nn.GroupNorm: group_norm,
    nn.LayerNorm: layer_norm,
    nn.Embedding: embedding,
}
# Methods that a subclass may not override if it is to be treated as its base.
_DECIDING = ("forward", "_conv_forward", "_check_input_dim", "_output_padding")


def rule_for(module: nn.Module) -> Rule | None:
    """The layer's own rule, or None if it has none or computes something else."""
    if "forward" in vars(module):
        return None
    for base, rule in RULES.items():
        if isinstance(module, base) and all(
            getattr(type(module), method, None) is getattr(base, method, None)
            for method in _DECIDING
        ):
            # A reparametrised weight is computed from parameters of other names.
            names = set(dict(module.named_parameters()))
            return rule if names <= {"weight", "bias"} else None
    return None


def replacement_for(module: nn.Module) -> Replacement:
    """What makes the forward pass that records this layer's per-image gradients."""
    if type(module) is nn.MultiheadAttention and "forward" not in vars(module):
        return attention
    rule = rule_for(module)
    if rule is not None:
        return lambda tape, layer, module, _checked: rule(tape, layer, module)
    return images_first
