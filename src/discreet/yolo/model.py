"""From public weights to a model whose images do not meet: build and normalise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn
from ultralytics.nn.tasks import yaml_model_load
from ultralytics.utils import IterableSimpleNamespace

from discreet.errors import DiscreetError, ModelError
from discreet.yolo._compat import load_weights
from discreet.yolo.parts import class_layers
from discreet.yolo.tasks import Task, task_of, task_of_head

Norm = Literal["frozen", "group"]

# Expected objects of all classes in an image before training; a public guess that only sets
# where the class scores start.
_PRIOR_OBJECTS = 10
_GROUPS, _CHANNELS_OF_GROUP = 32, 4  # of GroupNorm: at most so many, of at least so many
_FOREIGN = {"TorchVision"}


def is_architecture(model: str | Path) -> bool:
    """Whether a model to start from is an architecture's name, and no file of weights."""
    return Path(model).suffix in {".yaml", ".yml"}


def open_source(
    model: str | Path | nn.Module, *, argument: str = "model", place: Path | None = None
) -> nn.Module:
    """The public model that training starts from.

    Args:
        model: A local `.pt` file, the name of an architecture (`yolov8n.yaml`) to start from
            random weights, or a model that is already loaded.
        argument: What it was given as, for errors.
        place: Where a model that is already loaded lies, for errors.

    Raises:
        ModelError: If it is not a model of a task that is trained here, or its weights are no
            numbers.
    """
    if isinstance(model, nn.Module):
        source = model
    elif is_architecture(model):
        source = _from_architecture(str(model))
    else:
        source = load_weights(Path(model), argument=argument)
    where = f"{argument}={place or _name_of(model)}"
    if task_of(source) is None:
        raise ModelError(
            f"no task that is trained privately ({type(source).__name__})",
            where=where,
            do="give a YOLO or RT-DETR model that detects, segments, estimates poses, finds "
            "oriented boxes or classifies, such as yolov8n.pt",
        )
    for module in source.modules():
        if type(module).__name__ in _FOREIGN:
            raise _foreign(type(module).__name__, where=where)
    if not is_finite(source):
        raise ModelError(
            "weights of it are not finite numbers, as where a training has diverged",
            where=where,
            do="give weights from before that",
        )
    return source


def is_finite(model: nn.Module) -> bool:
    """Whether all numbers of a model are numbers."""
    return all(bool(value.isfinite().all()) for value in model.state_dict().values())


def _name_of(model: str | Path | nn.Module) -> str:
    return type(model).__name__ if isinstance(model, nn.Module) else str(model)


def _foreign(layer: str, *, where: str) -> ModelError:
    return ModelError(
        f"{layer} layers are another library's, which would download their weights",
        where=where,
        do="give a model whose layers are Ultralytics' own, such as yolov8n-cls.yaml",
    )


def known_task(model: nn.Module) -> Task:
    """The task of a model that `open_source` has taken."""
    task = task_of(model)
    assert task is not None
    return task


def _from_architecture(name: str) -> nn.Module:
    try:
        configuration: Any = yaml_model_load(name)
        layers = [str(layer[2]) for layer in [*configuration["backbone"], *configuration["head"]]]
        if foreign := _FOREIGN & {*layers}:
            raise _foreign(foreign.pop(), where=f"model={name}")
        last = layers[-1]
        task = task_of_head(last)
        if task is not None:
            return cast(Any, task.model)(configuration, verbose=False)
    except DiscreetError:
        raise
    except Exception as error:
        raise ModelError(
            f"no such architecture ({error})",
            where=f"model={name}",
            do="give an architecture that Ultralytics ships, such as yolov8n.yaml",
        ) from error
    raise ModelError(
        f"no task that is trained privately ({last})",
        where=f"model={name}",
        do="give an architecture such as yolov8n.yaml, yolov8n-seg.yaml or rtdetr-l.yaml",
    )


def build_model(
    source: nn.Module,
    *,
    names: Sequence[str],
    imgsz: int,
    kpt_shape: tuple[int, int] | None = None,
    remap: bool = True,
    pretrained: bool = True,
) -> Any:
    """A model for these classes, with all of the source's weights that can be kept.

    The hidden layers of the class branch are kept whatever the number of classes; only its last
    layer is replaced. Classes that the source knows by name keep their rows; a new class starts at
    the mean of the source's rows, with a bias from a public prior.

    Args:
        source: The public model; left as it is.
        names: Class names, in order.
        imgsz: Side of the training images in pixels; sets the prior.
        kpt_shape: Key points of an object, and numbers of each; None for the source's.
        remap: Whether to find classes by name; if not, they are the same where their number is.
        pretrained: Whether to take weights at all, or the architecture alone.
    """
    model = known_task(source).build(source, names=len(names), kpt_shape=kpt_shape)
    model.nc = len(names)  # RT-DETR's criterion reads it
    if pretrained:
        if remap:
            model.names = dict(enumerate(names))
        model.load(source, verbose=False)
        _start_classes(model, source, _known_rows(source, names, remap=remap), imgsz)
    model.names = dict(enumerate(names))
    return model


