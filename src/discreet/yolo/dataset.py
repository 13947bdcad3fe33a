"""From one index to one augmented image; nothing here sees two images at once.

Ultralytics' own transforms do the work, so `hsv_h`, `degrees`, `fliplr`, … keep their meaning.
What is replaced is what looks beyond one image or writes beside the data set: the label cache,
the image check that rewrites files, the `.npy` cache, the partners of mosaic and mixup, cutmix and
copy-paste.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, cast

import cv2
import numpy as np
from torch.utils.data import DataLoader
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
from discreet.yolo.mixing import MIXING, OwnViews, among_views
from discreet.yolo.seeding import seeded

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


class RecordDataset(YOLODataset):
    """Ultralytics' data set over validated records, read-only.

    Args:
        records: The images of one split.
        data: Task, class names and number, as Ultralytics wants them: see `describe`.
        imgsz: Side of the training images in pixels.
        hyp: Augmentation settings.
        augment: Whether to augment.
        seed: Seeds augmentation, each (step, image) with a stream of its own.
        rect: Letterbox by neighbours' shapes: for public inference only, never for training.
        batch_size: Images per batch where `rect`.
        stride: Largest stride of the model.
        single_cls: Treat all classes as one.
        classes: Keep objects of these classes only; None keeps all.
    """

    def __init__(
        self,
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
        single_cls: bool = False,
        classes: list[int] | None = None,
    ) -> None:
        if augment and rect:
            raise ValueError("rectangular training shapes one image by its neighbours")
        self.current = 0
        self._records = records
        self._seed = seed
        self._identity = {str(r.image): int.from_bytes(r.digest, "big") for r in records}
        self._side = imgsz
        self._kept: dict[int, tuple[np.ndarray, tuple[int, int]]] = {}
        self._kept_bytes = 0
        super().__init__(
            img_path="",
            imgsz=imgsz,
            augment=augment,
            hyp=hyp,
            rect=rect,
            batch_size=batch_size,
            stride=stride,
            pad=0.0 if augment else 0.5,
            single_cls=single_cls,
            classes=classes,
            data=data,
            task=data.get("task", "detect"),
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
        """Ultralytics' transforms, of which those that mix images mix views of one."""
        stock = super().build_transforms(hyp)
        return Compose(
            list(
                _single_image_transforms(
                    stock, OwnViews(self, vars(hyp), flip_idx=self.data.get("flip_idx"))
                )
            )
        )

    def __getitem__(self, index: int | tuple[int, int] | tuple[int, int, int]) -> dict[str, Any]:
        """One image with its labels.

        Args:
            index: The image, or (step, image) for training, or (step, image, view) for another
                view of it. Augmentation depends on the step, the view and the image's content,
                never on its place in the list: there, removing one image would move all that
                follow, and with them their contributions.
        """
        if not isinstance(index, tuple):
            return super().__getitem__(index)
        step, image, *view = index
        self.current = image
        with seeded(self._seed, step, self._identity[self.im_files[image]], *filter(None, view)):
            return super().__getitem__(image)


def _single_image_transforms(stock: Any, views: OwnViews) -> Iterator[Any]:
    for transform in stock.transforms:
        if isinstance(transform, Compose):
            yield from _single_image_transforms(transform, views)
        elif isinstance(transform, MIXING):
            if transform.p:
                yield among_views(transform, views)
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


class TrainingImages(Protocol):
    """What a run needs of its images, whatever the task."""

    @staticmethod
    def collate_fn(batch: list[dict[str, Any]]) -> dict[str, Any]:
        """Several images with their labels as a batch."""
        ...

    def __getitem__(self, index: tuple[int, int, int]) -> dict[str, Any]:
        """One view of one image in one step: (step, image, view)."""
        ...


class StepParts(Protocol):
    """Gives the parts of one step after the other."""

    def next_step(self) -> Iterator[dict[str, Any]]:
        """The parts of the next step; none for an empty draw."""
        ...


class MicroBatches:
    """Loads the drawn images of each step in parts; workers load ahead of the training.

    Args:
        dataset: The training images.
        draws: The draw of each step to come, in order; consumed lazily, maybe ahead.
        first_step: Number of the first of these steps.
        micro_batch_size: Most images of a part.
        workers: Loading processes; 0 loads in this one.
        pin_memory: Whether to load into page-locked memory, for a GPU.
        views: Augmented views of each drawn image. They stand one behind the other in a part,
            which then has the key `views`; a part never breaks an image's views apart.
    """

    def __init__(
        self,
        dataset: TrainingImages,
        draws: Iterator[Sequence[int]],
        *,
        first_step: int,
        micro_batch_size: int,
        workers: int = 0,
        pin_memory: bool = False,
        views: int = 1,
    ) -> None:
        self._parts_of_step: deque[int] = deque()
        self._size = max(1, micro_batch_size // views) * views
        self._views = views
        loader = DataLoader(
            cast(Any, dataset),
            batch_sampler=cast(Any, self._parts(draws, first_step)),
            collate_fn=dataset.collate_fn,
            num_workers=workers,
            pin_memory=pin_memory,
        )
        self._loaded = iter(loader)
        self._pending: Any = None

    def _parts(
        self, draws: Iterator[Sequence[int]], first_step: int
    ) -> Iterator[list[tuple[int, int, int]]]:
        for step, draw in enumerate(draws, start=first_step):
            drawn = [(step, int(image), view) for image in draw for view in range(self._views)]
            parts = [drawn[i : i + self._size] for i in range(0, len(drawn), self._size)]
            self._parts_of_step.append(len(parts))
            yield from parts

    def next_step(self) -> Iterator[dict[str, Any]]:
        """The parts of the next step; none for an empty draw."""
        if not self._parts_of_step:
            self._pending = next(self._loaded, None)  # lets the sampler draw the step
        for _ in range(self._parts_of_step.popleft()):
            batch = self._pending if self._pending is not None else next(self._loaded)
            self._pending = None
            yield batch if self._views == 1 else {**batch, "views": self._views}
