"""How long a run takes, from the time that one step and one image take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

# Parameters of YOLOv8n with the 80 classes of COCO, where no model is opened to count them.
_USUAL_PARAMETERS = {"all": 3_157_184, "film": 10_592, "head": 31_920, "whole_head": 897_648}
_FILM_OF_WHOLE_HEAD = 1_728  # counted in both


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """What a step takes on this machine: seconds_per_step + images · seconds_per_image.

    Attributes:
        model: What was measured.
        imgsz: Side of the images in pixels.
        device: Where.
        seconds_per_image: Gradient of one image, clipped and summed.
        seconds_per_step: Noise and update, however many images a step has.
        parameters: Number of trained parameters.
    """

    model: str
    imgsz: int
    device: str
    seconds_per_image: float
    seconds_per_step: float
    parameters: int

    def seconds(self, *, steps: int, expected_batch_size: int) -> float:
        """Expected seconds of that many steps, without validation or slow disks."""
        return steps * (self.seconds_per_step + expected_batch_size * self.seconds_per_image)


# Measures a model (None for the usual one) with images of a side, training some parts.
Measure = Callable[[str | None, int, str | None], StepTime]


def usual_parameters(trainable: str) -> int:
    """Trained parameters of YOLOv8n for COCO; other models differ, the order is the same."""
    parts = trainable.split("+")
    shared = _FILM_OF_WHOLE_HEAD if {"film", "whole_head"} <= set(parts) else 0
    whole = 31_920 if {"head", "whole_head"} <= set(parts) else 0  # the head is in whole_head
    return sum(_USUAL_PARAMETERS[part] for part in parts) - shared - whole
