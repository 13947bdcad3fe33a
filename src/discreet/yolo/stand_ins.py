"""Made-up images with made-up labels, for every task: what the check of a step is run on.

Each image is a batch of one, in the form in which the loader gives it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from discreet.yolo.tasks import CLASSIFY, ORIENTED, POSE, SEGMENT, Task

Batch = dict[str, Any]

_CROWD = 300


@dataclass(frozen=True, kw_only=True)
class StandIns:
    """Makes images of a task.

    Attributes:
        task: What the labels are for.
        size: Side in pixels.
        classes: Number of classes.
        kpt_shape: Key points of an object, and numbers of each, for poses.
        mask_ratio: How much smaller masks are than images.
    """

    task: Task
    size: int
    classes: int
    kpt_shape: tuple[int, int] | None = None
    mask_ratio: int = 4

    @property
    def alterations(self) -> tuple[str, ...]:
        """What can be done to an image."""
        if self.task is CLASSIFY:
            return ("noise of another class", "noise", "another class")
        return ("noise with 300 boxes", "noise", "300 boxes", "no boxes")

    def image(self, objects: int, generator: torch.Generator) -> Batch:
        """Noise with so many objects."""
        return {"img": self.pixels(generator)[None], **self.labels(objects, generator)}

    def altered(self, image: Mapping[str, Any], alteration: str, seed: int) -> Batch:
        """The image with other pixels, other labels, or both.

        Args:
            image: A batch of one.
            alteration: One of `alterations`.
            seed: What to draw from.
        """
        generator = torch.Generator().manual_seed(seed)
        found = dict(image)
        if alteration.startswith("noise"):
            found["img"] = self.pixels(generator)[None, :, : image["img"].shape[-2]]
        if alteration == "noise":
            return found
        if self.task is CLASSIFY:
            return found | {"cls": (image["cls"] + 1) % self.classes}
        return found | self.labels(0 if alteration == "no boxes" else _CROWD, generator)

    def pixels(self, generator: torch.Generator) -> Tensor:
        """An image (3, H, W): uint8, or float32 and normalised where the loader does that."""
        coarse = torch.rand(1, 3, 8, 8, generator=generator)
        smooth = torch.nn.functional.interpolate(
            coarse, size=(self.size, self.size), mode="bilinear"
        )[0]
        fine = torch.rand(3, self.size, self.size, generator=generator)
        shares = 0.7 * smooth + 0.3 * fine
        return shares if self.task is CLASSIFY else (shares * 255).to(torch.uint8)

    def labels(self, objects: int, generator: torch.Generator) -> Batch:
        """Labels of one image."""
        if self.task is CLASSIFY:
            kind = torch.randint(0, self.classes, (1,), generator=generator)
            return {"batch_idx": torch.zeros(1), "cls": kind}
        centres = torch.rand(objects, 2, generator=generator) * 0.6 + 0.2
        sides = torch.rand(objects, 2, generator=generator) * 0.3 + 0.05
        kinds = torch.randint(0, self.classes, (objects, 1), generator=generator).float()
        labels: Batch = {
            "batch_idx": torch.zeros(objects),
            "cls": kinds,
            "bboxes": torch.cat([centres, sides], 1),
        }
        more: Callable[[Batch, torch.Generator], Batch] | None = {
            SEGMENT.name: self._masks,
            POSE.name: self._key_points,
            ORIENTED.name: self._angles,
        }.get(self.task.name)
        return labels if more is None else labels | more(labels, generator)

    def _masks(self, labels: Batch, generator: torch.Generator) -> Batch:
        """Ellipses, later ones over earlier ones: object numbers from 1, and classes."""
        del generator
        side = self.size // self.mask_ratio
        places = (torch.arange(side) + 0.5) / side
        masks, classes = torch.zeros(1, side, side), torch.zeros(1, side, side)
        for number, (x, y, width, height) in enumerate(labels["bboxes"].tolist(), start=1):
            across, down = (places - x) / (width / 2), (places - y) / (height / 2)
            inside = across.square()[None, :] + down.square()[:, None] < 1
            masks[0][inside] = number
            classes[0][inside] = float(labels["cls"][number - 1])
        return {"masks": masks, "sem_masks": classes}

    def _key_points(self, labels: Batch, generator: torch.Generator) -> Batch:
        assert self.kpt_shape is not None
        boxes = labels["bboxes"][:, None]
        shape = (len(labels["bboxes"]), self.kpt_shape[0])
        inside = torch.rand(*shape, 2, generator=generator) - 0.5
        seen = torch.randint(0, 3, (*shape, 1), generator=generator).float()
        return {"keypoints": torch.cat([boxes[..., :2] + inside * boxes[..., 2:], seen], 2)}

    def _angles(self, labels: Batch, generator: torch.Generator) -> Batch:
        angles = torch.rand(len(labels["bboxes"]), 1, generator=generator) * torch.pi / 2
        return {"bboxes": torch.cat([labels["bboxes"], angles], 1)}
