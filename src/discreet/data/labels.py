"""Read one label file as Ultralytics 8.4 does (data/utils.py, verify_image_label), line by line.

Differences: every problem is found, with its line, where Ultralytics drops the image at the first.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from discreet.data._reading import UnreadableError, read_text

COLUMNS = 5  # class x y w h
MIN_POLYGON_COLUMNS = 7  # class and three points
LOWEST, HIGHEST = np.float32(-0.01), np.float32(1.01)  # what Ultralytics allows around [0, 1]


@dataclass(frozen=True, kw_only=True, eq=False)
class Labels:
    """The boxes of one label file; k of them.

    Attributes:
        classes: Class numbers, int64 (k,), read-only.
        boxes: Centre x, centre y, width, height as shares of the image, float32 (k, 4), read-only.
        repeated: Lines that repeat an earlier one; left out.
        polygons: Whether the lines are polygons; each became its bounding box.
        keypoints: Whether key points were cut off.
        flat: Lines of boxes without area.
    """

    classes: NDArray[np.int64]
    boxes: NDArray[np.float32]
    repeated: tuple[int, ...] = ()
    polygons: bool = False
    keypoints: bool = False
    flat: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LabelProblem:
    """What is wrong in one line; line 1 is the first, None means the whole file."""

    line: int | None
    what: str


def label_path(image: Path) -> Path:
    """Where the labels of an image are: the last /images/ becomes /labels/, the suffix .txt."""
    images, labels = f"{os.sep}images{os.sep}", f"{os.sep}labels{os.sep}"
    return Path(labels.join(str(image).rsplit(images, 1)).rsplit(".", 1)[0] + ".txt")


def _frozen(
    classes: NDArray[np.float32], boxes: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    numbers, copied = classes.astype(np.int64), np.array(boxes, dtype=np.float32).reshape(-1, 4)
    numbers.setflags(write=False)
    copied.setflags(write=False)
    return numbers, copied


def no_labels() -> Labels:
    """The labels of a background image."""
    classes, boxes = _frozen(np.zeros(0, np.float32), np.zeros((0, 4), np.float32))
    return Labels(classes=classes, boxes=boxes)


def _numbers(words: list[str]) -> list[float] | str:
    values: list[float] = []
    for word in words:
        try:
            values.append(float(word))
        except ValueError:
            return f"{word!r} is not a number"
    return values


def _bounding_box(row: NDArray[np.float32]) -> NDArray[np.float32]:
    # Ultralytics, segments2boxes then xyxy2xywh, in the same order of float32 operations.
    x, y = row[1:].reshape(-1, 2).T
    left, top, right, bottom = x.min(), y.min(), x.max(), y.max()
    box = [row[0], (left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
    return np.array(box, dtype=np.float32)


def _column_problem(columns: int, polygons: bool) -> str | None:
    if not polygons:
        if columns == COLUMNS:
            return None
        return f"expected {COLUMNS} columns (class x y width height), found {columns}"
    if columns == COLUMNS:
        return "a box among polygons: a label file holds either boxes or polygons"
    if columns < MIN_POLYGON_COLUMNS or columns % 2 == 0:
        return f"expected a class and at least 3 points (x y each), found {columns} columns"
    return None


def _value_problems(
    rows: NDArray[np.float32], nc: int | None, single_cls: bool
) -> list[tuple[int, str]]:
    """Rows (k, 5) that are out of range: index and what is wrong, the first rule broken only."""
    number, boxes = rows[:, 0], rows[:, 1:]
    limit = np.inf if nc is None or single_cls else nc
    rules = (
        (~np.isfinite(rows).all(1), lambda _: "a value is not finite (nan or inf)"),
        (
            (number % 1 != 0) | (number < 0),
            lambda row: f"class {row[0]:g} is not a whole number >= 0",
        ),
        (
            number >= limit,
            lambda row: f"class {row[0]:.0f} is out of range: {nc} classes, 0 to {limit - 1}",
        ),
        ((boxes[:, 2:] < 0).any(1), lambda row: f"negative width or height in box {_box(row)}"),
        (
            (boxes < LOWEST).any(1) | (boxes > HIGHEST).any(1),
            lambda row: f"box {_box(row)} is out of range: values are shares of the image, 0 to 1",
        ),
    )
    broken = np.stack([mask for mask, _ in rules])  # (rules, k)
    return [
        (int(i), rules[int(broken[:, i].argmax())][1](rows[i]))
        for i in np.flatnonzero(broken.any(0))
    ]


def _box(row: NDArray[np.float32]) -> str:
    return " ".join(f"{value:g}" for value in row[1:])


def _first_of_each(
    rows: NDArray[np.float32], segments: list[NDArray[np.float32]] | None
) -> list[int]:
    # Ultralytics' order: sorted where something repeats, else as written.
    _, kept = np.unique(rows, axis=0, return_index=True)
    if len(kept) < len(rows) and segments is not None:
        # Different polygons may share a class and a bounding box.
        keys = np.array(
            [
                row[0].tobytes() + points.tobytes()
                for row, points in zip(rows, segments, strict=True)
            ],
            dtype=object,
        )
        _, kept = np.unique(keys, return_index=True)
    return kept.tolist() if len(kept) < len(rows) else list(range(len(rows)))


def parse_labels(
    text: str,
    *,
    nc: int | None,
    single_cls: bool = False,
    keypoint_columns: int = 0,
) -> tuple[Labels, list[LabelProblem]]:
    """Read the text of one label file.

    Args:
        text: One box a line, `class x y width height`, or one polygon a line, `class x y x y …`;
            shares of the image. Blank lines do not count.
        nc: Number of classes; None if it is not known, then any class number passes.
        single_cls: All classes become 0, and any class number passes.
        keypoint_columns: Number of key point columns that the data set file declares; lines with
            exactly that many beyond the box keep their box only.

    Returns:
        The boxes, none if there is any problem; and the problems, by line.
    """
    lines = [
        (number, words)
        for number, line in enumerate(text.splitlines(), start=1)
        if (words := line.split())
    ]
    with_keypoints = COLUMNS + keypoint_columns if keypoint_columns else None
    keypoints = any(len(words) == with_keypoints for _, words in lines)
    lines = [(n, words[:COLUMNS] if len(words) == with_keypoints else words) for n, words in lines]
    polygons = any(len(words) >= MIN_POLYGON_COLUMNS for _, words in lines)

    problems: list[LabelProblem] = []
    numbers: list[int] = []
    rows: list[NDArray[np.float32]] = []
    segments: list[NDArray[np.float32]] = []
    # What overflows or is undefined becomes infinite or nan, and is refused as such.
    with np.errstate(over="ignore", invalid="ignore"):
        for number, words in lines:
            values = _column_problem(len(words), polygons) or _numbers(words)
            if isinstance(values, str):
                problems.append(LabelProblem(line=number, what=values))
                continue
            row = np.array(values, dtype=np.float32)
            numbers.append(number)
            rows.append(_bounding_box(row) if polygons else row)
            segments.append(row[1:])
        table = np.array(rows, dtype=np.float32).reshape(-1, COLUMNS)
        wrong = _value_problems(table, nc, single_cls)
    problems += [LabelProblem(line=numbers[i], what=what) for i, what in wrong]
    if problems or not rows:
        return no_labels(), sorted(problems, key=lambda problem: problem.line or 0)

    kept = _first_of_each(table, segments if polygons else None)
    classes, boxes = _frozen(table[kept, 0] * (not single_cls), table[kept, 1:])
    labels = Labels(
        classes=classes,
        boxes=boxes,
        repeated=tuple(sorted(set(numbers) - {numbers[i] for i in kept})),
        polygons=polygons,
        keypoints=keypoints,
        flat=tuple(numbers[i] for i in np.flatnonzero((table[:, 3:] == 0).any(1))),
    )
    return labels, []


def read_labels(
    path: Path,
    *,
    nc: int | None,
    single_cls: bool = False,
    keypoint_columns: int = 0,
) -> tuple[Labels | None, list[LabelProblem]]:
    """Read one label file, UTF-8 with or without a byte-order mark; see `parse_labels`.

    Returns:
        The labels, or None if there is no such file (a background image); and the problems. A
        broken link or a folder of that name is a problem: Ultralytics would take the image for
        background in silence.
    """
    # Only what is surely not there is a background image; a folder that may not be searched is not.
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None, []
    except OSError as error:
        what = f"label file cannot be read: {error.strerror or error}"
        return no_labels(), [LabelProblem(line=None, what=what)]
    try:
        text = read_text(path)
    except UnreadableError as error:
        return no_labels(), [LabelProblem(line=error.line, what=f"label file: {error}")]
    return parse_labels(text, nc=nc, single_cls=single_cls, keypoint_columns=keypoint_columns)
