"""Labels of masks, oriented boxes, key points and classes: what is read, and where it is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from discreet.data import DetectionDataset, KeyPoints, TaskName, load_dataset
from discreet.data.labels import label_path, no_labels, parse_labels
from discreet.errors import DatasetError

BOX = "0 0.5 0.5 0.4 0.4"
TRIANGLE = "1 0.1 0.2 0.5 0.3 0.3 0.8"
CORNERS = "0 0.1 0.1 0.5 0.1 0.5 0.4 0.1 0.4"
THREE = KeyPoints(count=2, columns=3)
TWO = KeyPoints(count=2, columns=2)
POSE = f"{BOX} 0.4 0.4 2 0.6 0.6 1"
POINTS_OF: dict[TaskName, KeyPoints | None] = {"segment": None, "obb": None, "pose": THREE}
SOUND: dict[TaskName, str] = {"segment": TRIANGLE, "obb": CORNERS, "pose": POSE}


def problems(task: TaskName, text: str, points: KeyPoints | None = None) -> list[str]:
    labels, found = parse_labels(text, nc=2, task=task, points=points or POINTS_OF[task])
    if found:  # all or nothing
        assert not len(labels.classes) and not labels.outlines
    return [f"{problem.line}: {problem.what}" for problem in found]


# ---- sound labels ----


def test_an_outline_is_kept_with_the_box_around_it():
    square = "0 0 0 1 0 1 1 0 1"
    labels, found = parse_labels(f"{TRIANGLE}\n\n{square}\n", nc=2, task="segment")
    assert found == [] and labels.classes.tolist() == [1, 0]
    triangle, corners = labels.outlines
    np.testing.assert_allclose(triangle, [[0.1, 0.2], [0.5, 0.3], [0.3, 0.8]], rtol=1e-6)
    np.testing.assert_allclose(corners, [[0, 0], [1, 0], [1, 1], [0, 1]])
    np.testing.assert_allclose(labels.boxes[0], [0.3, 0.5, 0.4, 0.6], rtol=1e-6)
    # Nothing is lost of a polygon, so nobody is told that only its box is used.
    assert labels.keypoints is None and not labels.polygons
    assert not triangle.flags.writeable


def test_the_corners_of_an_oriented_box_are_kept_in_their_order():
    labels, found = parse_labels(CORNERS, nc=1, task="obb")
    assert found == []
    (corners,) = labels.outlines
    np.testing.assert_allclose(corners, [[0.1, 0.1], [0.5, 0.1], [0.5, 0.4], [0.1, 0.4]])
    np.testing.assert_allclose(labels.boxes, [[0.3, 0.25, 0.4, 0.3]], rtol=1e-6)


def test_key_points_are_kept_with_their_visibility():
    labels, found = parse_labels(POSE, nc=1, task="pose", points=THREE)
    assert found == [] and labels.outlines == () and not labels.cut_keypoints
    assert labels.keypoints is not None and labels.keypoints.dtype == np.float32
    np.testing.assert_allclose(labels.keypoints, [[[0.4, 0.4, 2], [0.6, 0.6, 1]]], rtol=1e-6)
    np.testing.assert_allclose(labels.boxes, [[0.5, 0.5, 0.4, 0.4]], rtol=1e-6)
    assert not labels.keypoints.flags.writeable


def test_key_points_without_visibility_are_seen_where_they_are_inside():
    labels, found = parse_labels(f"{BOX} 0.4 0.4 -0.005 0.6", nc=1, task="pose", points=TWO)
    assert found == [] and labels.keypoints is not None
    assert labels.keypoints[0, :, 2].tolist() == [1, 0]


@pytest.mark.parametrize("points", [TWO, THREE], ids=["without visibility", "with visibility"])
def test_key_points_are_those_that_ultralytics_reads(tmp_path: Path, points: KeyPoints):
    from ultralytics.data.utils import verify_image_label

    image = tmp_path / "images" / "a.png"
    image.parent.mkdir()
    Image.new("RGB", (16, 16)).save(image)
    stream = np.random.default_rng(0)
    rows = []
    for number in range(5):
        numbers = stream.uniform(0, 1, (points.count, points.columns))
        numbers[0, 0] = -0.009 if number == 2 else numbers[0, 0]
        rows.append(f"{number % 2} 0.5 0.5 0.4 0.4 " + " ".join(map(str, numbers.flatten())))
    rows.append(rows[1])
    path = label_path(image)
    path.parent.mkdir()
    path.write_text("\n".join(rows))
    read = verify_image_label(
        (str(image), str(path), "", True, 2, points.count, points.columns, False)
    )
    labels, found = parse_labels(path.read_text(), nc=2, task="pose", points=points)
    assert found == [] and labels.repeated == (6,) and labels.keypoints is not None
    np.testing.assert_array_equal(labels.boxes, read[1][:, 1:])
    np.testing.assert_array_equal(labels.keypoints, read[4])


@pytest.mark.parametrize("task", SOUND)
def test_a_repeated_object_is_left_out_with_all_that_belongs_to_it(task: TaskName):
    labels, found = parse_labels(
        f"{SOUND[task]}\n{SOUND[task]}\n", nc=2, task=task, points=POINTS_OF[task]
    )
    assert found == [] and labels.repeated == (2,)
    kept = labels.outlines if labels.keypoints is None else labels.keypoints
    assert len(labels.classes) == len(labels.boxes) == len(kept) == 1


def test_objects_that_share_a_box_are_two_if_their_outlines_or_points_differ():
    other = "1 0.1 0.8 0.5 0.3 0.3 0.2"
    labels, _ = parse_labels(f"{TRIANGLE}\n{other}\n", nc=2, task="segment")
    assert len(labels.outlines) == 2 and labels.repeated == ()
    moved = POSE.replace("0.6 0.6 1", "0.6 0.5 1")
    labels, _ = parse_labels(f"{POSE}\n{moved}\n", nc=2, task="pose", points=THREE)
    assert labels.keypoints is not None and len(labels.keypoints) == 2


def test_an_image_without_objects_has_key_points_of_the_right_shape():
    empty = no_labels(THREE).keypoints
    assert empty is not None and empty.shape == (0, 2, 3)
    labels, _ = parse_labels("\n", nc=2, task="pose", points=THREE)
    assert labels.keypoints is not None and labels.keypoints.shape == (0, 2, 3)


# ---- wrong labels ----


@pytest.mark.parametrize(
    ("task", "row", "what"),
    [
        ("segment", BOX, "a box, where segmentation needs the outline"),
        ("segment", "0 0.1 0.1 0.2", "expected a class and at least 3 points"),
        ("segment", "0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "expected a class and at least 3 points"),
        ("segment", "2 0.1 0.2 0.5 0.3 0.3 0.8", "class 2 is out of range: 2 classes, 0 to 1"),
        ("segment", "0 0.1 0.2 0.5 nan 0.3 0.8", "a value is not finite (nan or inf)"),
        ("segment", "0 0.1 0.2 0.5 0.3 0.3 wide", "'wide' is not a number"),
        ("segment", "0 10 20 50 30 30 80", "box 30 50 40 60 is out of range"),
        ("obb", BOX, "expected 9 columns (class and 4 corners, x y each), found 5"),
        ("obb", TRIANGLE, "expected 9 columns (class and 4 corners, x y each), found 7"),
        ("obb", CORNERS.replace("0.5", "1.5"), "box 0.8 0.25 1.4 0.3 is out of range"),
        ("pose", BOX, "expected 11 columns (class, box, and 2 key points of 3 numbers), found 5"),
        ("pose", f"{POSE} 0.1", "expected 11 columns"),
        ("pose", POSE.replace("0.6 1", "nan 1"), "a key point is not finite (nan or inf)"),
        ("pose", POSE.replace("0.6 1", "1.6 1"), "a key point is out of range"),
        ("pose", POSE.replace("0.4 2", "0.4 -1"), "the visibility of a key point is negative"),
        ("pose", POSE.replace("0.5", "1.5", 1), "box 1.5 0.5 0.4 0.4 is out of range"),
    ],
)
def test_a_wrong_line_is_told_with_its_number(task: TaskName, row: str, what: str):
    (problem,) = problems(task, f"{SOUND[task]}\n\n{row}\n{SOUND[task]}\n")
    assert problem.startswith(f"3: {what}")


def test_a_line_is_told_once_however_much_is_wrong_in_it():
    row = "0 0.5 1.5 0.4 0.4 nan 0.4 2 0.6 7 -1"
    (problem,) = problems("pose", f"{POSE}\n{row}\n")
    assert problem.startswith("2: box")


def test_all_wrong_lines_are_told_in_their_order():
    rows = [POSE.replace("0.6 1", "1.6 1"), POSE, BOX, POSE.replace("0 0.5", "7 0.5", 1)]
    assert [problem[0] for problem in problems("pose", "\n".join(rows))] == ["1", "3", "4"]


# ---- whole data sets ----


class Written:
    """A data set of two training images and one validation image, of any task but classes."""

    def __init__(self, folder: Path, task: TaskName) -> None:
        self.folder, self.task = folder, task
        for number, name in enumerate(["train/a", "train/b", "val/c"]):
            image = folder / "images" / f"{name}.png"
            image.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 255, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(image)
            self.label(name, SOUND[task])
        self.describe("kpt_shape: [2, 3]\nflip_idx: [1, 0]" if task == "pose" else "")

    def label(self, name: str, text: str) -> None:
        path = self.folder / "labels" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def describe(self, more: str) -> None:
        text = f"train: images/train\nval: images/val\nnames: [cell, dot]\n{more}\n"
        (self.folder / "data.yaml").write_text(text)

    def load(self) -> DetectionDataset:
        return load_dataset(self.folder / "data.yaml", task=self.task)

    def problem(self) -> str:
        with pytest.raises(DatasetError) as error:
            self.load()
        (problem,) = error.value.problems
        return problem


@pytest.mark.parametrize("task", SOUND)
def test_records_hold_what_the_task_needs(tmp_path: Path, task: TaskName):
    data = Written(tmp_path, task).load()
    assert data.task == task and data.n == 2
    assert data.keypoints == (
        KeyPoints(count=2, columns=3, mirrored=(1, 0)) if task == "pose" else None
    )
    for record in data.train:
        assert len(record.outlines) == (0 if task == "pose" else 1)
        assert (record.keypoints is not None) == (task == "pose")


@pytest.mark.parametrize(
    ("task", "row", "what"),
    [
        ("segment", BOX, "a box, where segmentation needs the outline"),
        ("obb", TRIANGLE, "expected 9 columns"),
        ("pose", POSE.replace("0.6 1", "1.6 1"), "a key point is out of range"),
    ],
)
def test_the_data_set_s_problem_names_file_and_line(
    tmp_path: Path, task: TaskName, row: str, what: str
):
    written = Written(tmp_path, task)
    written.label("val/c", f"{SOUND[task]}\n{row}\n")
    assert written.problem().startswith(f"labels/val/c.txt:2: {what}")


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ("", "poses need kpt_shape"),
        ("kpt_shape: [2, 4]", "expected kpt_shape to be [number of points, 2 or 3], got [2, 4]"),
        ("kpt_shape: [2, 3]\nflip_idx: [0, 0]", "expected flip_idx to hold each number from 0"),
        ("kpt_shape: [2, 3]\nflip_idx: 1", "expected flip_idx to hold each number from 0"),
    ],
)
def test_what_the_file_says_of_key_points_is_checked(tmp_path: Path, more: str, what: str):
    written = Written(tmp_path, "pose")
    written.describe(more)
    problem = written.problem()  # one, not another for each label
    assert what in problem and problem.startswith("data.yaml")


def test_points_that_nobody_can_mirror_are_a_notice(tmp_path: Path):
    written = Written(tmp_path, "pose")
    written.describe("kpt_shape: [2, 3]")
    data = written.load()
    assert data.keypoints is not None and data.keypoints.mirrored == ()
    assert any("flips are off" in notice for notice in data.notices)


# ---- folders of classes ----


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    stream = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("benign", "malignant"):
            for number in range(2):
                path = tmp_path / "data" / split / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = stream.integers(0, 255, (16, 16, 3), np.uint8)
                Image.fromarray(pixels).save(path)
    return tmp_path / "data"


def class_problems(folder: Path) -> tuple[str, ...]:
    with pytest.raises(DatasetError) as error:
        load_dataset(folder, task="classify")
    return error.value.problems


def test_the_class_of_an_image_is_its_folder(folders: Path):
    data = load_dataset(folders)  # what it is follows from what is there
    assert (data.task, data.names) == ("classify", ("benign", "malignant"))
    for record in (*data.train, *data.val):
        assert record.classes.tolist() == [data.names.index(record.image.parent.name)]
        assert record.label is None and record.boxes.shape == (0, 4)


def test_other_names_of_the_validation_folder_are_known(folders: Path):
    (folders / "val").rename(folders / "valid")
    assert len(load_dataset(folders, task="classify").val) == 4


def test_a_missing_split_is_told(folders: Path):
    (folders / "val").rename(folders / "later")
    (problem,) = class_problems(folders)
    assert "no folder val, with a folder of images for each class" in problem


def test_a_single_class_is_told(folders: Path):
    for split in ("train", "val"):
        (folders / split / "malignant").rename(folders / f"{split}-gone")
    (problem,) = class_problems(folders)
    assert problem.startswith("data/train: expected at least two folders")


def test_a_class_that_only_validation_has_is_told(folders: Path):
    (folders / "val" / "unsure").mkdir()
    (folders / "val" / "benign" / "0.png").rename(folders / "val" / "unsure" / "0.png")
    assert any("val/unsure" in problem for problem in class_problems(folders))


def test_a_broken_image_is_told_with_its_file(folders: Path):
    (folders / "train" / "benign" / "1.png").write_bytes(b"not an image")
    (problem,) = class_problems(folders)
    assert problem.startswith("data/train/benign/1.png: not an image")


def test_a_file_is_no_folder_of_classes(folders: Path):
    file = folders / "train" / "benign" / "0.png"
    with pytest.raises(DatasetError, match="not a folder"):
        load_dataset(file, task="classify")
