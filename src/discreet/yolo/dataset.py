"""From one index to one augmented image; nothing here sees two images at once.

Ultralytics' own transforms do the work, so `hsv_h`, `degrees`, `fliplr`, … keep their meaning.
What is replaced is what looks beyond one image or writes beside the data set: the label cache,
the image check that rewrites files, the `.npy` cache, the partners of mosaic and mixup, cutmix and
copy-paste.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import cv2
import numpy as np
from ultralytics.data.augment import (
    Albumentations,
    Compose,
    CopyPaste,
    CutMix,
    Format,
    LetterBox,
    RandomFlip,
    RandomHSV,
    RandomPerspective,
)
from ultralytics.data.dataset import YOLODataset
from ultralytics.utils import IterableSimpleNamespace
from ultralytics.utils.patches import imread

from discreet.data import DetectionDataset, ImageRecord
from discreet.errors import StorageError
from discreet.yolo.flips import Flips
from discreet.yolo.mixing import MIXING, Partners, mixed_with
from discreet.yolo.seeding import seeded

# An image in one of its states: its digest, and which flips it gets.
Key = tuple[bytes, int]
# (step, image) for training, or (step, image, view) for another view of it.
Index = tuple[int, int] | tuple[int, int, int]

_SINGLE_IMAGE = (RandomPerspective, RandomHSV, RandomFlip, LetterBox, Format)
_BETWEEN_IMAGES = (CutMix, CopyPaste)
_CACHE_BYTES = 1 << 30


def describe(dataset: DetectionDataset) -> dict[str, Any]:
    """A validated data set in the form that Ultralytics passes around."""
    points = dataset.keypoints
    poses = (
        {}
        if points is None
        else {
            "kpt_shape": [points.count, points.columns],
            "flip_idx": list(points.mirrored),
        }
    )
    return {
        "task": dataset.task,
        "path": str(dataset.yaml.parent),
        "train": [str(record.image) for record in dataset.train],
        "val": [str(record.image) for record in dataset.val],
        "nc": dataset.nc,
        "names": dict(enumerate(dataset.names)),
        "channels": 3,
        **poses,
    }


@dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """How the images of a split are turned into what a model sees.

    Attributes:
        data: Task, class names and number, as Ultralytics wants them: see `describe`.
        imgsz: Side of the training images in pixels.
        hyp: Augmentation settings, and `single_cls` and `classes`: all objects as one class, and
            the classes whose objects are kept (None: all).
        augment: Whether to augment.
        seed: Seeds augmentation, each (step, image) with a stream of its own.
        rect: Letterbox by neighbours' shapes: for public inference only, never for training.
        batch_size: Images per batch where `rect`.
        stride: Largest stride of the model.
        partners: Public images that mosaic and mixup take; none: other views of the same image.

    Raises:
        ValueError: Training images would take their shape from their neighbours.
    """

    data: dict[str, Any]
    imgsz: int
    hyp: IterableSimpleNamespace
    augment: bool
    seed: int = 0
    rect: bool = False
    batch_size: int = 16
    stride: int = 32
    partners: tuple[ImageRecord, ...] = ()

    def __post_init__(self) -> None:
        if self.augment and self.rect:
            raise ValueError("rectangular training shapes one image by its neighbours")


class RecordDataset(YOLODataset):
    """Ultralytics' data set over validated records, read-only.

    Args:
        records: The images of one split.
        settings: What is done to them.

    Attributes:
        flips: The augmentation, where it only flips.
    """

    flips: Flips | None = None

    def __init__(self, records: Sequence[ImageRecord], settings: ImageSettings) -> None:
        self.current = 0
        self._records = records
        self._settings = settings
        self._seed = settings.seed
        self._identity = {str(r.image): int.from_bytes(r.digest, "big") for r in records}
        self._side = settings.imgsz
        self._kept: dict[int, tuple[np.ndarray, tuple[int, int]]] = {}
        self._kept_bytes = 0
        hyp: Any = settings.hyp
        super().__init__(
            img_path="",
            imgsz=settings.imgsz,
            augment=settings.augment,
            hyp=hyp,
            rect=settings.rect,
            batch_size=settings.batch_size,
            stride=settings.stride,
            pad=0.0 if settings.augment else 0.5,
            single_cls=hyp.single_cls,
            classes=hyp.classes,
            data=settings.data,
            task=settings.data.get("task", "detect"),
        )

    def get_img_files(self, img_path: str | list[str]) -> list[str]:  # noqa: ARG002
        """Files of the records, in their order."""
        return [str(record.image) for record in self._records]

    def get_labels(self) -> list[dict[str, Any]]:
        """Labels of the records; nothing is read, cached or verified again."""
        return [
            {
                "im_file": str(record.image),
                "shape": (record.height, record.width),
                "cls": record.classes.astype(np.float32).reshape(-1, 1),
                "bboxes": record.boxes.astype(np.float32).reshape(-1, 4),
                "segments": list(record.outlines),
                "keypoints": record.keypoints,
                "normalized": True,
                "bbox_format": "xywh",
            }
            for record in self._records
        ]

    def load_image(
        self, i: int, rect_mode: bool = True, resize_short: bool = False
    ) -> tuple[np.ndarray, tuple[int, int], tuple[int, int]]:
        """Decode an image and shrink or grow its long side to `imgsz`.

        Returns:
            The image (H, W, C) uint8 BGR, its original (height, width), and its new one.
        """
        del rect_mode, resize_short
        image, shape = self._kept.get(i) or self._decode(i)
        # Transforms write into the image: the kept one stays as it is.
        return image.copy(), shape, (image.shape[0], image.shape[1])

    def _decode(self, i: int) -> tuple[np.ndarray, tuple[int, int]]:
        # By `im_files`, not by record: `rect` sorts files and labels.
        original = imread(self.im_files[i], flags=self.cv2_flag)
        if original is None:
            raise StorageError(
                "an image of the data set can no longer be read",
                where=self.im_files[i],
                do="restore the file, then resume the run",
            )
        image, shape = _resize_long_side(original, self._side), (*original.shape[:2],)
        if self.augment and self._kept_bytes + image.nbytes <= _CACHE_BYTES:
            self._kept[i] = image, shape
            self._kept_bytes += image.nbytes
        return image, shape

    def build_transforms(self, hyp: IterableSimpleNamespace) -> Compose:
        """Ultralytics' transforms, of which those that mix images have safe partners only."""
        stock = super().build_transforms(hyp)
        partners = Partners(
            self, public=self._public(), flips=vars(hyp), flip_idx=self.data.get("flip_idx")
        )
        transforms = list(_single_image_transforms(stock, partners))
        self.flips = Flips.of(transforms) if self.augment else None
        return Compose(transforms)

    def _public(self) -> RecordDataset | None:
        """The public images that private ones are mixed with, if there are any."""
        settings = self._settings
        if not settings.partners:
            return None
        return RecordDataset(settings.partners, replace(settings, partners=()))

    def __getitem__(self, index: int | Index) -> dict[str, Any]:
        """One image with its labels.

        Args:
            index: The image, or an `Index` for training. Augmentation depends on the step, the
                view and the image's content, never on its place in the list: there, removing one
                image would move all that follow, and with them their contributions.
        """
        if not isinstance(index, tuple):
            return super().__getitem__(index)
        self.current, key = index[1], self.key(index)
        with seeded(*self._entropy(index)):
            if key is None or self.flips is None:
                return super().__getitem__(index[1])
            return self.flips.transforms(key[1])(self.get_image_and_label(index[1]))

    def key(self, index: Index) -> Key | None:
        """What all that is asked for follows from; None if augmentation does more than flip."""
        if self.flips is None:
            return None
        return self._records[index[1]].digest, self.flips.draw(self._entropy(index))

    def _entropy(self, index: Index) -> tuple[int, ...]:
        step, image, *view = index
        return self._seed, step, self._identity[self.im_files[image]], *filter(None, view)


def _single_image_transforms(stock: Any, partners: Partners) -> Iterator[Any]:
    for transform in stock.transforms:
        if isinstance(transform, Compose):
            yield from _single_image_transforms(transform, partners)
        elif isinstance(transform, MIXING):
            if transform.p:
                yield mixed_with(transform, partners)
        elif isinstance(transform, _SINGLE_IMAGE):
            yield transform
        elif not isinstance(transform, (*_BETWEEN_IMAGES, Albumentations)):
            raise TypeError(f"{type(transform).__name__} is not known to keep to one image")


def _resize_long_side(image: np.ndarray, imgsz: int) -> np.ndarray:
    height, width = image.shape[:2]
    ratio = imgsz / max(height, width)
    if ratio != 1:
        size = (min(int(np.ceil(width * ratio)), imgsz), min(int(np.ceil(height * ratio)), imgsz))
        image = cast(np.ndarray, cv2.resize(image, size, interpolation=cv2.INTER_LINEAR))
    return image[..., None] if image.ndim == 2 else image
