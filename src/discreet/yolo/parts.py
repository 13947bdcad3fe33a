"""Parts of a detector: what trains, by the names that users give, and which block it is in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from torch import nn

from discreet.errors import ConfigurationError
from discreet.recipes import DEFAULT_IMGSZ
from discreet.yolo.low_rank import LowRank, add_low_rank

CLASS_BRANCHES = ("cv3", "one2one_cv3")
LOW_RANK_LR = 0.3  # of factors, over lr0: what they say is multiplied by each other
_CLASS_LAYERS = (*CLASS_BRANCHES, "linear", "enc_score_head", "dec_score_head")
# Branches of a row a level, by what their last layers say: boxes; masks, key points or angles.
_OTHER_BRANCHES = ("cv2", "cv4_kpts", "cv4_sigma", "cv4")
_TRANSFORMER_BOXES = ("enc_bbox_head", "dec_bbox_head")
_BOTTLENECKS = "m"  # what Ultralytics' blocks call them
# Neither gets a gradient of single images: DFL is a constant, denoising queries would mix images,
# and rows of the flow are key points.
_CONSTANT = (".dfl.", ".denoising_class_embed.", ".flow_model.")


def class_layers(model: nn.Module) -> list[Any]:
    """The layers that give class scores, each with a row of weights and a bias per class."""
    return list(_last_layers(model, _CLASS_LAYERS))


def _last_layers(model: nn.Module, branches: Iterable[str]) -> Iterator[Any]:
    """The last layer of each row of these branches of the head, or of the branch itself."""
    head = cast(Any, model).model[-1]
    for branch in branches:
        found = getattr(head, branch, None)
        for row in found if isinstance(found, nn.ModuleList) else [found]:
            if row is not None:
                yield _last_layer(row)


def _last_layer(row: Any) -> Any:
    if isinstance(row, nn.Sequential):
        return row[-1]
    return row.layers[-1] if hasattr(row, "layers") else row


def _head_layers(model: nn.Module) -> Iterator[nn.Module]:
    head = cast(Any, model).model[-1]
    # Where a key point branch has a last layer of its own, `cv4` is what comes before it.
    others = [name for name in _OTHER_BRANCHES if not (name == "cv4" and hasattr(head, "cv4_kpts"))]
    yield from _last_layers(model, _CLASS_LAYERS)
    yield from _last_layers(model, [*others, *(f"one2one_{name}" for name in others)])
    yield from _last_layers(model, _TRANSFORMER_BOXES)


def _neck_norms(model: nn.Module) -> Iterator[nn.Module]:
    """Normalisations of neck and head: of the layers that the architecture lists as its head."""
    whole = cast(Any, model)
    return (norm for layer in whole.model[len(whole.yaml["backbone"]) :] for norm in _norms(layer))


def needed_levels(model: nn.Module, imgsz: int) -> int:
    """How many levels of the head, from the finest, an image of this size needs.

    A level with stride s draws boxes of up to 2 · (reg_max - 1) · s pixels a side. Where that
    covers the image, coarser levels have hardly an anchor and nothing of their own to find:
    training them adds noise. Depends on architecture, zoom and image size only.

    Args:
        model: A detection model.
        imgsz: Side of the images in pixels.
    """
    head = cast(Any, model).model[-1]
    if not hasattr(head, "reg_max"):  # a transformer's queries look at all levels
        return len(_sources(head))
    strides = sorted(float(stride) for stride in head.stride)  # in pixels before the zoom
    if head.reg_max <= 1:  # distances without an end
        return len(strides)
    reach = [2 * (head.reg_max - 1) * stride for stride in strides]
    return 1 + sum(side < imgsz for side in reach[:-1])


def _class_norms(model: nn.Module, imgsz: int) -> Iterator[nn.Module]:
    """Normalisations on the way from the backbone's end to the class scores that are needed."""
    whole = cast(Any, model)
    head, levels = whole.model[-1], needed_levels(model, imgsz)
    reached: set[int] = set()
    last = len(whole.model) - 1
    waiting = [last + index if index < 0 else index for index in _sources(head)[:levels]]
    while waiting:
        index = waiting.pop()
        if index not in reached and index >= len(whole.yaml["backbone"]):
            reached.add(index)
            layer = whole.model[index]
            waiting += [index + source if source < 0 else source for source in _sources(layer)]
    for index in sorted(reached):
        yield from _edge_norms(whole.model[index])
    rows = _class_rows(head, levels)
    for row in rows:
        # What γ and β of the last one could do, the class convolution behind it does.
        yield from list(_norms(row))[:-1]
    if not rows:
        yield from _norms(head)


