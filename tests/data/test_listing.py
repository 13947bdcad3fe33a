from __future__ import annotations

import os

import pytest


def use_list(tiny, entries: str, name: str = "train.txt") -> None:
    tiny.write(name, entries)
    tiny.write("data.yaml", tiny.yaml.read_text().replace("images/train", name))


def test_list_file(tiny):
    absolute = tiny.root / "images/train/train2.jpg"
    use_list(tiny, f"\ufeff./images/train/train1.jpg\n\n{absolute}\n")
    dataset = tiny.load()
    assert [record.image.name for record in dataset.train] == ["train1.jpg", "train2.jpg"]
    assert dataset.train[0].label == tiny.root / "labels/train/train1.txt"
    assert dataset.notices == ()  # labels of images that are there and not listed are no news


def test_list_file_in_a_folder_of_its_own(tiny):
    use_list(tiny, "./../images/train/train0.jpg\n", name="lists/train.txt")
    (record,) = tiny.load().train
    assert record.label is not None and len(record.boxes) == 2


def test_folders_and_lists_together(tiny):
    tiny.add("more/images/x.jpg", "0 0.5 0.5 0.1 0.1")
    tiny.write("x.txt", "./more/images/x.jpg")
    tiny.write("data.yaml", tiny.yaml.read_text().replace("images/train", "[images/train, x.txt]"))
    assert tiny.load().n == 4


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        ("./images/train/train9.jpg", "no such image: looked for"),
        ("images/train/train1.jpg", "relative to the current folder: begin it with ./"),
        ("./images/train/train1.jpg ", "has no image suffix"),
        ("./images/train/train1.gif", "has no image suffix"),
        ("./images/train", "has no image suffix"),
        ("https://example.org/a.jpg", "nothing is fetched from the network"),
        ("./images/train/a\0b.jpg", "no such image"),
    ],
)
def test_wrong_entry_gives_its_line(tiny, monkeypatch, entry, what):
    monkeypatch.chdir(tiny.root)
    use_list(tiny, f"./images/train/train0.jpg\n\n{entry}\n./images/train/train2.jpg\n")
    problem = tiny.problem()
    assert problem.startswith("train.txt:3: ") and what in problem


def test_missing_entry_names_the_nearest(tiny):
    use_list(tiny, "./images/train/train0.jpg\n./images/trian/train1.jpg\n")
    problem = tiny.problem()
    assert f"looked for {tiny.root}/images/trian/train1.jpg" in problem
    assert f"the nearest that exists is {tiny.root}/images/train/train1.jpg" in problem


def test_list_that_is_not_text(tiny):
    use_list(tiny, b"./images/train/train0.jpg\n\xff\n")
    assert tiny.problem() == "train.txt:2: not UTF-8 text"


def test_image_instead_of_a_list(tiny):
    tiny.write("data.yaml", tiny.yaml.read_text().replace("images/val", "images/val/val0.jpg"))
    assert tiny.problem().startswith("images/val/val0.jpg: val must be a folder or a list")


@pytest.mark.parametrize("split", ["train", "val"])
def test_empty_split_says_where_it_looked(tiny, split):
    for image in (tiny.root / "images" / split).iterdir():
        image.unlink()
    problem = tiny.problem()
    assert problem.startswith(
        f"data.yaml: {split} is empty: no images in {tiny.root}/images/{split}"
    )


def test_empty_list(tiny):
    use_list(tiny, "\n\n")
    assert f"train is empty: no images in {tiny.root}/train.txt" in tiny.problem()


def test_folders_are_searched_at_any_depth_and_sorted(tiny):
    tiny.add("images/train/b/deep/x.JPG", "0 0.5 0.5 0.1 0.1")
    tiny.add("images/train/a.v2/y.png", "0 0.5 0.5 0.1 0.1")
    dataset = tiny.load()
    names = [str(record.image.relative_to(tiny.root / "images/train")) for record in dataset.train]
    assert names == ["a.v2/y.png", "b/deep/x.JPG", "train0.jpg", "train1.jpg", "train2.jpg"]
    assert dataset.train[0].label == tiny.root / "labels/train/a.v2/y.txt"
    assert dataset.train[1].label == tiny.root / "labels/train/b/deep/x.txt"


def test_what_is_left_out_of_a_folder_is_said(tiny):
    for name in ("notes.md", ".hidden.jpg", "clip.gif", "noextension", ".git/x.jpg"):
        tiny.write(f"images/train/{name}", b"x")
    (notice,) = tiny.load().notices
    assert "train: 5 files in images/train left out" in notice
    assert "images/train/.git, images/train/.hidden.jpg, images/train/clip.gif, …" in notice


def test_labels_beside_images(tiny):
    tiny.write("flat/p.txt", "0 0.5 0.5 0.1 0.1")
    tiny.add("flat/p.png")
    tiny.write("data.yaml", tiny.yaml.read_text().replace("images/train", "flat"))
    dataset = tiny.load()
    assert len(dataset.train[0].boxes) == 1 and dataset.notices == ()


def test_folder_named_as_an_image(tiny):
    (tiny.root / "images/train/album.jpg").mkdir()
    assert tiny.problem() == "images/train/album.jpg: a folder with the name of an image"


def test_folder_reached_twice_by_a_link(tiny):
    tiny.add("images/train/sub/s.jpg", "")
    (tiny.root / "images/train/zlink").symlink_to(tiny.root / "images/train/sub")
    assert tiny.problem() == (
        "images/train/zlink: the same folder as images/train/sub: its images would count twice"
    )


def test_links_in_a_circle(tiny):
    (tiny.root / "images/train/circle").symlink_to(tiny.root / "images/train")
    assert tiny.problem().startswith("images/train/circle: the same folder as images/train:")
    (tiny.root / "images/train/circle").unlink()
    (tiny.root / "images/val/self").symlink_to(tiny.root / "images/val/self")
    assert tiny.load().n == 3


def test_split_that_is_a_link(tiny):
    # Ultralytics resolves the split's folder first, so labels are sought beside its target.
    (tiny.root / "here").symlink_to(tiny.root / "images/train")
    tiny.write("data.yaml", tiny.yaml.read_text().replace("images/train", "here"))
    dataset = tiny.load()
    assert dataset.train[0].label == tiny.root / "labels/train/train0.txt"


def test_unreadable_folder_is_not_skipped(tiny, monkeypatch):
    tiny.add("images/train/locked/l.jpg", "")
    scandir = os.scandir

    def locked(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    assert "images/train/locked: folder cannot be read: Permission denied" in tiny.problem()
