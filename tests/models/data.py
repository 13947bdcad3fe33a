"""Small data sets of shapes for every task: bright triangles and squares on dark noise."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from discreet.data import TaskName

NAMES = ("triangle", "square")
SIDE = 64
SPLITS = {"train": 10, "val": 4}
_CORNERS = {0: 3, 1: 4}
_POINTS = 4  # of a pose: a triangle's fourth is not visible


def write_shapes(folder: Path, task: TaskName) -> Path:
    """Write a data set; returns what `data=` takes."""
    for split, count in SPLITS.items():
        for number in range(count):
            stream = np.random.default_rng([number, len(split)])
            if task == "classify":
                _write_class(folder, split, number, stream)
            else:
                _write_scene(folder, split, number, stream, task)
    if task == "classify":
        return folder
    lines = ["train: images/train", "val: images/val", f"names: [{', '.join(NAMES)}]"]
    if task == "pose":
        lines += [f"kpt_shape: [{_POINTS}, 3]", "flip_idx: [1, 0, 3, 2]"]
    data = folder / "data.yaml"
    data.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return data


def _write_class(folder: Path, split: str, number: int, stream: np.random.Generator) -> None:
    kind = number % 2
    canvas = _noise(stream)
    _draw(canvas, kind, stream)
    _save(folder / split / NAMES[kind] / f"{number}.png", canvas)


def _write_scene(
    folder: Path, split: str, number: int, stream: np.random.Generator, task: TaskName
) -> None:
    canvas = _noise(stream)
    lines: list[str] = []
    for _ in range(number % 4):  # some images are empty
        kind = int(stream.integers(2))
        lines.append(_label(task, kind, _draw(canvas, kind, stream) / SIDE))
    _save(folder / "images" / split / f"{number}.png", canvas)
    label = folder / "labels" / split / f"{number}.txt"
    label.parent.mkdir(parents=True, exist_ok=True)
    label.write_text("\n".join(lines), encoding="utf-8")


def _noise(stream: np.random.Generator) -> np.ndarray:
    return stream.integers(0, 60, (SIDE, SIDE, 3), dtype=np.uint8)


def _draw(canvas: np.ndarray, kind: int, stream: np.random.Generator) -> np.ndarray:
    """Draw a shape; returns its corners (corners, 2) in pixels."""
    centre, radius = stream.uniform(18, SIDE - 18, 2), stream.uniform(9, 16)
    turns = stream.uniform(0, 1) + np.arange(_CORNERS[kind]) / _CORNERS[kind]
    corners = centre + radius * np.stack([np.cos(turns * 2 * np.pi), np.sin(turns * 2 * np.pi)], 1)
    colour = [int(value) for value in stream.integers(120, 255, 3)]
    cv2.fillPoly(canvas, [corners.round().astype(np.int32)], colour)
    return corners


def _label(task: TaskName, kind: int, corners: np.ndarray) -> str:
    low, high = corners.min(0), corners.max(0)
    box = [*((low + high) / 2), *(high - low)]
    numbers: list[float]
    if task == "segment":
        numbers = corners.flatten().tolist()
    elif task == "obb":
        rectangle = cv2.boxPoints(cv2.minAreaRect(corners.astype(np.float32)))
        numbers = rectangle.flatten().clip(0, 1).tolist()
    elif task == "pose":
        seen = np.concatenate([corners, np.full((len(corners), 1), 2.0)], 1)
        points = np.zeros((_POINTS, 3))
        points[: len(seen)] = seen
        numbers = [*box, *points.flatten()]
    else:
        numbers = box
    return f"{kind} " + " ".join(f"{value:.5f}" for value in numbers)


def _save(path: Path, canvas: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(canvas).save(path)
