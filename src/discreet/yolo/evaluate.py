"""Metrics of a model on the validation split, by Ultralytics' own validator."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import nn
from ultralytics.data import build_dataloader
from ultralytics.utils import DEFAULT_CFG, IterableSimpleNamespace

from discreet.data import DetectionDataset, load_dataset
from discreet.yolo import _compat
from discreet.yolo._compat import load_weights
from discreet.yolo.dataset import ImageSettings, describe
from discreet.yolo.images import TaskImages, open_images
from discreet.yolo.model import known_task, open_source
from discreet.yolo.tasks import Task

_BATCH = 16
_NOTHING: Mapping[str, Any] = {}


def evaluate(
    model: nn.Module,
    dataset: TaskImages,
    *,
    args: Any,
    data: dict[str, Any],
    folder: Path,
    callbacks: dict[str, Any] | None = None,
) -> tuple[Any, dict[str, float]]:
    """Validate as Ultralytics does at the end of an epoch.

    Args:
        model: The model, on the device to use.
        dataset: The validation images.
        args: Ultralytics settings.
        data: Names and number of classes, as Ultralytics wants them.
        folder: Where the validator may write.
        callbacks: Ultralytics callbacks; they may publish what they see.

    Returns:
        The validator, and the task's metrics by name, each in [0, 1].
    """
    args, task = copy(args), known_task(model)
    args.plots = False
    loader = build_dataloader(cast(Any, dataset), batch=_BATCH, workers=0, shuffle=False)
    with _compat.no_integrations():
        validator = task.validator(loader, save_dir=folder, args=args, _callbacks=callbacks)
    cast(Any, model).loss = lambda *_args, **_kwargs: (None, {})  # metrics only
    standin = SimpleNamespace(
        device=next(model.parameters()).device,
        data=data,
        amp=False,
        ema=SimpleNamespace(ema=model),
        loss_items={},
        stopper=SimpleNamespace(possible_stop=False),
        epoch=0,
        epochs=1,
        world_size=0,
        label_loss_items=lambda *_args, **_kwargs: {},
    )
    with torch.inference_mode():
        validator(trainer=cast(Any, standin))
    found = validator.metrics
    return validator, {name: float(value(found)) for name, value in task.metrics.items()}


def evaluate_weights(
    weights: Path, data: Path, *, imgsz: int, split: str = "val"
) -> dict[str, float]:
    """Metrics of a weights file on a split of a data set.

    Args:
        weights: A model's `.pt` file.
        data: The data set file.
        imgsz: Side of the images in pixels.
        split: train, val or test.
    """
    model = load_weights(weights)
    dataset = load_dataset(data, splits=(split,), task=known_task(open_source(model)).name)
    return evaluate_split(model, dataset, imgsz=imgsz, split=split)


def evaluate_split(
    model: nn.Module,
    dataset: DetectionDataset,
    *,
    imgsz: int,
    split: str = "val",
    settings: Mapping[str, Any] = _NOTHING,
) -> dict[str, float]:
    """Metrics of a model on a split of a data set that was read.

    Args:
        model: The model.
        dataset: The data set, of the model's task.
        imgsz: Side of the images in pixels.
        split: train, val or test.
        settings: Ultralytics' own, such as `classes` and `conf`.
    """
    images, args = open_split(
        known_task(model), dataset, imgsz=imgsz, split=split, settings=settings
    )
    with TemporaryDirectory() as name:
        return evaluate(model.eval(), images, args=args, data=describe(dataset), folder=Path(name))[
            1
        ]


def open_split(
    task: Task,
    dataset: DetectionDataset,
    *,
    imgsz: int,
    split: str = "val",
    settings: Mapping[str, Any] = _NOTHING,
) -> tuple[TaskImages, IterableSimpleNamespace]:
    """Images to validate on, and the settings to do it with; arguments as in `evaluate_split`."""
    args = IterableSimpleNamespace(
        **{**vars(DEFAULT_CFG), **settings, "imgsz": imgsz, "task": task.name}
    )
    how = ImageSettings(data=describe(dataset), imgsz=imgsz, hyp=args, augment=False, rect=True)
    return open_images(task, getattr(dataset, split), how), args
