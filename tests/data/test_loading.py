from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import ImageFile

from discreet.data import load_dataset
from discreet.data.images import inspect_image
from discreet.errors import ConfigurationError, DatasetError


def test_sound_data_set_is_described(tiny):
    dataset = tiny.load()
    assert (dataset.n, dataset.nc, dataset.names) == (3, 2, ("cell", "dot"))
    assert (len(dataset.val), dataset.test, dataset.notices) == (2, (), ())
    assert dataset.yaml == tiny.yaml
    record = dataset.train[1]
    assert record.image == tiny.root / "images/train/train1.jpg"
    assert record.label == tiny.root / "labels/train/train1.txt"
    assert (record.width, record.height) == (16, 12)
    assert record.classes.dtype == np.int64 and record.classes.tolist() == [0, 1]
    assert record.boxes.dtype == np.float32 and record.boxes.shape == (2, 4)
    np.testing.assert_allclose(record.boxes[1], [0.2, 0.2, 0.1, 0.1])
    assert record.digest == inspect_image(record.image).digest


def test_values_are_immutable_and_the_digest_is_not_shown(tiny):
    record = tiny.load().train[0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.width = 1
    with pytest.raises(ValueError, match="read-only"):
        record.boxes[0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        record.classes[0] = 1
    assert "digest" not in repr(record)


def test_missing_and_empty_label_files_are_background(tiny):
    tiny.add("images/train/bare.jpg")
    tiny.add("images/train/empty.jpg", "")
    tiny.add("images/train/blank.jpg", "\n  \n")
    dataset = tiny.load()
    records = {record.image.stem: record for record in dataset.train}
    assert records["bare"].label is None
    assert records["empty"].label is not None
    for name in ("bare", "empty", "blank"):
        assert records[name].boxes.shape == (0, 4) and records[name].classes.shape == (0,)
    assert dataset.n == 6
    (notice,) = dataset.notices
    assert "1 of 6 images without a label file" in notice and "images/train/bare.jpg" in notice


def test_no_label_file_at_all_is_refused_as_ultralytics_does(tiny):
    for label in (tiny.root / "labels/train").iterdir():
        label.unlink()
    (tiny.root / "labels/train").rename(tiny.root / "labels/tarin")
    problem = tiny.problem()
    assert "train: no image has a label file; looked for labels/train/train0.txt" in problem
    assert "labels/tarin" in problem


def test_validation_without_labels_is_a_notice(tiny):
    for label in (tiny.root / "labels/val").iterdir():
        label.unlink()
    assert any("val: no image has a label file" in notice for notice in tiny.load().notices)


def test_test_split_only_when_asked_for(tiny):
    tiny.add("images/test/t.jpg", "0 0.5 0.5 0.1 0.1")
    tiny.write("data.yaml", tiny.yaml.read_text() + "test: images/test\n")
    assert tiny.load().test == ()
    assert len(tiny.load(splits=("train", "val", "test")).test) == 1
    only = tiny.load(splits=("test",))
    assert (only.n, len(only.val), len(only.test)) == (0, 0, 1)


def test_unknown_split_is_refused(tiny):
    with pytest.raises(ConfigurationError, match="'minival'"):
        tiny.load(splits=("train", "minival"))


def test_missing_test_split_is_refused_only_when_asked_for(tiny):
    assert "data.yaml: the key 'test' is missing" in tiny.problem(splits=("train", "test"))


def test_single_class(tiny):
    tiny.add("images/train/other.jpg", "7 0.5 0.5 0.1 0.1\n3 0.5 0.5 0.1 0.1\n")
    dataset = tiny.load(single_cls=True)
    assert (dataset.names, dataset.nc) == (("item",), 1)
    assert all((record.classes == 0).all() for record in dataset.train)
    # As Ultralytics: rows are compared before their classes become one.
    assert len(dataset.train[0].boxes) == 2


def test_progress_counts_every_image(tiny):
    for index in range(40):
        tiny.add(f"images/train/more{index}.jpg", "")
    calls: list[tuple[int, int]] = []
    tiny.load(progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (45, 45)
    assert calls == sorted(calls) and len(calls) > 1


def test_all_problems_are_reported_together_at_most_twenty_shown(tiny):
    for index in range(25):
        tiny.write(f"images/train/bad{index:02}.jpg", b"")
    tiny.write("labels/train/train0.txt", "0 0.5 0.5 0.4 0.4\n9 0.5 0.5 0.4 0.4\n")
    tiny.write("labels/val/val0.txt", "0 0.5 0.5 0.4\n")
    tiny.add("images/val/copy.jpg").write_bytes(
        (tiny.root / "images/train/train1.jpg").read_bytes()
    )
    problems = tiny.problems()
    assert len(problems) == 28
    for part in ("labels/train/train0.txt:2:", "labels/val/val0.txt:1:", "images/val/copy.jpg:"):
        assert sum(problem.startswith(part) for problem in problems) == 1
    with pytest.raises(DatasetError) as error:
        tiny.load()
    text = str(error.value)
    assert "28 problems in the data set" in text and "… and 8 more" in text
    assert "nothing was written" in text


def test_refuses_while_pillow_is_told_to_load_truncated_images(tiny, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(ConfigurationError, match="LOAD_TRUNCATED_IMAGES"):
        tiny.load()


def test_a_file_name_cannot_forge_output(tiny):
    tiny.write("images/train/evil\n\x1b[2Jtrain.jpg", b"")
    tiny.write("labels/train/train0.txt", "0 0.5 0.5 0.1 \x1b]0;x\x07")
    label, image = sorted(tiny.problems(), reverse=True)
    assert r"evil\n\x1b[2Jtrain.jpg: empty file" in image
    assert image.isprintable() and label.isprintable()


def test_a_file_name_that_is_not_text(tiny):
    Path(os.fsdecode(os.fsencode(tiny.root) + b"/images/train/\xff\xfe.jpg")).touch()
    problem = tiny.problem()
    problem.encode("utf-8")
    assert "empty file" in problem


def test_names_in_other_scripts_are_shown_as_they_are(tiny):
    tiny.write("images/train/细胞.jpg", b"")
    assert tiny.problem().startswith("images/train/细胞.jpg: ")


def test_neither_torch_nor_ultralytics_is_imported():
    code = (
        "import sys, discreet.data; bad = {'torch', 'ultralytics', 'cv2'} & set(sys.modules);"
        "sys.exit(str(bad) if bad else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "train", "val", "classes"),
    [
        ("coco8", 4, 4, 80),
        ("bccd", 292, 72, 3),
        ("txl_pbc", 1008, 281, 3),
        ("fod_a", 6885, 1498, 31),
    ],
)
def test_real_data_sets_load(shared_data: Path, name: str, train: int, val: int, classes: int):
    start = time.perf_counter()
    dataset = load_dataset(shared_data / name / "data.yaml")
    print(f"{name}: {train + val} images in {time.perf_counter() - start:.1f} s")
    assert (dataset.n, len(dataset.val), dataset.nc) == (train, val, classes)
    assert dataset.notices == ()
    assert len({record.digest for record in dataset.train + dataset.val}) == train + val


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["coco8", "bccd", "txl_pbc"])
def test_real_data_sets_are_read_as_ultralytics_reads_them(shared_data: Path, name: str):
    from ultralytics.data.utils import verify_image_label

    dataset = load_dataset(shared_data / name)
    # Every image ends as a JPEG should, or it would have been refused: this does not write.
    for record in dataset.train + dataset.val:
        arguments = (str(record.image), str(record.label), "", False, dataset.nc, 0, 0, False)
        file, rows, shape, *_ = verify_image_label(arguments)
        assert file == str(record.image)
        assert shape == (record.height, record.width)
        np.testing.assert_array_equal(rows[:, 0], record.classes)
        np.testing.assert_array_equal(rows[:, 1:], record.boxes)
