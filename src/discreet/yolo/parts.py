"""Parts of a detector: what trains, by the names that users give, and which block it is in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from torch import nn

from discreet.errors import ConfigurationError

CLASS_BRANCHES = ("cv3", "one2one_cv3")


def _last_convolutions(model: nn.Module) -> Iterator[nn.Module]:
    head = cast(Any, model).model[-1]
    for branch in ("cv2", "cv3", "one2one_cv2", "one2one_cv3"):
        for row in getattr(head, branch, None) or ():
            yield row[-1]


def _class_convolutions(model: nn.Module) -> Iterator[nn.Module]:
    head = cast(Any, model).model[-1]
    for branch in CLASS_BRANCHES:
        for row in getattr(head, branch, None) or ():
            yield row[-1]


def _neck_norms(model: nn.Module) -> Iterator[nn.Module]:
    """Normalisations of neck and head: of the layers that the architecture lists as its head."""
    whole = cast(Any, model)
    return (norm for layer in whole.model[len(whole.yaml["backbone"]) :] for norm in _norms(layer))


def _norms(model: nn.Module) -> Iterator[nn.Module]:
    kinds = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)  # pyright: ignore[reportPrivateUsage]
    return (module for module in model.modules() if isinstance(module, kinds))


# Parts of `trainable=`, joined by "+".
PARTS: Mapping[str, Any] = {
    "all": lambda model: [model],
    "film": _norms,
    "neck_film": _neck_norms,
    "classes": _class_convolutions,
    "head": _last_convolutions,
    "whole_head": lambda model: [cast(Any, model).model[-1]],
}


def select_trainable(
    model: nn.Module, trainable: str, *, freeze: int | Sequence[int | str] | None = None
) -> dict[str, nn.Parameter]:
    """Set what trains, and return it by name, in the model's order.

    Args:
        model: A detection model; `requires_grad` is set on all of its parameters.
        trainable: Parts joined by `+`: `all`; `film`, γ and β of every normalisation; `head`,
            the last convolution of every branch of the head; `whole_head`; `classes`, the last
            convolution of the class branch; `neck_film`, γ and β behind the backbone.
        freeze: As in Ultralytics: the first N layers, or layer indices and name parts.

    Raises:
        ConfigurationError: If a part is unknown or nothing is left to train.
    """
    unknown = [part for part in trainable.split("+") if part not in PARTS]
    if unknown:
        raise ConfigurationError(
            f"unknown part {unknown[0]!r}", where="trainable", do=f"use {', '.join(PARTS)}"
        )
    chosen = {
        id(parameter)
        for part in trainable.split("+")
        for module in PARTS[part](model)
        for parameter in module.parameters()
    }
    layers = range(freeze) if isinstance(freeze, int) else freeze or ()
    frozen = [f"model.{layer}." for layer in layers]
    for part in frozen:
        if not any(part in name for name, _ in model.named_parameters()) and not isinstance(
            freeze, int
        ):
            raise ConfigurationError(
                f"{part.removeprefix('model.').removesuffix('.')!r} names no layer with parameters",
                where="freeze",
                do="give layer numbers, or names such as 22.cv2",
            )
    # Neither gets a gradient: DFL is a constant, and denoising queries would mix images.
    frozen += [".dfl.", ".denoising_class_embed."]
    selected: dict[str, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        trains = id(parameter) in chosen and not any(part in name for part in frozen)
        parameter.requires_grad_(trains)
        if trains:
            selected[name] = parameter
    if not selected:
        raise ConfigurationError(
            f"nothing is left to train with trainable={trainable} freeze={freeze}",
            where="freeze",
            do="freeze fewer layers",
        )
    return selected


def normalisation_parameters(model: nn.Module) -> set[str]:
    """Names of all γ and β of normalisations."""
    mine = {id(parameter) for norm in _norms(model) for parameter in norm.parameters()}
    return {name for name, parameter in model.named_parameters() if id(parameter) in mine}


def block_of(model: nn.Module, name: str) -> str:
    """The block of a parameter: `backbone`, `neck`, `box branch` or `class branch`."""
    whole = cast(Any, model)
    parts = name.split(".")
    layer = int(parts[1])
    if layer < len(whole.yaml["backbone"]):
        return "backbone"
    if layer < len(whole.model) - 1:
        return "neck"
    return "class branch" if parts[2] in CLASS_BRANCHES else "box branch"
