"""What a report may show of public validation images: plain figures, whoever measured them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ClassCurve:
    """How well one class is found, over all thresholds of confidence.

    Attributes:
        name: The class, as in the weights.
        objects: Labelled objects of it.
        ap50: Average precision at IoU 0.5.
        ap50_95: Mean of the average precisions at IoU 0.5 to 0.95.
        precision: Precision at IoU 0.5 for recalls evenly spaced from 0 to 1, both included.
    """

    name: str
    objects: int
    ap50: float
    ap50_95: float
    precision: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Box:
    """An object in an image.

    Attributes:
        name: Its class.
        left: Left edge, as a share of the image's width.
        top: Upper edge, as a share of its height.
        width: As a share of the image's width.
        height: As a share of its height.
        confidence: The detector's; None for a label.
    """

    name: str
    left: float
    top: float
    width: float
    height: float
    confidence: float | None = None


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A public image, what is in it, and what the released weights found.

    Attributes:
        jpeg: The pixels, encoded anew: nothing but them may be in it.
        width: Pixels.
        height: Pixels.
        labels: What is in it.
        detections: What was found.
    """

    jpeg: bytes
    width: int
    height: int
    labels: tuple[Box, ...]
    detections: tuple[Box, ...]


@dataclass(frozen=True, kw_only=True)
class ValidationFigures:
    """Figures on public validation images. Of private ones there are none to give.

    Attributes:
        images: How many images were looked at.
        confidence: Least confidence of a detection that is shown.
        classes: One curve per class that has labelled objects.
        samples: A few of the images.
    """

    images: int
    confidence: float
    classes: tuple[ClassCurve, ...]
    samples: tuple[Sample, ...]
