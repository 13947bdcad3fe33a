from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from discreet.demo.dataset import MARKER, write_dataset
from discreet.demo.scenes import CLASS_NAMES, PRIVATE, PUBLIC, draw_scene
from discreet.errors import ConfigurationError, StorageError


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("one", 5), ("two", 5), ("three", 6)):
        write_dataset(tmp_path / name, style=PRIVATE, train=4, val=2, seed=seed)
    one, two, three = (files(tmp_path / name) for name in ("one", "two", "three"))
    assert one == two
    assert one.keys() == three.keys()
    scenes = [name for name in one if name.endswith(".jpg")]
    assert len(scenes) == 6
    assert len({one[name] for name in scenes} | {three[name] for name in scenes}) == 12


def test_more_scenes_leave_the_first_ones_alone(tmp_path: Path) -> None:
    few = write_dataset(tmp_path / "few", style=PUBLIC, train=2, val=1, seed=0).parent
    many = write_dataset(tmp_path / "many", style=PUBLIC, train=3, val=2, seed=0).parent
    assert files(few).items() <= files(many).items()


def test_layout_and_labels(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "set", style=PUBLIC, train=5, val=3, size=96, seed=1)
    described = yaml.safe_load(data.read_text())
    assert described == {
        "train": "images/train",
        "val": "images/val",
        "names": dict(enumerate(CLASS_NAMES)),
    }
    for split, count in (("train", 5), ("val", 3)):
        images = sorted((data.parent / described[split]).iterdir())
        assert len(images) == count
        for path in images:
            with Image.open(path) as image:
                assert image.size == (96, 96)
                assert image.mode == "RGB"
            label = data.parent / "labels" / split / f"{path.stem}.txt"
            rows = np.loadtxt(label, ndmin=2)
            assert rows.shape[1] == 5
            assert set(rows[:, 0]) <= {0, 1, 2}
            # Six decimals may round a box at the border outwards by a millionth.
            assert (rows[:, 1:3] - rows[:, 3:] / 2 >= -1e-6).all()
            assert (rows[:, 1:3] + rows[:, 3:] / 2 <= 1 + 1e-6).all()


def test_files_hold_the_drawn_scenes(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "set", style=PRIVATE, train=1, val=2, seed=9)
    stream = np.random.SeedSequence(9, spawn_key=(1, 1))
    image, classes, boxes = draw_scene(np.random.default_rng(stream), PRIVATE)
    with Image.open(data.parent / "images/val/scene_00001.jpg") as opened:
        stored = np.asarray(opened)
    assert np.abs(stored.astype(int) - image).mean() < 3
    rows = np.loadtxt(data.parent / "labels/val/scene_00001.txt", ndmin=2)
    assert np.array_equal(rows[:, 0], classes)
    assert np.allclose(rows[:, 1:], boxes, atol=1e-6)


def test_progress_counts_every_scene(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_dataset(
        tmp_path,
        style=PUBLIC,
        train=2,
        val=1,
        seed=0,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_an_own_data_set_is_replaced_whole(tmp_path: Path) -> None:
    write_dataset(tmp_path / "set", style=PUBLIC, train=5, val=3, seed=0)
    (tmp_path / "set" / "labels" / "train.cache").write_bytes(b"left by a stock training")
    write_dataset(tmp_path / "set", style=PRIVATE, train=2, val=1, seed=1)
    write_dataset(tmp_path / "fresh", style=PRIVATE, train=2, val=1, seed=1)
    assert files(tmp_path / "set") == files(tmp_path / "fresh")


@pytest.mark.parametrize("extra", ["notes.txt", "images/train/mine.jpg", "images/scene_00000.jpg"])
def test_other_files_are_refused_and_kept(tmp_path: Path, extra: str) -> None:
    write_dataset(tmp_path, style=PUBLIC, train=2, val=1, seed=0)
    (tmp_path / extra).write_bytes(b"mine")
    with pytest.raises(StorageError, match="not empty"):
        write_dataset(tmp_path, style=PUBLIC, train=2, val=1, seed=0)
    assert (tmp_path / extra).read_bytes() == b"mine"


def test_a_foreign_folder_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "images" / "train").mkdir(parents=True)
    (tmp_path / "images" / "train" / "scene_00000.jpg").write_bytes(b"somebody's")
    (tmp_path / "data.yaml").write_text("train: images/train\n")
    before = files(tmp_path)
    with pytest.raises(StorageError, match=r"'data\.yaml' and 1 more"):
        write_dataset(tmp_path, style=PUBLIC, train=1, val=1, seed=0)
    assert files(tmp_path) == before
    assert MARKER not in before


def test_an_unwritable_place_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write"):
        write_dataset(tmp_path / "file" / "set", style=PUBLIC, train=1, val=1, seed=0)


@pytest.mark.parametrize("wrong", [{"train": 0}, {"val": -1}, {"train": 1.5}, {"seed": -1}])
def test_bad_counts_are_refused_before_anything_is_written(
    tmp_path: Path, wrong: dict[str, int]
) -> None:
    arguments = {"train": 1, "val": 1, "seed": 0} | wrong
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        write_dataset(tmp_path / "set", style=PUBLIC, **arguments)
    assert not (tmp_path / "set").exists()
