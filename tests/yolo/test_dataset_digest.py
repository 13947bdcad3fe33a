"""The digest that a run is resumed by: it changes with every number that a label says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from discreet.data import DetectionDataset, ImageRecord
from discreet.yolo.checkpoint import dataset_digest

RECORD = ImageRecord(
    image=Path("/data/a.png"), label=None, width=9, height=9,
    classes=np.array([1]), boxes=np.full((1, 4), 0.5, np.float32),
    outlines=(np.full((3, 2), 0.25, np.float32),),
    keypoints=np.full((1, 2, 3), 0.125, np.float32), digest=b"a" * 16,
)  # fmt: skip


def digest(**changes: Any) -> str:
    record = replace(RECORD, **changes)
    return dataset_digest(DetectionDataset(yaml=Path("/d.yaml"), names=("x", "y"), train=(record,)))


@pytest.mark.parametrize(
    "changes",
    [
        {"digest": b"b" * 16},
        {"classes": np.array([0])},
        {"boxes": np.full((1, 4), 0.75, np.float32)},
        {"outlines": (np.full((3, 2), 0.75, np.float32),)},
        {"outlines": (np.full((2, 2), 0.25, np.float32), np.full((1, 2), 0.25, np.float32))},
        {"keypoints": np.full((1, 2, 3), 0.75, np.float32)},
        {"keypoints": None},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_another_label_is_another_data_set(changes: dict[str, Any]):
    assert digest(**changes) != digest()


def test_file_names_are_not_part_of_it():
    assert digest(image=Path("/elsewhere/b.png")) == digest()
