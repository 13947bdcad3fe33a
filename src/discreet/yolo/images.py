"""The images of a split, for any task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from discreet.data import ImageRecord
from discreet.yolo.dataset import ImageSettings, RecordDataset
from discreet.yolo.folders import FolderDataset
from discreet.yolo.tasks import CLASSIFY, Task

TaskImages = RecordDataset | FolderDataset


def open_images(task: Task, records: Sequence[ImageRecord], settings: ImageSettings) -> TaskImages:
    """The images of a split.

    Args:
        task: What the labels are for.
        records: The images.
        settings: What is done to them; `rect` where the task's model takes such images.
    """
    if task is CLASSIFY:
        return FolderDataset(records, settings)
    return RecordDataset(records, replace(settings, rect=settings.rect and task.rectangular))
