"""How long a run takes, from the time that one step and one image take."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

# Parameters of YOLOv8n with the 80 classes of COCO, where no model is opened to count them: in
# disjoint pieces, and what each part of `trainable` is made of.
_PIECES = {
    "film of backbone": 5_024,
    "film of neck": 1_152,
    "film of last neck blocks": 2_688,
    "film of head": 1_728,
    "classes": 19_440,
    "boxes": 12_480,
    "low rank": 12_000,
    "rest of head": 864_000,
    "rest of last neck blocks": 651_264,
    "rest": 1_599_408,
}
_NECK_FILM = {"film of neck", "film of last neck blocks", "film of head"}
_PARTS = {
    "all": set(_PIECES) - {"low rank"},
    "film": {"film of backbone", *_NECK_FILM},
    "neck_film": _NECK_FILM,
    "class_film": _NECK_FILM,  # at most
    "class_low_rank": {"low rank"},  # at most
    "last_neck": {"film of last neck blocks", "rest of last neck blocks"},
    "classes": {"classes"},
    "head": {"classes", "boxes"},
    "whole_head": {"film of head", "classes", "boxes", "rest of head"},
}


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """What a step takes on this machine: seconds_per_step + images · seconds_per_image.

    Layers in front of what trains are run once for each state of an image, where there are few
    states: that is seconds_per_new_image more.

    Attributes:
        model: What was measured.
        imgsz: Side of the images in pixels.
        device: Where.
        seconds_per_image: Gradient of one image, clipped and summed.
        seconds_per_step: Noise and update, however many images a step has.
        parameters: Number of trained parameters.
        seconds_per_new_image: What an image takes more in a state that is not known yet.
    """

    model: str
    imgsz: int
    device: str
    seconds_per_image: float
    seconds_per_step: float
    parameters: int
    seconds_per_new_image: float = 0.0

    def seconds(self, *, steps: int, expected_images: float, states: float = math.inf) -> float:
        """Expected seconds of that many steps, without validation or slow disks.

        Args:
            steps: Number of steps.
            expected_images: Images in each.
            states: States of all images, each image and its mirror image being two; infinite
                where augmentation makes a new one each time.
        """
        images = steps * expected_images
        new = min(images, states) * self.seconds_per_new_image
        return steps * self.seconds_per_step + images * self.seconds_per_image + new

    def images_in(self, seconds: float) -> float:
        """Images that can be read in so many seconds, each of them new, steps not counted."""
        return seconds / (self.seconds_per_image + self.seconds_per_new_image)

    def scaled(self, factor: float) -> StepTime:
        """The same where an image takes so many times as long.

        A unit of several images takes as many times as long as one; where several processes share
        them, a part of it.
        """
        return replace(
            self,
            seconds_per_image=self.seconds_per_image * factor,
            seconds_per_new_image=self.seconds_per_new_image * factor,
        )


# Measures a model (None for the usual one) with images of a side, training some parts, zoomed.
Measure = Callable[[str | None, int, str | None, int], StepTime]


def usual_parameters(trainable: str) -> int:
    """Trained parameters of YOLOv8n for COCO; other models differ, the order is the same."""
    pieces: set[str] = set()
    for part in trainable.split("+"):
        pieces |= _PARTS[part]
    return sum(_PIECES[piece] for piece in pieces)
