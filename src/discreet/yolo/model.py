"""From public weights to a model whose images do not meet: build and normalise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn
from ultralytics.nn.modules import Detect
from ultralytics.nn.tasks import DetectionModel, guess_model_task, yaml_model_load
from ultralytics.utils import IterableSimpleNamespace

from discreet.errors import ModelError
from discreet.yolo._compat import load_weights
from discreet.yolo.parts import CLASS_BRANCHES

Norm = Literal["frozen", "group"]

# Expected objects of all classes in an image before training; a public guess that only sets
# where the class scores start.
_PRIOR_OBJECTS = 10
_GROUPS = 32


def open_source(model: str | Path | nn.Module) -> nn.Module:
    """The public model that training starts from.

    Args:
        model: A local `.pt` file, the name of an architecture (`yolov8n.yaml`) to start from
            random weights, or a model that is already loaded.

    Raises:
        ModelError: If it is not a detection model.
    """
    if isinstance(model, nn.Module):
        source = model
    elif Path(model).suffix in {".yaml", ".yml"}:
        source = _from_architecture(str(model))
    else:
        source = load_weights(Path(model))
    head = cast(Any, source).model[-1] if hasattr(source, "model") else None
    if not (isinstance(source, DetectionModel) and isinstance(head, Detect)) or (
        getattr(source, "task", "detect") != "detect" or type(source) is not DetectionModel
    ):
        raise ModelError(
            f"the weights are not a detector ({type(source).__name__})",
            where=f"model={model if not isinstance(model, nn.Module) else type(model).__name__}",
            do="give a YOLO detection model such as yolov8n.pt",
        )
    return source


def _from_architecture(name: str) -> nn.Module:
    try:
        configuration = yaml_model_load(name)
        if guess_model_task(configuration) != "detect":
            raise ModelError(
                "the architecture is not a detector",
                where=f"model={name}",
                do="give a YOLO detection model such as yolov8n.yaml",
            )
        return DetectionModel(cast(Any, configuration), verbose=False)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"no such architecture ({error})",
            where=f"model={name}",
            do="give a detection architecture that Ultralytics ships, such as yolov8n.yaml",
        ) from error


def build_detector(
    source: nn.Module,
    *,
    names: Sequence[str],
    imgsz: int,
    remap: bool = True,
    pretrained: bool = True,
) -> DetectionModel:
    """A detector for these classes, with all of the source's weights that can be kept.

    The hidden layers of the class branch are kept whatever the number of classes; only its last
    1×1 convolution is replaced. Classes that the source knows by name keep their rows; a new
    class starts at the mean of the source's rows, with a bias from a public prior.

    Args:
        source: The public model; left as it is.
        names: Class names, in order.
        imgsz: Side of the training images in pixels; sets the prior.
        remap: Whether to find classes by name; if not, they are the same where their number is.
        pretrained: Whether to take weights at all, or the architecture alone.
    """
    detector = DetectionModel(cast(Any, dict(cast(Any, source).yaml)), nc=len(names), verbose=False)
    if pretrained:
        if remap:
            detector.names = dict(enumerate(names))
        detector.load(source, verbose=False)
        fresh = _new_classes(source, names, remap=remap)
        if fresh:
            _start_new_classes(detector, source, fresh, imgsz)
    detector.names = dict(enumerate(names))
    return detector


def _new_classes(source: nn.Module, names: Sequence[str], *, remap: bool) -> list[int]:
    old: Mapping[int, str] = cast(Any, source).names
    if not remap:
        return [] if len(old) == len(names) else list(range(len(names)))
    known = {str(name).strip().lower() for name in old.values()}
    return [i for i, name in enumerate(names) if name.strip().lower() not in known]


def _start_new_classes(
    detector: DetectionModel, source: nn.Module, fresh: Sequence[int], imgsz: int
) -> None:
    head, old = cast(Any, detector).model[-1], cast(Any, source).model[-1]
    anchors = sum((imgsz / float(stride)) ** 2 for stride in head.stride)
    prior = min(_PRIOR_OBJECTS / (head.nc * anchors), 0.5)
    for branch in CLASS_BRANCHES:
        for new_row, old_row in zip(
            getattr(head, branch, None) or (), getattr(old, branch, None) or (), strict=False
        ):
            last, previous = new_row[-1], old_row[-1]
            with torch.no_grad():
                if previous.weight.shape[1:] == last.weight.shape[1:]:
                    last.weight[list(fresh)] = previous.weight.mean(0)
                last.bias[list(fresh)] = math.log(prior / (1 - prior))


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
            conv = getattr(module, "conv", None)
            if child_name != "bn" or not isinstance(conv, nn.Conv2d):
                raise ModelError(
                    "norm=group replaces a BatchNorm that follows a convolution only",
                    where=f"{name}.{child_name}",
                    do="use norm=frozen for this architecture",
                )
            module.conv, module.bn = _fold_statistics(conv, child), _group_norm(child)


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


def _group_norm(norm: nn.BatchNorm2d) -> nn.GroupNorm:
    group = nn.GroupNorm(
        math.gcd(_GROUPS, norm.num_features),
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
