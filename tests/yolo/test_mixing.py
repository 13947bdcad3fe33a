"""Mosaic and mixup of views: what an image becomes depends on that image alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ultralytics.utils import DEFAULT_CFG

from discreet.arguments import split_arguments
from discreet.data import ImageRecord, load_dataset
from discreet.errors import ConfigurationError, UnsafeArgumentError
from discreet.yolo.dataset import ImageSettings, RecordDataset

from .conftest import IMGSZ, Run

DATA = {"names": dict(enumerate("abc")), "nc": 3, "channels": 3}
Records = tuple[ImageRecord, ...]


def dataset(images: Records, **settings: float) -> RecordDataset:
    still = dict.fromkeys(("hsv_h", "hsv_s", "hsv_v", "translate", "scale", "mosaic"), 0.0)
    hyp = SimpleNamespace(**{**vars(DEFAULT_CFG), **still, **settings})
    return RecordDataset(
        images, ImageSettings(data=DATA, imgsz=IMGSZ, hyp=hyp, augment=True, seed=3)
    )


@pytest.fixture
def records(scenes: Path) -> Records:
    return load_dataset(scenes).train


@pytest.mark.parametrize("key", ["mosaic", "mixup"])
def test_neighbours_and_places_do_not_matter(records: Records, key: str):
    few, many = records[:2], (*records[10:15], records[0], *records[15:])
    one, other = dataset(few, **{key: 1.0}), dataset(many, **{key: 1.0})
    one[(1, 1)], other[(1, 2)]  # whatever came before
    for step in range(4):
        a, b = one[(step, 0)], other[(step, 5)]
        assert torch.equal(a["img"], b["img"])
        assert torch.equal(a["bboxes"], b["bboxes"])


def test_mixup_doubles_the_boxes_of_its_image(records: Records):
    plain = dataset(records, mixup=0.0)[(1, 0)]
    mixed = dataset(records, mixup=1.0)[(1, 0)]
    assert len(mixed["bboxes"]) == 2 * len(plain["bboxes"])
    assert not torch.equal(mixed["img"], plain["img"])


def test_a_mosaic_is_another_picture_each_step(records: Records):
    images = dataset(records, mosaic=1.0)
    plain = dataset(records)[(1, 0)]["img"]
    seen = [images[(step, 0)]["img"] for step in range(4)]
    assert all(not torch.equal(image, plain) for image in seen)
    assert all(not torch.equal(one, seen[0]) for one in seen[1:])


def test_views_of_an_image_are_mixed_differently(records: Records):
    images = dataset(records, mosaic=1.0)
    assert not torch.equal(images[(1, 0, 0)]["img"], images[(1, 0, 1)]["img"])


@pytest.mark.parametrize("key", ["mosaic", "mixup"])
def test_it_takes_several_views(key: str):
    for views in ({}, {"views": 1}, {"views": "1"}, {"views": None}):
        with pytest.raises(UnsafeArgumentError, match=f"{key}=0.5: refused.*\n?.*views=2"):
            split_arguments({"epsilon": 8, key: 0.5, **views})
    for views in (2, "2"):
        _, overrides = split_arguments({"epsilon": 8, key: "0.5", "views": views})
        assert overrides[key] == 0.5
    with pytest.raises(ConfigurationError, match="from 0 to 1"):
        split_arguments({"epsilon": 8, key: 2, "views": 2})


@pytest.mark.slow
def test_a_run_mixes_views(run: Run):
    result = run(batch=4, steps=2, views=2, mosaic=1.0, mixup=0.5, warmup_epochs=0.3)
    assert result.claim_valid
    assert result.record.configuration["mosaic"] == 1.0
