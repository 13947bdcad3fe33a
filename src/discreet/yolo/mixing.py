"""Mosaic and mixup among views of one image, or with public images.

Ultralytics' own pastes or blends several images, so that one image is in several gradients. Here
the partners of an image are other views of itself, or public images: what comes out is still a
random function of one private image. `mosaic` and `mixup` keep their meaning: the chance that an
image is mixed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from ultralytics.data.augment import Compose, MixUp, Mosaic, RandomFlip

MIXING = (Mosaic, MixUp)


class _Images(Protocol):
    current: int
    """The image that is being loaded."""

    def __len__(self) -> int: ...

    def get_image_and_label(self, index: int) -> dict[str, Any]: ...


class Partners:
    """Stands for the data set where a mixing transform looks for partners.

    Args:
        images: The training images.
        public: Public images, to be taken in place of views of the same image.
        flips: Chances of flips, by Ultralytics' names.
        flip_idx: Which key point takes each one's place in a mirrored image.
    """

    cache = "ram"  # partners are drawn by number, not from a buffer of those seen last

    def __init__(
        self,
        images: _Images,
        *,
        public: _Images | None = None,
        flips: Mapping[str, float],
        flip_idx: list[int] | None = None,
    ) -> None:
        self._images, self._public = images, public
        points = flip_idx or None
        self._flips = Compose(
            [
                RandomFlip(direction="vertical", p=flips["flipud"], flip_idx=points),
                RandomFlip(direction="horizontal", p=flips["fliplr"], flip_idx=points),
            ]
        )

    def __len__(self) -> int:
        return 1 if self._public is None else len(self._public)

    def get_image_and_label(self, index: int) -> dict[str, Any]:
        """The public image of this number; without any, a view of the present image."""
        if self._public is None:
            return self._flips(self._images.get_image_and_label(self._images.current))
        return self._flips(self._public.get_image_and_label(index))


def mixed_with(transform: Any, partners: Partners) -> Any:
    """The mixing transform, with these partners.

    Raises:
        TypeError: It is none whose partners come from its `dataset`.
    """
    if not isinstance(transform, MIXING):
        raise TypeError(f"{type(transform).__name__} is not known to draw partners by number")
    transform.dataset = partners
    if isinstance(transform, Mosaic):
        transform.buffer_enabled = False
    if transform.pre_transform is not None:
        for step in transform.pre_transform.transforms:
            if isinstance(step, MIXING):
                mixed_with(step, partners)
    return transform