def _edge_norms(block: nn.Module) -> Iterator[nn.Module]:
    """Normalisations of a block outside its bottlenecks: within, noise drowns what they hear."""
    within = {
        id(norm)
        for name, module in block.named_modules()
        if name.split(".")[-1] == _BOTTLENECKS
        for norm in _norms(module)
    }
    return (norm for norm in _norms(block) if id(norm) not in within)


def _class_rows(head: Any, levels: int) -> list[Any]:
    """Rows of the class branches of the finest levels; none where the head has no such rows."""
    branches = (getattr(head, branch, None) or () for branch in CLASS_BRANCHES)
    return [row for branch in branches for row in list(branch)[:levels]]


def _needed_class_layers(model: nn.Module, imgsz: int) -> list[Any]:
    """The layers that give class scores, of the levels that are needed.

    Those beyond keep their start, which is a score next to nothing everywhere.
    """
    rows = _class_rows(cast(Any, model).model[-1], needed_levels(model, imgsz))
    return [_last_layer(row) for row in rows] or class_layers(model)


def _sources(layer: Any) -> list[int]:
    """Layers whose outputs a layer takes; negative numbers count from itself."""
    return layer.f if isinstance(layer.f, list) else [layer.f]


def class_path(model: nn.Module, imgsz: int) -> list[nn.Module]:
    """What makes class scores of features, at the levels that are needed.

    The layer that feeds each of these levels, and its rows of the class branches, without their
    last layers.

    Args:
        model: A detection model.
        imgsz: Side of the images in pixels.
    """
    whole = cast(Any, model)
    head, levels = whole.model[-1], needed_levels(model, imgsz)
    return [
        *_last_neck_blocks(model, imgsz),
        *(layer for row in _class_rows(head, levels) for layer in row[:-1]),
    ]


def _last_neck_blocks(model: nn.Module, imgsz: int) -> list[nn.Module]:
    """The layers that feed the needed levels of the head, of the neck."""
    whole = cast(Any, model)
    head, last = whole.model[-1], len(whole.model) - 1
    sources = _sources(head)[: needed_levels(model, imgsz)]
    numbers = [last + index if index < 0 else index for index in sources]
    # Features of the backbone that a head takes as they are stay.
    return [whole.model[number] for number in numbers if number >= len(whole.yaml["backbone"])]


def _low_rank(model: nn.Module, _imgsz: int) -> Iterator[nn.Module]:
    return (
        factor
        for module in model.modules()
        if isinstance(module, LowRank)
        for factor in module.factors
    )


def _norms(model: nn.Module) -> Iterator[nn.Module]:
    kinds = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)  # pyright: ignore[reportPrivateUsage]
    return (module for module in model.modules() if isinstance(module, kinds))


_Part = Callable[[nn.Module, int], Iterable[nn.Module]]  # of a model, for a size of images

# Parts of `trainable=`, joined by "+".
PARTS: Mapping[str, _Part] = {
    "all": lambda model, _imgsz: [model],
    "film": lambda model, _imgsz: _norms(model),
    "neck_film": lambda model, _imgsz: _neck_norms(model),
    "class_film": _class_norms,
    "class_low_rank": _low_rank,
    "last_neck": _last_neck_blocks,
    "classes": _needed_class_layers,
    "head": lambda model, _imgsz: _head_layers(model),
    "whole_head": lambda model, _imgsz: [cast(Any, model).model[-1]],
}


