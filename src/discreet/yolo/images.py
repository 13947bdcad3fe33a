"""The images of a split, for any task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ultralytics.utils import IterableSimpleNamespace

from discreet.data import ImageRecord
from discreet.yolo.dataset import RecordDataset
from discreet.yolo.folders import FolderDataset
from discreet.yolo.tasks import CLASSIFY, Task

TaskImages = RecordDataset | FolderDataset


def open_images(
    task: Task,
    records: Sequence[ImageRecord],
    *,
    data: dict[str, Any],
    imgsz: int,
    hyp: IterableSimpleNamespace,
    augment: bool,
    seed: int = 0,
    rect: bool = False,
    batch_size: int = 16,
    stride: int = 32,
) -> TaskImages:
    """The images of a split; arguments as for `RecordDataset`.

    Args:
        task: What the labels are for.
        records: The images.
        data: Task, class names and number, as Ultralytics wants them.
        imgsz: Side of the images in pixels.
        hyp: Augmentation settings, and `single_cls` and `classes`.
        augment: Whether to augment.
        seed: Seeds augmentation.
        rect: Letterbox by neighbours' shapes, where the task's model takes such images.
        batch_size: Images per batch where `rect`.
        stride: Largest stride of the model.
    """
    if task is CLASSIFY:
        return FolderDataset(records, imgsz=imgsz, hyp=hyp, augment=augment, seed=seed)
    settings: Any = hyp
    return RecordDataset(
        records,
        data=data,
        imgsz=imgsz,
        hyp=hyp,
        augment=augment,
        seed=seed,
        rect=rect and task.rectangular,
        batch_size=batch_size,
        stride=stride,
        single_cls=settings.single_cls,
        classes=settings.classes,
    )
