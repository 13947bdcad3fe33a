from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from discreet.data import KeyPoints
from discreet.data.labels import label_path, parse_labels, read_labels

BOX = "0 0.5 0.5 0.1 0.1"


def problems(text: str, **arguments: object) -> list[str]:
    _, found = parse_labels(text, **{"nc": 2, **arguments})
    return [f"{problem.line}: {problem.what}" for problem in found]


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("/d/images/train/a.jpg", "/d/labels/train/a.txt"),
        ("/images/x/images/y/a.b.png", "/images/x/labels/y/a.b.txt"),
        ("/d/my_images/a.jpg", "/d/my_images/a.txt"),
        ("/d/pictures/a.jpg", "/d/pictures/a.txt"),
    ],
)
def test_label_path(image, label):
    from ultralytics.data.utils import img2label_paths

    assert label_path(Path(image)) == Path(label)
    assert img2label_paths([image]) == [label]


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("0 0.5 0.5 0.1", "expected 5 columns (class x y width height), found 4"),
        ("0 0.5 0.5 0.1 0.1 0.9", "expected 5 columns (class x y width height), found 6"),
        ("0", "expected 5 columns (class x y width height), found 1"),
        ("cell 0.5 0.5 0.1 0.1", "'cell' is not a number"),
        ("0 0.5 0,5 0.1 0.1", "'0,5' is not a number"),
        ("2 0.5 0.5 0.1 0.1", "class 2 is out of range: 2 classes, 0 to 1"),
        ("80 0.5 0.5 0.1 0.1", "class 80 is out of range: 2 classes, 0 to 1"),
        ("-1 0.5 0.5 0.1 0.1", "class -1 is not a whole number >= 0"),
        ("0.5 0.5 0.5 0.1 0.1", "class 0.5 is not a whole number >= 0"),
        ("nan 0.5 0.5 0.1 0.1", "a value is not finite (nan or inf)"),
        ("0 nan 0.5 0.1 0.1", "a value is not finite (nan or inf)"),
        ("0 0.5 inf 0.1 0.1", "a value is not finite (nan or inf)"),
        ("0 0.5 0.5 1e99 0.1", "a value is not finite (nan or inf)"),
        ("0 0.5 0.5 -0.1 0.1", "negative width or height in box 0.5 0.5 -0.1 0.1"),
        ("0 0.5 0.5 0.1 -1e-9", "negative width or height in box 0.5 0.5 0.1 -1e-09"),
        ("0 -0.02 0.5 0.1 0.1", "box -0.02 0.5 0.1 0.1 is out of range"),
        ("0 320 240 50 50", "box 320 240 50 50 is out of range"),
        ("0 0.5 0.5 1.02 0.1", "box 0.5 0.5 1.02 0.1 is out of range"),
    ],
)
def test_wrong_row_gives_its_line(row, what):
    (problem,) = problems(f"{BOX}\n\n{row}\n{BOX}\n")
    assert problem.startswith(f"3: {what}")


def test_every_wrong_row_is_reported():
    text = f"0 0.5\n{BOX}\n9 0.5 0.5 0.1 0.1\n0 x 0.5 0.1 0.1\n0 2 0.5 0.1 0.1"
    assert [problem[0] for problem in problems(text)] == ["1", "3", "4", "5"]


@pytest.mark.parametrize(
    "row", ["0 1.01 1.01 1.01 1.01", "1 -0.01 -0.01 0 0", "1.0 .5 5e-1 0.1 0.1"]
)
def test_tolerance_of_ultralytics(row):
    assert problems(row) == []


def test_class_numbers_pass_where_the_number_of_classes_is_unknown_or_one_for_all():
    assert problems("7 0.5 0.5 0.1 0.1", nc=None) == []
    labels, found = parse_labels("7 0.5 0.5 0.1 0.1", nc=1, single_cls=True)
    assert found == [] and labels.classes.tolist() == [0]


def test_polygon_becomes_its_bounding_box():
    labels, found = parse_labels("1 0.1 0.2 0.5 0.3 0.3 0.8", nc=2)
    assert found == [] and labels.polygons
    np.testing.assert_allclose(labels.boxes, [[0.3, 0.5, 0.4, 0.6]], rtol=1e-6)


@pytest.mark.parametrize(
    ("row", "what"),
    [
        (BOX, "a box among polygons"),
        ("0 0.1 0.1 0.2 0.2 0.3", "expected a class and at least 3 points"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "expected a class and at least 3 points"),
        ("0 0.1 0.1 nan 0.2 0.3 0.3", "a value is not finite"),
        ("0 0.1 0.1 inf 0.2 -inf 0.3", "a value is not finite"),
        ("0 0.1 0.1 1.5 0.2 0.3 0.3", "box 0.8 0.2 1.4 0.2 is out of range"),
    ],
)
def test_wrong_polygon_gives_its_line(row, what):
    (problem,) = problems(f"0 0.1 0.1 0.2 0.2 0.3 0.3\n{row}\n")
    assert problem.startswith(f"2: {what}")


def test_different_polygons_may_share_a_box():
    labels, _ = parse_labels(
        "0 .1 .1 .5 .1 .5 .5\n0 .1 .1 .1 .5 .5 .5\n0 .1 .1 .5 .1 .5 .5\n", nc=1
    )
    assert len(labels.boxes) == 2 and labels.repeated == (3,)