def make_parts(model: nn.Module, trainable: str, *, imgsz: int = DEFAULT_IMGSZ) -> None:
    """Add what a model has not by itself and `trainable` names, in place; its output stays.

    Args:
        model: A detection model.
        trainable: See `select_trainable`.
        imgsz: Side of the images in pixels.
    """
    if "class_low_rank" in trainable.split("+"):
        add_low_rank(class_path(model, imgsz))


def select_trainable(
    model: nn.Module,
    trainable: str,
    *,
    freeze: int | Sequence[int | str] | None = None,
    imgsz: int = DEFAULT_IMGSZ,
) -> dict[str, nn.Parameter]:
    """Set what trains, and return it by name, in the model's order.

    Args:
        model: A model of any task; `requires_grad` is set on all of its parameters.
        trainable: Parts joined by `+`: `all`; `film`, γ and β of every normalisation; `head`,
            the last layer of every branch of the head (of boxes, classes, mask coefficients, key
            points, angles); `whole_head`; `classes`, the layers that give class scores, of the
            levels that are needed; `neck_film`, γ and β behind the backbone; `class_film`, those
            on the way to these scores, but not in bottlenecks nor the last; `class_low_rank`, what
            `make_parts` has put beside the convolutions that turn features of these levels into
            class scores;
            `last_neck`, the blocks of the neck that feed these levels.
        freeze: As in Ultralytics: the first N layers, or layer indices and name parts.
        imgsz: Side of the images in pixels; see `needed_levels`.

    Raises:
        ConfigurationError: If a part is unknown or nothing is left to train.
    """
    unknown = [part for part in trainable.split("+") if part not in PARTS]
    if unknown:
        raise ConfigurationError(
            f"unknown part {unknown[0]!r}", where="trainable", do=f"use {', '.join(PARTS)}"
        )
    names = set().union(*names_in_parts(model, trainable, freeze=freeze, imgsz=imgsz).values())
    selected: dict[str, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
        if name in names:
            selected[name] = parameter
    if not selected:
        frozen = freeze not in (None, 0)
        raise ConfigurationError(
            f"nothing is left to train with trainable={trainable}"
            + (f" freeze={freeze}" if frozen else ": this model has nothing of it"),
            where="freeze" if frozen else "trainable",
            do="freeze fewer layers" if frozen else "name another part, such as classes",
        )
    return selected


def names_in_parts(
    model: nn.Module,
    parts: str,
    *,
    freeze: int | Sequence[int | str] | None = None,
    imgsz: int = DEFAULT_IMGSZ,
) -> dict[str, set[str]]:
    """Names of the parameters of each part that may train; arguments as `select_trainable` has.

    Raises:
        ConfigurationError: If `freeze` names no layer.
    """
    frozen = (*_frozen_names(model, freeze), *_CONSTANT)
    return {
        part: {
            name
            for name in _names_in(model, PARTS[part](model, imgsz))
            if not any(word in name for word in frozen)
        }
        for part in parts.split("+")
    }


def _frozen_names(model: nn.Module, freeze: int | Sequence[int | str] | None) -> list[str]:
    """Parts of the names of what `freeze` names."""
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
    return frozen


def normalisation_parameters(model: nn.Module) -> set[str]:
    """Names of all γ and β of normalisations."""
    return _names_in(model, _norms(model))


def rate_factors(model: nn.Module, *, norm_lr: float) -> dict[str, float]:
    """Learning rate over `lr0` of the parameters that have one of their own, by name.

    Args:
        model: The model, with what `make_parts` adds.
        norm_lr: That of γ and β.
    """
    found = dict.fromkeys(normalisation_parameters(model), norm_lr)
    return found | dict.fromkeys(_names_in(model, _low_rank(model, 0)), LOW_RANK_LR)


def _names_in(model: nn.Module, modules: Iterable[nn.Module]) -> set[str]:
    mine = {id(parameter) for module in modules for parameter in module.parameters()}
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
    return "class branch" if parts[2] in _CLASS_LAYERS else "box branch"
