"""Mosaic and mixup among views of one image.

Ultralytics' own pastes or blends several images, so that one image is in several gradients. Here
the partners of an image are other views of itself: what comes out is still a random function of
one image. `mosaic` and `mixup` keep their meaning: the chance that an image is mixed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from ultralytics.data.augment import Compose, MixUp, Mosaic, RandomFlip

MIXING = (Mosaic, MixUp)


class _Images(Protocol):
    current: int
    """The image that is being loaded."""

    def get_image_and_label(self, index: int) -> dict[str, Any]: ...


class OwnViews:
    """Stands for the data set where a mixing transform looks for partners.

    Args:
        images: The training images.
        flips: Chances of flips, by Ultralytics' names.
        flip_idx: Which key point takes each one's place in a mirrored image.
    """

    cache = "ram"  # partners are drawn by number, which is of no account here

    def __init__(
        self, images: _Images, flips: Mapping[str, float], *, flip_idx: list[int] | None = None
    ) -> None:
        self._images = images
        points = flip_idx or None
        self._flips = Compose(
            [
                RandomFlip(direction="vertical", p=flips["flipud"], flip_idx=points),
                RandomFlip(direction="horizontal", p=flips["fliplr"], flip_idx=points),
            ]
        )

    def __len__(self) -> int:
        return 1

    def get_image_and_label(self, index: int) -> dict[str, Any]:  # noqa: ARG002
        """A view of the present image, whatever number was drawn."""
        return self._flips(self._images.get_image_and_label(self._images.current))


def among_views(transform: Any, views: OwnViews) -> Any:
    """The mixing transform, with views of one image for partners.

    Raises:
        TypeError: It is none whose partners come from its `dataset`.
    """
    if not isinstance(transform, MIXING):
        raise TypeError(f"{type(transform).__name__} is not known to draw partners by number")
    transform.dataset = views
    if isinstance(transform, Mosaic):
        transform.buffer_enabled = False
    if transform.pre_transform is not None:
        for step in transform.pre_transform.transforms:
            if isinstance(step, MIXING):
                among_views(step, views)
    return transform