def test_repeated_rows_are_left_out():
    labels, _ = parse_labels(f"{BOX}\n1 0.5 0.5 0.1 0.1\n{BOX}\n0 .50 .5 .1 .1\n", nc=2)
    assert sorted(labels.classes.tolist()) == [0, 1] and labels.repeated == (3, 4)


def test_key_points_are_cut_off_only_where_they_are_declared():
    row = "0 0.5 0.5 0.1 0.1 0.4 0.4 2 0.6 0.6 2"
    labels, found = parse_labels(f"{row}\n{BOX}\n", nc=1, points=KeyPoints(count=2, columns=3))
    assert found == [] and labels.cut_keypoints and not labels.polygons
    assert labels.boxes.shape == (1, 4)
    # Else it is a polygon, here one that leaves the image.
    assert problems(row)[0].startswith("1: box")


def test_text_encodings(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbf" + BOX.encode() + b"\r\n1 0.2 0.2 0.1 0.1\r\n")
    labels, found = read_labels(path, nc=2)
    assert found == [] and labels is not None and labels.classes.tolist() == [0, 1]
    path.write_bytes(BOX.encode() + b"\n\xff\n")
    (problem,) = read_labels(path, nc=2)[1]
    assert (problem.line, problem.what) == (2, "label file: not UTF-8 text")


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda path: path.mkdir(), "label file: not a plain file"),
        (lambda path: path.symlink_to("gone"), "label file: a link to nothing"),
        (os.mkfifo, "label file: not a plain file"),
    ],
)
def test_label_that_is_there_but_no_file_is_not_background(tiny, make, what):
    path = tiny.root / "labels/train/train1.txt"
    path.unlink()
    make(path)
    assert tiny.problem() == f"labels/train/train1.txt: {what}"


def test_labels_that_may_not_be_read_are_not_background(tiny, unreadable, monkeypatch):
    path = tiny.root / "labels/train/train1.txt"
    unreadable(path)
    expected = "labels/train/train1.txt: label file: cannot be read: Permission denied"
    assert tiny.problem() == expected
    monkeypatch.undo()

    lstat = Path.lstat

    def locked(self: Path) -> os.stat_result:
        if self == path:
            raise PermissionError(13, "Permission denied", str(self))
        return lstat(self)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "lstat", locked)
        _, (problem,) = read_labels(path, nc=2)
    assert problem.what == "label file cannot be read: Permission denied"


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("0 0.5 0.5 0.1", "expected 5 columns"),
        ("2 0.5 0.5 0.1 0.1", "class 2 is out of range: 2 classes, 0 to 1"),
        ("0 0.5 1.5 0.1 0.1", "box 0.5 1.5 0.1 0.1 is out of range"),
        ("0 0.5 nan 0.1 0.1", "a value is not finite"),
    ],
)
def test_the_data_set_s_problem_names_file_and_line(tiny, row, what):
    tiny.write("labels/val/val1.txt", f"{BOX}\n{row}\n")
    problem = tiny.problem()
    assert problem.startswith(f"labels/val/val1.txt:2: {what}")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("oracle") / "images" / "a.png"
    path.parent.mkdir()
    (path.parent.parent / "labels").mkdir()
    Image.new("RGB", (16, 16)).save(path)
    return path


NUMBERS = st.one_of(
    st.sampled_from(
        ["0", "1", "2", "0.5", "1.01", "1.0100001", "-0.01", "-0.0100001", "nan", "inf"]
    ),
    st.floats(0, 1, width=32).map(repr),
)
ROWS = st.tuples(
    st.sampled_from(["0", "1", "1.0", "0", "1", "2", "-1", "0.5"]),
    st.one_of(
        st.lists(st.floats(0, 1, width=32).map(repr), min_size=4, max_size=4),
        st.lists(NUMBERS, min_size=4, max_size=4),
        st.lists(NUMBERS, min_size=6, max_size=8),
        st.lists(st.floats(0, 1, width=32).map(repr), min_size=6, max_size=6),
    ),
).map(lambda parts: " ".join([parts[0], *parts[1]]))
FILES = st.lists(ROWS, min_size=0, max_size=4).flatmap(
    lambda rows: st.lists(st.sampled_from(rows), max_size=6) if rows else st.just([])
)


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=FILES, single_cls=st.booleans(), keypoint_columns=st.sampled_from([0, 2]))
def test_agrees_with_ultralytics(sample: Path, rows, single_cls, keypoint_columns):
    from ultralytics.data.utils import verify_image_label

    text = "\n".join(rows)
    path = label_path(sample)
    path.write_text(text)
    nkpt = keypoint_columns // 2
    points = KeyPoints(count=nkpt, columns=2) if nkpt else None
    with np.errstate(all="ignore"):
        file, expected, *_ = verify_image_label(
            (str(sample), str(path), "", False, 2, nkpt, 2, single_cls)
        )
    labels, found = parse_labels(text, nc=2, single_cls=single_cls, points=points)
    assert (file is None) == bool(found), (text, found)
    if file is not None:
        classes = expected[:, 0] * (not single_cls)
        np.testing.assert_array_equal(labels.classes, classes)
        np.testing.assert_array_equal(labels.boxes, expected[:, 1:])
