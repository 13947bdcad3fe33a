"""Images of a class each: what the model sees depends on the image alone."""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from ultralytics.utils import DEFAULT_CFG

from discreet.data import ImageRecord, load_dataset
from discreet.errors import StorageError
from discreet.yolo.dataset import ImageSettings
from discreet.yolo.folders import FolderDataset
from discreet.yolo.images import open_images
from discreet.yolo.tasks import CLASSIFY

SIDE = 32


@pytest.fixture
def records(tmp_path: Path) -> tuple[ImageRecord, ...]:
    stream = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("benign", "malignant"):
            for number in range(2):
                path = tmp_path / split / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = stream.integers(0, 255, (40, 24 + 8 * number, 3), np.uint8)
                Image.fromarray(pixels).save(path)
    return load_dataset(tmp_path, task="classify").train


def images(records: Any, *, augment: bool = True, seed: int = 0, **changes: Any) -> FolderDataset:
    hyp = copy(DEFAULT_CFG)
    for name, value in changes.items():
        setattr(hyp, name, value)
    settings = ImageSettings(data={}, imgsz=SIDE, hyp=hyp, augment=augment, seed=seed)
    opened = open_images(CLASSIFY, records, settings)
    assert isinstance(opened, FolderDataset)
    return opened


def test_an_image_comes_with_the_class_of_its_folder(records: tuple[ImageRecord, ...]):
    found = images(records)
    batch = found.collate_fn([found[(1, i)] for i in range(len(found))])
    assert batch["img"].shape == (4, 3, SIDE, SIDE)
    assert batch["cls"].tolist() == [0, 0, 1, 1]
    assert batch["batch_idx"].tolist() == [0, 1, 2, 3]


def test_colours_arrive_as_red_green_blue(records: tuple[ImageRecord, ...]):
    Image.new("RGB", (SIDE, SIDE), (255, 0, 0)).save(records[0].image)
    red, green, blue = images(records, augment=False)[0]["img"]
    assert float(red.min()) == 1 and float(green.max()) == float(blue.max()) == 0


def test_augmentation_depends_on_step_view_seed_and_content_alone(
    records: tuple[ImageRecord, ...],
):
    found, alone = images(records), images(records[2:3])
    seen = found[(5, 2)]["img"]
    assert torch.equal(seen, alone[(5, 0)]["img"])  # others may come and go
    torch.rand(3)  # and so may draws of anybody else
    assert torch.equal(seen, found[(5, 2)]["img"])
    for other in (found[(6, 2)], found[(5, 2, 1)], images(records, seed=1)[(5, 2)]):
        assert not torch.equal(seen, other["img"])


def test_what_is_not_augmented_is_the_same_in_every_step(records: tuple[ImageRecord, ...]):
    found = images(records, augment=False)
    assert torch.equal(found[(1, 0)]["img"], found[(2, 0)]["img"])
    assert torch.equal(found[(1, 0)]["img"], found[0]["img"])


def test_nothing_is_known_of_an_image_from_an_earlier_step(records: tuple[ImageRecord, ...]):
    found = images(records)
    assert found.flips is None and found.key((1, 0)) is None


def test_scale_says_how_much_of_an_image_may_go(records: tuple[ImageRecord, ...]):
    whole = images(records, scale=0.0, erasing=0.0, auto_augment=None, hsv_h=0, hsv_s=0, hsv_v=0,
                   fliplr=0.0)  # fmt: skip
    assert torch.equal(whole[(1, 1)]["img"], whole[(2, 1)]["img"])  # nothing is left to chance
    cut = images(records, scale=0.9, erasing=0.0, auto_augment=None, hsv_h=0, hsv_s=0, hsv_v=0,
                 fliplr=0.0)  # fmt: skip
    assert not torch.equal(cut[(1, 1)]["img"], cut[(2, 1)]["img"])


def test_an_image_that_went_away_is_told_with_its_file(records: tuple[ImageRecord, ...]):
    records[3].image.unlink()
    with pytest.raises(StorageError) as error:
        images(records)[(1, 3)]
    assert str(records[3].image) in str(error.value) and "resume" in str(error.value)
