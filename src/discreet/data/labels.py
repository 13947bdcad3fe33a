"""Read one label file as Ultralytics 8.4 does (data/utils.py, verify_image_label), line by line.

Differences: every problem is found, with its line, where Ultralytics drops the image at the first.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from discreet.data._reading import UnreadableError, read_text
from discreet.data.records import KeyPoints, TaskName

COLUMNS = 5  # class x y w h
MIN_POLYGON_COLUMNS = 7  # class and three points
CORNER_COLUMNS = 9  # class and four corners
LOWEST, HIGHEST = np.float32(-0.01), np.float32(1.01)  # what Ultralytics allows around [0, 1]


@dataclass(frozen=True, kw_only=True, eq=False)
class Labels:
    """The objects of one label file; k of them.

    Attributes:
        classes: Class numbers, int64 (k,), read-only.
        boxes: Centre x, centre y, width, height as shares of the image, float32 (k, 4), read-only.
        repeated: Lines that repeat an earlier one; left out.
        outlines: Corners, one float32 (corners, 2) per object, where the task asks for them.
        keypoints: Key points, float32 (k, K, 3), where the task asks for them.
        polygons: Whether the lines are polygons of which only the bounding boxes are used.
        cut_keypoints: Whether key points were cut off.
        flat: Lines of boxes without area.
    """

    classes: NDArray[np.int64]
    boxes: NDArray[np.float32]
    outlines: tuple[NDArray[np.float32], ...] = ()
    keypoints: NDArray[np.float32] | None = None
    repeated: tuple[int, ...] = ()
    polygons: bool = False
    cut_keypoints: bool = False
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


Array = TypeVar("Array", bound=np.ndarray)


def _frozen(values: Array) -> Array:
    values.setflags(write=False)
    return values


def no_labels(points: KeyPoints | None = None) -> Labels:
    """The labels of a background image; `points` as for `parse_labels`."""
    return Labels(
        classes=_frozen(np.zeros(0, np.int64)),
        boxes=_frozen(np.zeros((0, 4), np.float32)),
        keypoints=None if points is None else _frozen(np.zeros((0, points.count, 3), np.float32)),
    )


def class_label(number: int) -> Labels:
    """The label of an image that is of one class as a whole."""
    return Labels(
        classes=_frozen(np.array([number], np.int64)), boxes=_frozen(np.zeros((0, 4), np.float32))
    )


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


def _column_problem(
    columns: int, task: TaskName, polygons: bool, points: KeyPoints | None
) -> str | None:
    if points is not None:
        wanted = COLUMNS + points.count * points.columns
        if columns == wanted:
            return None
        return (
            f"expected {wanted} columns (class, box, and {points.count} key points of "
            f"{points.columns} numbers), found {columns}"
        )
    if task == "obb":
        if columns == CORNER_COLUMNS:
            return None
        return f"expected {CORNER_COLUMNS} columns (class and 4 corners, x y each), found {columns}"
    if not polygons:
        if columns == COLUMNS:
            return None
        return f"expected {COLUMNS} columns (class x y width height), found {columns}"
    if columns == COLUMNS:
        if task == "segment":
            return "a box, where segmentation needs the outline: class and points (x y each)"
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
    task: TaskName = "detect",
    points: KeyPoints | None = None,
) -> tuple[Labels, list[LabelProblem]]:
    """Read the text of one label file.

    Args:
        text: One object a line; shares of the image; blank lines do not count. A box, `class x y
            width height`; or a polygon, `class x y x y …`, of four corners for oriented boxes; or
            a box with key points behind it, x, y and maybe visibility of each.
        nc: Number of classes; None if it is not known, then any class number passes.
        single_cls: All classes become 0, and any class number passes.
        task: What the labels are for. Detection takes the box of whatever there is.
        points: Key points that the data set file declares. Detection cuts them off.

    Returns:
        The labels, none if there is any problem; and the problems, by line.
    """
    lines = [
        (number, words)
        for number, line in enumerate(text.splitlines(), start=1)
        if (words := line.split())
    ]
    wanted = points if task == "pose" else None
    cut = False
    if points is not None and wanted is None:
        extra = COLUMNS + points.count * points.columns
        cut = any(len(words) == extra for _, words in lines)
        lines = [(n, words[:COLUMNS] if len(words) == extra else words) for n, words in lines]
    outlined = task in ("segment", "obb")
    polygons = outlined or (
        wanted is None and any(len(words) >= MIN_POLYGON_COLUMNS for _, words in lines)
    )

    problems: list[LabelProblem] = []
    numbers: list[int] = []
    rows: list[NDArray[np.float32]] = []
    whole: list[NDArray[np.float32]] = []
    # What overflows or is undefined becomes infinite or nan, and is refused as such.
    with np.errstate(over="ignore", invalid="ignore"):
        for number, words in lines:
            values = _column_problem(len(words), task, polygons, wanted) or _numbers(words)
            if isinstance(values, str):
                problems.append(LabelProblem(line=number, what=values))
                continue
            row = np.array(values, dtype=np.float32)
            numbers.append(number)
            rows.append(_bounding_box(row) if polygons else row[:COLUMNS])
            whole.append(row)
        table = np.array(rows, dtype=np.float32).reshape(-1, COLUMNS)
        wrong = _value_problems(table, nc, single_cls)
        keypoints = None
        if wanted is not None:
            keypoints = _key_points(whole, wanted)
            told = {i for i, _ in wrong}
            wrong += [(i, what) for i, what in _point_problems(keypoints) if i not in told]
    problems += [LabelProblem(line=numbers[i], what=what) for i, what in wrong]
    if problems or not rows:
        return no_labels(wanted), sorted(problems, key=lambda problem: problem.line or 0)

    if wanted is None:
        kept = _first_of_each(table, [row[1:] for row in whole] if polygons else None)
    else:
        kept = _first_of_each(np.array(whole, dtype=np.float32), None)
    labels = Labels(
        classes=_frozen((table[kept, 0] * (not single_cls)).astype(np.int64)),
        boxes=_frozen(table[kept, 1:]),
        outlines=tuple(_frozen(whole[i][1:].reshape(-1, 2)) for i in kept) if outlined else (),
        keypoints=None if keypoints is None else _frozen(keypoints[kept]),
        repeated=tuple(sorted(set(numbers) - {numbers[i] for i in kept})),
        polygons=polygons and not outlined,
        cut_keypoints=cut,
        flat=tuple(numbers[i] for i in np.flatnonzero((table[:, 3:] == 0).any(1))),
    )
    return labels, []


def _key_points(rows: list[NDArray[np.float32]], points: KeyPoints) -> NDArray[np.float32]:
    """Key points (k, K, 3) of label rows; those without a visibility are seen if inside."""
    table = np.array([row[COLUMNS:] for row in rows], dtype=np.float32)
    found = table.reshape(-1, points.count, points.columns)
    if points.columns == 2:  # Ultralytics, verify_image_label
        seen = np.where((found < 0).any(2), 0.0, 1.0).astype(np.float32)
        found = np.concatenate([found, seen[..., None]], axis=2)
    return found


def _point_problems(keypoints: NDArray[np.float32]) -> list[tuple[int, str]]:
    """Objects whose key points (k, K, 3) are out of range, and what is wrong."""
    places, seen = keypoints[..., :2], keypoints[..., 2]
    rules = (
        (~np.isfinite(keypoints).all((1, 2)), "a key point is not finite (nan or inf)"),
        (
            (places < LOWEST).any((1, 2)) | (places > HIGHEST).any((1, 2)),
            "a key point is out of range: x and y are shares of the image, 0 to 1",
        ),
        ((seen < 0).any(1), "the visibility of a key point is negative"),
    )
    wrong: dict[int, str] = {}
    for mask, what in rules:
        for i in np.flatnonzero(mask):
            wrong.setdefault(int(i), what)
    return sorted(wrong.items())


def read_labels(
    path: Path,
    *,
    nc: int | None,
    single_cls: bool = False,
    task: TaskName = "detect",
    points: KeyPoints | None = None,
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
    return parse_labels(text, nc=nc, single_cls=single_cls, task=task, points=points)
