"""Figures for the report, of the released weights on public validation images."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import nn
from ultralytics.models.yolo.detect import DetectionValidator

from discreet.statement.report import Box, ClassCurve, Sample, ValidationFigures
from discreet.yolo.dataset import RecordDataset

_SAMPLES = 6
_CONFIDENCE = 0.25  # as stock `predict` shows them
_RECALLS = 41
_LONGEST_SIDE = 480
_QUALITY = 82


def validation_figures(
    validator: DetectionValidator, model: nn.Module, dataset: RecordDataset
) -> ValidationFigures:
    """Curves and a few images with what was found in them.

    Args:
        validator: Has validated the model on the data set.
        model: The detector, on its device.
        dataset: Public images, letterboxed.
    """
    names = cast(Mapping[int, str], cast(Any, validator).metrics.names)
    labelled = [i for i, label in enumerate(dataset.labels) if len(label["cls"])]
    shown = _spread(labelled or range(len(dataset)), _SAMPLES)
    return ValidationFigures(
        images=len(dataset),
        confidence=_CONFIDENCE,
        classes=tuple(_curves(validator, names)),
        samples=tuple(_sample(validator, model, dataset, i, names) for i in shown),
    )


def _spread(places: Sequence[int], most: int) -> list[int]:
    """At most so many of the places, evenly spaced."""
    count = min(most, len(places))
    return [places[int((i + 0.5) * len(places) / count)] for i in range(count)]


def _curves(validator: DetectionValidator, names: Mapping[int, str]) -> Iterator[ClassCurve]:
    metrics = cast(Any, validator).metrics
    box = metrics.box
    if not len(box.all_ap):  # nothing was found, or nothing is labelled
        return
    places = np.linspace(0, box.prec_values.shape[1] - 1, _RECALLS).round().astype(int)
    for i, index in enumerate(map(int, box.ap_class_index)):
        yield ClassCurve(
            name=str(names[index]),
            objects=int(metrics.nt_per_class[index]),
            ap50=float(box.ap50[i]),
            ap50_95=float(box.ap[i]),
            precision=tuple(float(value) for value in box.prec_values[i][places]),
        )


def _sample(
    validator: DetectionValidator,
    model: nn.Module,
    dataset: RecordDataset,
    index: int,
    names: Mapping[int, str],
) -> Sample:
    seen = dataset[index]
    device = next(model.parameters()).device
    with torch.inference_mode():
        output = model(seen["img"][None].to(device).float() / 255)
        found = cast(Any, validator).postprocess(output)[0]
    pixels, _, (height, width) = dataset.load_image(index)
    # Boxes are of the letterboxed image: its margins go.
    left, top = seen["ratio_pad"][1]
    sides = np.array([width, height, width, height], dtype=np.float64)
    corners = (found["bboxes"].cpu().numpy() - [left, top, left, top]) / sides
    confidences = found["conf"].tolist()
    detections = [
        _box(corner, name=str(names[int(cls)]), confidence=confidence)
        for corner, confidence, cls in zip(corners, confidences, found["cls"].tolist(), strict=True)
        if confidence >= _CONFIDENCE
    ]
    label = dataset.labels[index]
    centres, sizes = label["bboxes"][:, :2], label["bboxes"][:, 2:]
    labels = [
        _box(corner, name=str(names[int(cls)]))
        for corner, cls in zip(
            np.concatenate([centres - sizes / 2, centres + sizes / 2], 1),
            label["cls"].reshape(-1),
            strict=True,
        )
    ]
    jpeg, shape = _encode(pixels)
    return Sample(
        jpeg=jpeg,
        width=shape[0],
        height=shape[1],
        labels=tuple(labels),
        detections=tuple(detections),
    )


def _box(corners: Any, *, name: str, confidence: float | None = None) -> Box:
    """A box from its corners (x1, y1, x2, y2) in shares of the image, cut at its edges."""
    x1, y1, x2, y2 = (float(value) for value in np.clip(corners, 0, 1))
    return Box(name=name, left=x1, top=y1, width=x2 - x1, height=y2 - y1, confidence=confidence)


def _encode(pixels: np.ndarray) -> tuple[bytes, tuple[int, int]]:
    """A JPEG of bare pixels (H, W, C) uint8 BGR, made small, and its width and height."""
    colours = pixels[..., ::-1] if pixels.shape[-1] == 3 else pixels[..., 0]
    image = Image.fromarray(np.ascontiguousarray(colours)).convert("RGB")
    image.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    data = io.BytesIO()
    image.save(data, "JPEG", quality=_QUALITY, optimize=True)
    return data.getvalue(), image.size
