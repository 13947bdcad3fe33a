"""From one index to one augmented image of a class, for classification.

Ultralytics' own transforms (torchvision's) do the work; all of them see one image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import torch
from PIL import Image
from torch.utils.data import Dataset
from ultralytics.data.augment import classify_augmentations, classify_transforms
from ultralytics.utils.patches import imread

from discreet.data import ImageRecord
from discreet.errors import StorageError
from discreet.yolo.dataset import ImageSettings, Index, Key
from discreet.yolo.seeding import seeded


class FolderDataset(Dataset[dict[str, Any]]):
    """Images with one class each, read-only.

    Args:
        records: The images of one split.
        settings: What is done to them; they are cut out, or scaled and cut, to a square.
    """

    flips = None  # crops are never the same twice

    def __init__(self, records: Sequence[ImageRecord], settings: ImageSettings) -> None:
        self._records = records
        self._seed = settings.seed
        hyp: Any = settings.hyp
        low, high = _scales(hyp.scale)
        self._transforms: Any = (
            classify_augmentations(
                size=settings.imgsz,
                scale=(low, high),
                hflip=hyp.fliplr,
                vflip=hyp.flipud,
                erasing=hyp.erasing,
                auto_augment=hyp.auto_augment,
                hsv_h=hyp.hsv_h,
                hsv_s=hyp.hsv_s,
                hsv_v=hyp.hsv_v,
            )
            if settings.augment
            else classify_transforms(size=settings.imgsz)
        )

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int | Index) -> dict[str, Any]:
        """One image with its class; index as for `RecordDataset`."""
        if not isinstance(index, tuple):
            return self._load(index)
        step, image, *view = index
        identity = int.from_bytes(self._records[image].digest, "big")
        with seeded(self._seed, step, identity, *filter(None, view)):
            return self._load(image)

    def key(self, index: Index) -> Key | None:  # noqa: ARG002 - as `RecordDataset`
        """What an image's features could be known by: nothing, see `flips`."""
        return None

    def _load(self, image: int) -> dict[str, Any]:
        record = self._records[image]
        pixels = imread(str(record.image))
        if pixels is None:
            raise StorageError(
                "an image of the data set can no longer be read",
                where=str(record.image),
                do="restore the file, then resume the run",
            )
        colours = Image.fromarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
        return {"img": self._transforms(colours), "cls": int(record.classes[0])}

    @staticmethod
    def collate_fn(batch: list[dict[str, Any]]) -> dict[str, Any]:
        """Images (B, 3, H, W), normalised, their classes (B,), and whose they are (B,)."""
        return {
            "img": torch.stack([item["img"] for item in batch]),
            "cls": torch.tensor([item["cls"] for item in batch]),
            "batch_idx": torch.arange(len(batch)).float(),
        }


def _scales(scale: float | list[float]) -> tuple[float, float]:
    """Shares of an image's area that a crop may have; Ultralytics' `scale` is what may go."""
    return (scale[0], scale[1]) if isinstance(scale, list) else (1.0 - scale, 1.0)
