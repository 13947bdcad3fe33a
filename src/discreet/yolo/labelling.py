"""A teacher labels images: its detections become their labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from ultralytics.data.dataset import YOLODataset
from ultralytics.utils import DEFAULT_CFG, IterableSimpleNamespace
from ultralytics.utils.nms import non_max_suppression
from ultralytics.utils.ops import scale_boxes, xyxy2xywhn

from discreet.data import ImageRecord
from discreet.storage import make_folder, write_text
from discreet.yolo.dataset import ImageSettings, RecordDataset

_BATCH = 16


def label_images(
    teacher: nn.Module,
    records: Sequence[ImageRecord],
    *,
    imgsz: int,
    conf: float,
    iou: float,
    max_det: int,
    folder: Path,
    progress: Callable[[int, int], None],
) -> tuple[ImageRecord, ...]:
    """The images with what the teacher finds in them for labels; theirs are not looked at.

    Args:
        teacher: A detector in evaluation mode, on its device.
        records: The images.
        imgsz: Side in pixels; every image is letterboxed to this square.
        conf: Least confidence of a detection.
        iou: Overlap from which the less confident of two detections is dropped.
        max_det: Most detections of an image.
        folder: Where label files in Ultralytics' format are written.
        progress: Called with (images done, images in all).

    Returns:
        The records with new labels, and new label files.
    """
    make_folder(folder)
    names: Any = teacher.names
    bare = [
        dataclasses.replace(record, classes=record.classes[:0], boxes=record.boxes[:0])
        for record in records
    ]
    images = RecordDataset(
        bare,
        ImageSettings(
            data={"nc": len(names), "names": names, "channels": 3},
            imgsz=imgsz,
            hyp=IterableSimpleNamespace(**{**vars(DEFAULT_CFG), "imgsz": imgsz}),
            augment=False,
        ),
    )
    device = next(teacher.parameters()).device
    labelled: list[ImageRecord] = []
    for start in range(0, len(bare), _BATCH):
        stop = min(start + _BATCH, len(bare))
        batch = YOLODataset.collate_fn([images[i] for i in range(start, stop)])
        pixels = batch["img"].to(device).float() / 255
        with torch.no_grad():
            found: Any = non_max_suppression(
                teacher(pixels)[0],
                conf,
                iou,
                max_det=max_det,
                end2end=bool(getattr(teacher.model[-1], "end2end", False)),  # pyright: ignore[reportIndexIssue, reportArgumentType]
                max_time_img=float("inf"),
            )
        for place, number in enumerate(range(start, stop)):
            shape, pad = batch["ori_shape"][place], batch["ratio_pad"][place]
            rows = found[place].cpu()
            boxes = scale_boxes(pixels.shape[2:], rows[:, :4], shape, ratio_pad=pad)
            boxes = np.asarray(xyxy2xywhn(boxes, w=shape[1], h=shape[0], clip=True), np.float32)
            classes = rows[:, 5].numpy().astype(np.int64)
            path = folder / f"{number:07}.txt"
            write_text(path, _as_lines(classes, boxes))
            labelled.append(
                dataclasses.replace(bare[number], label=path, classes=classes, boxes=boxes)
            )
        progress(stop, len(bare))
    return tuple(labelled)


def _as_lines(classes: np.ndarray, boxes: np.ndarray) -> str:
    rows = zip(classes.tolist(), boxes.tolist(), strict=True)
    return "".join(f"{kind} {' '.join(f'{v:.6f}' for v in box)}\n" for kind, box in rows)
