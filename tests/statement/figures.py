"""Figures on validation images that nobody took."""

from __future__ import annotations

import io

from PIL import Image

from discreet.statement.report import Box, ClassCurve, Sample, ValidationFigures


def picture(width: int = 96, height: int = 64) -> bytes:
    """A plain JPEG."""
    data = io.BytesIO()
    Image.new("RGB", (width, height), (140, 120, 90)).save(data, "JPEG")
    return data.getvalue()


def validation_figures(
    *names: str, samples: int = 2, jpeg: bytes | None = None
) -> ValidationFigures:
    """Figures of these classes."""
    names = names or ("red cell", "white cell")
    curves = tuple(
        ClassCurve(
            name=name,
            objects=100 - i,
            ap50=0.8,
            ap50_95=0.5,
            precision=tuple(1 - (k / 20) ** 3 for k in range(21)),
        )
        for i, name in enumerate(names)
    )
    box = Box(name=names[0], left=0.1, top=0.2, width=0.3, height=0.4)
    found = Box(name=names[0], left=0.1, top=0.2, width=0.3, height=0.4, confidence=0.9)
    sample = Sample(
        jpeg=picture() if jpeg is None else jpeg,
        width=96,
        height=64,
        labels=(box,),
        detections=(found,),
    )
    return ValidationFigures(images=8, confidence=0.25, classes=curves, samples=(sample,) * samples)