def _known_rows(source: nn.Module, names: Sequence[str], *, remap: bool) -> list[int | None]:
    """For each class its row in the source's class layers; None for a class that is new to it."""
    old: Mapping[int, str] = cast(Any, source).names
    if not remap:
        return list(range(len(names))) if len(old) == len(names) else [None] * len(names)
    known = {str(name).strip().lower(): row for row, name in old.items()}
    return [known.get(name.strip().lower()) for name in names]


def _start_classes(model: Any, source: nn.Module, rows: Sequence[int | None], imgsz: int) -> None:
    """Start known classes at what they were, and new ones at the mean of all."""
    places = _places(model, imgsz)
    bias = None
    if places:
        prior = min(_PRIOR_OBJECTS / (model.nc * places), 0.5)
        bias = math.log(prior / (1 - prior))
    for last, previous in zip(class_layers(model), class_layers(source), strict=False):
        same_inputs = previous.weight.shape[1:] == last.weight.shape[1:]
        with torch.no_grad():
            for number, row in enumerate(rows):
                if same_inputs:
                    weight = previous.weight.mean(0) if row is None else previous.weight[row]
                    last.weight[number] = weight
                if row is None or not same_inputs:
                    last.bias[number] = previous.bias.mean() if bias is None else bias
                else:
                    last.bias[number] = previous.bias[row]


def _places(model: Any, imgsz: int) -> float:
    """Where an image's objects may be: anchors, or queries; 0 for one class a whole image."""
    head = model.model[-1]
    if hasattr(head, "num_queries"):
        return float(head.num_queries)
    return sum((imgsz / float(stride)) ** 2 for stride in getattr(head, "stride", ()))


def set_norm(model: nn.Module, norm: Norm) -> None:
    """Make every normalisation independent of the batch, in place.

    `frozen` keeps BatchNorm with its public statistics (see `train_mode`); γ and β can train.
    `group` folds the public statistics into the convolution before, so that GroupNorm starts
    from standardised channels and keeps the pretrained γ and β; its eps is BatchNorm's.

    Raises:
        ModelError: For `group`, if a BatchNorm does not follow a convolution of its own.
    """
    if norm == "frozen":
        return
    for name, module in list(model.named_modules()):
        for child_name, child in list(module.named_children()):
            if not isinstance(child, nn.BatchNorm2d):
                continue
            before = _before(module, child_name)
            conv = getattr(module, before, None)
            if not isinstance(conv, nn.Conv2d):
                raise ModelError(
                    "norm=group replaces a BatchNorm that follows a convolution only",
                    where=f"{name}.{child_name}",
                    do="use norm=frozen for this architecture",
                )
            setattr(module, before, _fold_statistics(conv, child))
            setattr(module, child_name, _group_norm(child))


def _before(module: nn.Module, norm: str) -> str:
    """Name of the convolution that a block has before a normalisation, if it has one."""
    if isinstance(module, nn.Sequential):
        names = list(module._modules)  # pyright: ignore[reportPrivateUsage]
        return names[names.index(norm) - 1]
    return "conv" if norm == "bn" else ""


def _fold_statistics(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None and variance is not None
    scale = (variance + norm.eps).rsqrt()
    folded = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        cast(Any, conv.kernel_size),
        cast(Any, conv.stride),
        cast(Any, conv.padding),
        cast(Any, conv.dilation),
        conv.groups,
        bias=True,
        padding_mode=cast(Any, conv.padding_mode),
        device=conv.weight.device,
        dtype=conv.weight.dtype,
    )
    with torch.no_grad():
        folded.weight.copy_(conv.weight * scale[:, None, None, None])
        bias = mean.new_zeros(()) if conv.bias is None else conv.bias
        cast(nn.Parameter, folded.bias).copy_((bias - mean) * scale)
    return folded


def _groups_of(channels: int) -> int:
    """A divisor of the channels, up to 32, that leaves at least four in a group.

    A channel alone is lost where its map has shrunk to one place: nothing is left to compare it
    with.
    """
    groups = math.gcd(_GROUPS, channels)
    while groups > 1 and channels < _CHANNELS_OF_GROUP * groups:
        groups //= 2
    return groups


def _group_norm(norm: nn.BatchNorm2d) -> nn.GroupNorm:
    group = nn.GroupNorm(
        _groups_of(norm.num_features),
        norm.num_features,
        eps=norm.eps,
        device=norm.weight.device,
        dtype=norm.weight.dtype,
    )
    with torch.no_grad():
        group.weight.copy_(norm.weight)
        group.bias.copy_(norm.bias)
    return group


def train_mode(model: nn.Module) -> None:
    """Put the model in training mode, its BatchNorms in evaluation mode: statistics stay public."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):  # pyright: ignore[reportPrivateUsage]
            module.eval()


def fast_layout(model: nn.Module) -> None:
    """Put channels last in memory, in place: convolutions of any kind run faster so.

    Their weights decide: a convolution with such a weight gives such an output.
    """
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def attach_settings(model: nn.Module, settings: Mapping[str, Any]) -> None:
    """Give a model the hyperparameters that its criterion reads (`box`, `cls`, `dfl`, …)."""
    cast(Any, model).args = IterableSimpleNamespace(**settings)
