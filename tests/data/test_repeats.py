from __future__ import annotations

import os
import shutil


def twin(tiny, source: str, target: str, how=shutil.copyfile) -> None:
    path = tiny.root / target
    path.parent.mkdir(parents=True, exist_ok=True)
    how(tiny.root / source, path)
    label = target.replace("images/", "labels/").replace(".jpg", ".txt")
    tiny.write(label, "0 0.5 0.5 0.3 0.3")


def test_same_line_twice_in_a_list(tiny):
    tiny.write("train.txt", "./images/train/train0.jpg\n./images/train/train1.jpg\n" * 2)
    tiny.write("data.yaml", tiny.yaml.read_text().replace("images/train", "train.txt"))
    assert tiny.problems() == (
        "train.txt:3: images/train/train0.jpg is the same file as images/train/train0.jpg"
        " (train.txt:1): one image would count twice in train",
        "train.txt:4: images/train/train1.jpg is the same file as images/train/train1.jpg"
        " (train.txt:2): one image would count twice in train",
    )


def test_same_file_by_another_spelling(tiny):
    entries = "./images/train/train0.jpg\n./images/val/../train/train0.jpg\n"
    tiny.write("train.txt", entries)
    tiny.write("data.yaml", tiny.yaml.read_text().replace("images/train", "train.txt"))
    assert "is the same file as" in tiny.problem()


def test_same_file_in_two_folders_of_a_split(tiny):
    tiny.write("data.yaml", tiny.yaml.read_text().replace("images/val", "[images/val, images/val]"))
    problems = tiny.problems()
    assert len(problems) == 2
    assert all("one image would count twice in val" in problem for problem in problems)


def test_symbolic_link(tiny):
    twin(tiny, "images/train/train1.jpg", "images/train/z.jpg", os.symlink)
    assert tiny.problem() == (
        "images/train/z.jpg: the same file as images/train/train1.jpg:"
        " one image would count twice in train"
    )


def test_hard_link(tiny):
    twin(tiny, "images/train/train1.jpg", "images/train/z.jpg", os.link)
    assert "the same file as images/train/train1.jpg" in tiny.problem()


def test_same_bytes_in_train(tiny):
    twin(tiny, "images/train/train1.jpg", "images/train/y.jpg")
    twin(tiny, "images/train/train1.jpg", "images/train/z.jpg")
    assert tiny.problems() == (
        "images/train/y.jpg: the same pixels as images/train/train1.jpg:"
        " one image would count twice in train",
        "images/train/z.jpg: the same pixels as images/train/train1.jpg:"
        " one image would count twice in train",
    )


def test_train_and_val_overlap_by_bytes(tiny):
    twin(tiny, "images/train/train0.jpg", "images/val/a.jpg")
    twin(tiny, "images/train/train2.jpg", "images/val/b.jpg")
    assert tiny.problems() == (
        "images/val/a.jpg: in val, and the same pixels as images/train/train0.jpg in train:"
        " the splits overlap",
        "images/val/b.jpg: in val, and the same pixels as images/train/train2.jpg in train:"
        " the splits overlap",
    )


def test_train_and_val_overlap_by_file(tiny):
    twin(tiny, "images/train/train0.jpg", "images/val/a.jpg", os.symlink)
    assert "images/val/a.jpg: in val, and the same file as images/train/train0.jpg in train" in (
        tiny.problem()
    )


def test_one_folder_for_both_splits(tiny):
    tiny.write("data.yaml", tiny.yaml.read_text().replace("images/val", "images/train"))
    problems = tiny.problems()
    assert len(problems) == 3
    assert all("the splits overlap" in problem for problem in problems)


def test_val_below_train(tiny):
    tiny.write("data.yaml", tiny.yaml.read_text().replace("train: images/train", "train: images"))
    assert len(tiny.problems()) == 2


def test_train_and_test_overlap(tiny):
    tiny.write("data.yaml", tiny.yaml.read_text() + "test: images/test\n")
    twin(tiny, "images/train/train0.jpg", "images/test/a.jpg")
    assert "images/test/a.jpg: in test" in tiny.problem(splits=("train", "val", "test"))
    assert tiny.load().n == 3


def test_same_bytes_outside_train_are_a_notice(tiny):
    tiny.write("data.yaml", tiny.yaml.read_text() + "test: images/test\n")
    twin(tiny, "images/val/val0.jpg", "images/val/x.jpg")
    twin(tiny, "images/val/val1.jpg", "images/test/y.jpg")
    (notice,) = tiny.load(splits=("train", "val", "test")).notices
    assert "images/val/x.jpg = images/val/val0.jpg" in notice
    assert "images/test/y.jpg = images/val/val1.jpg" in notice


def test_empty_files_are_reported_as_empty_only(tiny):
    tiny.write("images/train/a.jpg", b"")
    tiny.write("images/train/b.jpg", b"")
    problems = tiny.problems()
    assert len(problems) == 2 and all("empty file" in problem for problem in problems)


def test_same_labels_and_names_are_no_repeat(tiny):
    tiny.add("images/val/train0.jpg", "0 0.5 0.5 0.4 0.4\n1 0.2 0.2 0.1 0.1\n")
    assert len(tiny.load().val) == 3
