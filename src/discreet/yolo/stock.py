"""Ultralytics' own training, without privacy: what a private run is compared with.

It works on links to the images in a folder of its own, since it writes beside what it reads.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from discreet.data import DetectionDataset, ImageRecord
from discreet.storage import make_folder
from discreet.yolo import _compat
from discreet.yolo.dataset import describe
from discreet.yolo.model import open_source

_OF_LABELS = ("names", "kpt_shape", "flip_idx")


@dataclass(frozen=True, kw_only=True)
class StockRun:
    """A finished stock training.

    Attributes:
        weights: The last epoch's weights: choosing an epoch would look at the validation images.
        seconds: Training time of all epochs, without set-up and validation.
    """

    weights: Path
    seconds: float


def train_stock(
    dataset: DetectionDataset,
    *,
    model: str,
    weights: str | None = None,
    epochs: int,
    folder: Path,
    settings: Mapping[str, Any],
) -> StockRun:
    """Train as `yolo train` does, without drawing or validating on the way.

    Args:
        dataset: The data set; only read.
        model: Weights or an architecture.
        weights: What an architecture starts from, if not from random weights.
        epochs: Passes over the images.
        folder: Where to write: links, logs and weights.
        settings: Ultralytics arguments such as `imgsz`, `device`, `workers`.

    Raises:
        ModelError: The model is not a detector that can be read without running code from it.
    """
    for source in filter(None, (model, weights)):
        open_source(source)  # Ultralytics would unpickle whatever it is given
    data = _link(dataset, folder / "data")
    seconds = 0.0
    began = 0.0

    def start(_: Any) -> None:
        nonlocal began
        began = time.monotonic()

    def end(_: Any) -> None:
        nonlocal seconds
        seconds += time.monotonic() - began

    from ultralytics import YOLO  # late, after `_compat` has closed the network

    with _compat.no_integrations():
        yolo: Any = YOLO(model)
        if weights is not None:
            yolo.load(weights)
        yolo.add_callback("on_train_epoch_start", start)
        yolo.add_callback("on_train_epoch_end", end)
        yolo.train(
            **settings,
            data=str(data),
            epochs=epochs,
            project=str(folder),
            name="run",
            exist_ok=True,
            val=False,
            plots=False,
            verbose=False,
        )
    return StockRun(weights=folder / "run" / "weights" / "last.pt", seconds=seconds)


def _link(dataset: DetectionDataset, folder: Path) -> Path:
    """A data set of links to the images and copies of the labels; returns its YAML file."""
    for split, records in (("train", dataset.train), ("val", dataset.val)):
        _link_split(folder, split, records)
    known = describe(dataset)
    described = {
        "path": str(folder),
        "train": "images/train",
        "val": "images/val",
        **{name: known[name] for name in _OF_LABELS if name in known},
    }
    data = folder / "data.yaml"
    data.write_text(json.dumps(described), encoding="utf-8")  # JSON is YAML
    return data


def _link_split(folder: Path, split: str, records: Sequence[ImageRecord]) -> None:
    images, labels = folder / "images" / split, folder / "labels" / split
    make_folder(images)
    make_folder(labels)
    for number, record in enumerate(records):
        (images / f"{number:07}{record.image.suffix}").symlink_to(record.image)
        if record.label is not None:
            shutil.copyfile(record.label, labels / f"{number:07}.txt")
